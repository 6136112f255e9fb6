//! Closed steps and running totals of GPU calls → metrics.
//!
//! In: what `correlate` counted. Out: points in a [`Registry`]. Hot counters are handles that were looked up once.

use super::catalog::{self, Counter, Histogram, attribute as name};
use super::{Handle, KernelLaunches, Metric, Registry, Target, UpDownCounter};
use crate::correlate::{Engine, GpuWork, KernelKey, Step};
use crate::probe::Direction;
use crate::span::model::{Resource, Value};
use std::sync::Arc;

/// Metrics of one target group.
#[derive(Debug)]
pub struct Observer {
    target: Target,
    launches: Handle<Counter>,
    graph_launches: Handle<Counter>,
    copies: [(Handle<Histogram>, Handle<Counter>); 5],
    allocated: Handle<Counter>,
    freed: Handle<Counter>,
    live: Handle<UpDownCounter>,
    sets: Handle<Counter>,
    steps: Handle<Histogram>,
    kernels: KernelLaunches,
}

impl Observer {
    /// For the group whose GPU work is told under `resource`, from `now_ns` (Unix time) on.
    #[must_use]
    pub fn new(registry: &Registry, resource: &Arc<Resource>, now_ns: u64) -> Self {
        let target = registry.target(resource, now_ns);
        let copies = Direction::ALL.map(|direction| {
            let kind = [(name::CUDA_MEMCPY_KIND, Value::Str(direction.name().into()))];
            (target.handle(&catalog::CUDA_COPY_SIZES, &kind), target.handle(&catalog::COPIED_BYTES, &kind))
        });
        Self {
            launches: target.handle(&catalog::CUDA_KERNEL_LAUNCHES, &[]),
            graph_launches: target.handle(&catalog::CUDA_GRAPH_LAUNCHES, &[]),
            copies,
            allocated: target.handle(&catalog::CUDA_ALLOCATED, &[]),
            freed: target.handle(&catalog::CUDA_FREED, &[]),
            live: target.handle(&catalog::MEMORY_LIVE, &[]),
            sets: target.handle(&catalog::CUDA_SET_BYTES, &[]),
            steps: target.handle(&catalog::STEP_DURATIONS, &[]),
            kernels: KernelLaunches::new(target.clone()),
            target,
        }
    }

    /// Takes a copy's size.
    pub fn copy(&self, direction: Direction, bytes: u64) {
        if let Some((sizes, sum)) = self.copies.get(direction as usize) {
            sizes.record(bytes as f64, None);
            sum.add(bytes);
        }
    }

    /// Takes bytes of copies that were counted together: their sizes are not known one by one.
    pub fn counted_copies(&self, direction: Direction, bytes: u64) {
        if let Some((_, sum)) = self.copies.get(direction as usize) {
            sum.add(bytes);
        }
    }

    /// Takes a closed step.
    pub fn step(&self, step: &Step) {
        self.steps.record(super::seconds(step.end_ns.saturating_sub(step.start_ns)), None);
    }

    /// A kernel's short name is known, or that it has none.
    pub fn named(&mut self, kernel: KernelKey, name: Option<Arc<str>>) {
        self.kernels.named(kernel, name);
    }

    /// Takes the GPU work of an iteration.
    pub fn work(&mut self, gpu: &GpuWork) {
        self.kernels.work(gpu);
    }

    /// The metrics of the whole group.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Takes the engine's running totals over, for the `last` time or not.
    pub fn totals(&mut self, engine: &Engine, last: bool) {
        let totals = engine.totals();
        self.kernels.totals(totals, last);
        self.launches.observe(totals.work.launches);
        self.graph_launches.observe(totals.work.graph_launches);
        let memory = engine.device_memory();
        self.allocated.observe(memory.allocated_bytes);
        self.freed.observe(memory.freed_bytes);
        self.live.set(i64::try_from(memory.live_bytes).unwrap_or(i64::MAX));
        self.sets.observe(totals.work.sets.1);
        for (metric, functions) in CALLS {
            let calls =
                totals.calls().filter(|(symbol, _)| functions.contains(&symbol.trim_end_matches("_ptsz")));
            self.target.handle(metric, &[]).observe(calls.map(|(_, count)| count).sum());
        }
        super::inside::totals(&self.target, engine.inside());
        super::device::energy(&self.target, engine);
        let active = i64::try_from(engine.active_requests()).unwrap_or(i64::MAX);
        self.target.handle(&catalog::HTTP_ACTIVE_REQUESTS, &[]).set(active);
    }
}

/// Calls of the runtime that are counted by what they do: those of the driver are mostly the runtime's own.
static CALLS: &[(&Metric<Counter>, &[&str])] = &[
    (&catalog::CUDA_STREAM_SYNCHRONIZES, &["cudaStreamSynchronize"]),
    (&catalog::CUDA_DEVICE_SYNCHRONIZES, &["cudaDeviceSynchronize"]),
    (&catalog::CUDA_EVENT_SYNCHRONIZES, &["cudaEventSynchronize"]),
    (
        &catalog::CUDA_STREAM_CREATES,
        &["cudaStreamCreate", "cudaStreamCreateWithFlags", "cudaStreamCreateWithPriority"],
    ),
    (&catalog::CUDA_STREAM_DESTROYS, &["cudaStreamDestroy"]),
    (&catalog::CUDA_EVENT_RECORDS, &["cudaEventRecord", "cudaEventRecordWithFlags"]),
];
