//! What a history adds up to, counted from the definitions: each launch, copy and byte once, whatever layers it crossed.
//! In: what arrived. Out: sums. Absent: steps, requests, times.

use super::history::{Input, RUNTIME, index};
use crate::decode::{Body, Burst, CallData, Event, GpuCall};
use crate::probe::Direction;
use std::collections::HashMap;

/// Sums over all processes.
#[derive(Debug, Default)]
pub struct Reference {
    /// Events that arrived.
    pub events: u64,
    /// Of these, those that are no operation of their own.
    pub ignored: u64,
    pub launches: u64,
    /// By the number of the kernel: launched, and run as nodes.
    pub kernels: HashMap<(u32, u64), (u64, u64)>,
    pub graph_launches: u64,
    pub graph_nodes: u64,
    pub unknown_graphs: u64,
    pub captured: u64,
    /// Count and bytes by direction.
    pub copies: [(u64, u64); 5],
    pub sets: (u64, u64),
    pub host_functions: u64,
    /// Launches, copies and bytes that were counted in the kernel.
    pub counted: (u64, u64, u64),
    /// Bytes that are held.
    pub live_bytes: u64,
    pub allocated_bytes: u64,
    pub frees_of_unknown: u64,
    processes: HashMap<u32, Process>,
}

#[derive(Debug, Default)]
struct Process {
    /// The runtime call that each thread entered last is a launch whose driver's half has not come.
    launching: HashMap<u32, bool>,
    recording: Option<Vec<u64>>,
    graphs: HashMap<u64, Vec<u64>>,
    executables: HashMap<u64, Vec<u64>>,
    /// Events that were recorded, and in which stream last.
    marked: HashMap<u64, u64>,
    blocks: HashMap<u64, u64>,
    bursts: HashMap<u32, Burst>,
}

impl Reference {
    /// Takes what arrived.
    pub fn take(&mut self, input: &Input) {
        match input {
            Input::Event(event) => self.event(event),
            Input::Gone(pid, _) => {
                let held = self.processes.remove(pid).unwrap_or_default().blocks;
                self.live_bytes -= held.values().sum::<u64>();
            }
            Input::Spoke(..) => {}
        }
    }

    fn event(&mut self, event: &Event) {
        self.events += 1;
        match &event.body {
            Body::Gpu(call) if self.call((event.pid, event.tid), call) => {}
            Body::Gpu(_) => self.ignored += 1,
            Body::Burst(burst) => self.burst((event.pid, event.tid), burst),
            _ => {}
        }
    }

    fn burst(&mut self, (pid, tid): (u32, u32), now: &Burst) {
        let before = self.processes.entry(pid).or_default().bursts.entry(tid).or_default();
        if now.launches >= before.launches && now.copies >= before.copies {
            self.counted.0 += now.launches - before.launches;
            self.counted.1 += now.copies - before.copies;
            self.counted.2 += now.copy_bytes - before.copy_bytes;
            *before = *now;
        }
    }

    /// Whether it is an operation of its own.
    fn call(&mut self, (pid, tid): (u32, u32), call: &GpuCall) -> bool {
        let is = |symbol: &str| call.api == index(symbol);
        let process = self.processes.entry(pid).or_default();
        match &call.data {
            CallData::Launch(launch) => {
                let is_driver = is("cuLaunchKernel");
                let half = process.launching.insert(tid, !is_driver).unwrap_or(false);
                if is_driver && launch.caller == RUNTIME.0 && half {
                    return false;
                }
                if let Some(recording) = process.recording.as_mut().filter(|_| launch.stream == 0x99) {
                    recording.push(launch.function);
                    self.captured += 1;
                    return false;
                }
                self.launches += 1;
                self.kernels.entry((pid, launch.function)).or_default().0 += 1;
                true
            }
            CallData::Entered { args, .. } => {
                process.launching.insert(tid, false);
                self.entered(pid, &is, args)
            }
            CallData::Returned { args, out, .. } => self.returned(pid, &is, args, out[0]),
            other => unreachable!("{other:?}"),
        }
    }

    fn entered(&mut self, pid: u32, is: &dyn Fn(&str) -> bool, args: &[u64; 6]) -> bool {
        let process = self.processes.entry(pid).or_default();
        if is("cudaMemcpyAsync") || is("cudaMemcpy") {
            let sums = &mut self.copies[Direction::from_memcpy_kind(args[3]) as usize];
            *sums = (sums.0 + 1, sums.1 + args[2]);
        } else if is("cudaMemsetAsync") {
            self.sets = (self.sets.0 + 1, self.sets.1 + args[2]);
        } else if is("cudaLaunchHostFunc") {
            self.host_functions += 1;
        } else if is("cudaGraphLaunch") {
            self.graph_launches += 1;
            match process.executables.get(&args[0]) {
                Some(nodes) => {
                    self.graph_nodes += nodes.len() as u64;
                    for kernel in nodes {
                        self.kernels.entry((pid, *kernel)).or_default().1 += 1;
                    }
                }
                None => self.unknown_graphs += 1,
            }
        } else if is("cudaFree") {
            match process.blocks.remove(&args[0]) {
                Some(bytes) => self.live_bytes -= bytes,
                None => self.frees_of_unknown += 1,
            }
        } else if is("cudaStreamWaitEvent") {
            // An event that was never recorded holds nothing up.
            return process.marked.contains_key(&args[1]);
        } else if is("cudaEventRecord") {
            process.marked.insert(args[0], args[1]);
        }
        true
    }

    fn returned(&mut self, pid: u32, is: &dyn Fn(&str) -> bool, args: &[u64; 6], out: u64) -> bool {
        let process = self.processes.entry(pid).or_default();
        if is("cudaMalloc") {
            let lost = process.blocks.insert(out, args[1]).unwrap_or(0);
            self.live_bytes = self.live_bytes + args[1] - lost;
            self.allocated_bytes += args[1];
            return true;
        }
        if is("cudaEventElapsedTime") {
            // Time between events of one stream, and not backwards.
            let stream = |index: usize| process.marked.get(&args[index]);
            return stream(1).is_some() && stream(1) == stream(2) && f32::from_bits(out as u32) > 0.0;
        }
        if is("cudaStreamBeginCapture") {
            process.recording = Some(Vec::new());
        } else if is("cudaStreamEndCapture") {
            if let Some(nodes) = process.recording.take() {
                process.graphs.insert(out, nodes);
            }
        } else if is("cudaGraphInstantiate") {
            match process.graphs.get(&args[1]).cloned() {
                Some(nodes) => drop(process.executables.insert(out, nodes)),
                None => drop(process.executables.remove(&out)),
            }
        } else {
            return true;
        }
        false
    }
}
