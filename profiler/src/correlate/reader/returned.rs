//! What came back from a call: memory, waits that are over, graphs and their making.

use super::{Reader, Return, Seen};
use crate::correlate::arguments::Arguments;
use crate::correlate::kernel::Naming;
use crate::correlate::operation::{Ignored, Operation, Waited};
use crate::probe::{KeyAt, Meaning, Memory, Node, Size, Waits};

impl Reader {
    pub(super) fn returned(
        &mut self,
        seen: &Seen,
        read: &Arguments,
        done: &Return,
    ) -> Result<Operation, Ignored> {
        let meaning = seen.api.meaning;
        if done.result != 0 {
            return self.failed(seen, read, done);
        }
        match meaning {
            // Asked for nothing, cudaMalloc succeeds and hands out nothing.
            Meaning::Allocate { key: KeyAt::Out, .. } if done.out == 0 => Err(Ignored::Bookkeeping),
            Meaning::Allocate { kind, size, key } => Ok(Operation::Allocated {
                key: match key {
                    KeyAt::Out => done.out,
                    KeyAt::Arg(index) => read.at(index),
                },
                bytes: read.size(size),
                kind,
                device: self.device_of(kind, seen.tid),
                caller: done.caller,
            }),
            Meaning::Create { bytes } => Ok(Operation::Allocated {
                key: done.out,
                bytes: read.at(bytes),
                kind: Memory::Device,
                device: created_on(read.second),
                caller: done.caller,
            }),
            Meaning::Synchronize(waits) => {
                let what = match waits {
                    Waits::Stream(index) => {
                        let stream = self.stream(seen, read.at(index));
                        // Nobody can wait for a stream that records: the end of its capture was not seen.
                        self.captures.lose(stream);
                        Waited::Stream(stream)
                    }
                    Waits::Device => Waited::Device,
                    Waits::Event(index) => Waited::Event(self.events.get(&read.at(index)).copied()),
                };
                Ok(Operation::Synchronized { what, entered_ns: done.entered_ns })
            }
            Meaning::Elapsed => self.elapsed(read, done),
            Meaning::StreamCreate => {
                self.devices.made_stream(seen.tid, done.out);
                Err(Ignored::Bookkeeping)
            }
            Meaning::Alias { of } => {
                Ok(Operation::Named(Naming::Alias { handle: done.out, of: read.at(of) }))
            }
            meaning => {
                self.keep_graph_book(seen, meaning, read, done);
                Err(Ignored::Bookkeeping)
            }
        }
    }

    /// How much time lies between two events: `cudaEventElapsedTime(float *ms, start, end)`.
    fn elapsed(&self, read: &Arguments, done: &Return) -> Result<Operation, Ignored> {
        const NS_PER_MS: f64 = 1e6;
        let took_ms = f64::from(f32::from_bits(done.out as u32));
        let event = |index| self.events.get(&read.at(index)).copied().ok_or(Ignored::Bookkeeping);
        let ((stream, first), (other, second)) = (event(1)?, event(2)?);
        // What was counted in the kernel lies somewhere between marks.
        if self.counted || stream != other || !(took_ms > 0.0 && took_ms.is_finite()) {
            return Err(Ignored::Bookkeeping);
        }
        Ok(Operation::Timed { stream, marks: (first, second), took_ns: (took_ms * NS_PER_MS).round() as u64 })
    }

    fn keep_graph_book(&mut self, seen: &Seen, meaning: Meaning, read: &Arguments, done: &Return) {
        let kernel = self.kernel(read.second);
        match meaning {
            Meaning::BeginCapture { stream, into } => {
                self.captures.begin(self.stream(seen, read.at(stream)), into.map(|index| read.at(index)));
            }
            Meaning::EndCapture { stream } => {
                if let Some(recording) = self.captures.end(self.stream(seen, read.at(stream))) {
                    self.graphs.recorded(done.out, &recording.nodes, recording.into.is_some());
                }
            }
            Meaning::GraphCreate => self.graphs.create(done.out),
            Meaning::GraphClone { of } => self.graphs.clone_of(done.out, read.at(of)),
            Meaning::AddNode { graph, node: Node::Kernel } => {
                self.graphs.add_kernel(read.at(graph), done.out, kernel);
            }
            Meaning::ChangeNode { removes } => {
                self.graphs.change_node(read.at(0), (!removes).then_some(kernel));
            }
            Meaning::Instantiate { graph } => self.graphs.instantiate(read.at(graph), done.out),
            Meaning::ExecUpdate { exec, graph } => self.graphs.instantiate(read.at(graph), read.at(exec)),
            Meaning::ExecEnableNode => {
                self.graphs.enable(read.at(0), read.at(1), read.at(2) as u32 != 0);
            }
            Meaning::ExecChangeNode { kernel: true } => {
                self.graphs.change_executable(read.at(0), read.at(1), kernel);
            }
            _ => {}
        }
    }

    fn failed(&mut self, seen: &Seen, read: &Arguments, done: &Return) -> Result<Operation, Ignored> {
        let (bytes, device) = match seen.api.meaning {
            // An end that fails ends the capture all the same; nothing comes of it (cudaStreamEndCapture).
            Meaning::EndCapture { stream } => {
                drop(self.captures.end(self.stream(seen, read.at(stream))));
                return Err(Ignored::Failed);
            }
            Meaning::Allocate { size: Size::PitchTimes(height), kind, .. } => {
                // No pitch was given: what was asked for is at least width times height.
                (read.at(2).wrapping_mul(read.at(height)), self.device_of(kind, seen.tid))
            }
            Meaning::Allocate { size: Size::PitchTimesArea(height, depth), kind, .. } => {
                (read.size(Size::Volume(1, height, depth)), self.device_of(kind, seen.tid))
            }
            Meaning::Allocate { size, kind, .. } => (read.size(size), self.device_of(kind, seen.tid)),
            Meaning::Create { bytes } => (read.at(bytes), created_on(read.second)),
            _ => return Err(Ignored::Failed),
        };
        Ok(Operation::AllocationFailed { bytes, device, result: done.result })
    }

    /// The device that memory of this kind is on when thread `tid` asks for it.
    fn device_of(&self, kind: Memory, tid: u32) -> Option<u32> {
        if kind == Memory::Device { self.devices.current(tid) } else { None }
    }
}

/// `CUmemLocation`: type (1 is a device) in the lower half, id in the upper.
fn created_on(location: u64) -> Option<u32> {
    const DEVICE: u32 = 1;
    (location as u32 == DEVICE).then_some((location >> 32) as u32)
}
