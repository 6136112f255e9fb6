//! What the correlating thread holds: engine, resources, metrics and spans of one target group.
//!
//! In: [`Input`]s in order. Out: batches for the exporters, [`Report`]s for the controlling thread, and the totals
//! that the summary is made of. No I/O of its own: time comes with each tick.

mod exchange;
mod leaving;
mod wants;

pub use exchange::{Finished, Input, Report};
pub use wants::Wants;

use crate::account::Requests;
use crate::attach::Learnt;
use crate::correlate::{Engine, Iteration, KernelKey, Outcomes, Parsed, Request};
use crate::decode::{Body, Event};
use crate::device::{Log, Reading};
use crate::hold::Holds;
use crate::metric::{self, Compat, Iterations, Load, Observer, Registry};
use crate::record::Tape;
use crate::span::model::{Resource, Span};
use crate::span::{self, TraceCounts, Tracer};
use crate::stack::Stacks;
use leaving::Leaving;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// Finished requests that a view can look back at.
const RECENT: usize = 512;

/// Iterations of engines, likewise: between two looks of a view there are seconds, and engines make hundreds a second.
const RECENT_ITERATIONS: usize = 4096;

/// The correlating thread's state.
#[derive(Debug)]
pub struct Session {
    /// Events → requests.
    pub engine: Engine,
    /// Sums over finished requests.
    pub requests: Requests,
    /// The newest finished requests.
    pub recent: VecDeque<Finished>,
    /// How many iterations of engines there were.
    pub iterated: u64,
    /// The newest of them.
    pub iterations: VecDeque<Iteration>,
    registry: Arc<Registry>,
    observer: Observer,
    batches: Iterations,
    load: Load,
    /// What devices said, in sum.
    pub devices: Log,
    /// None where others tell what devices say.
    device_metrics: Option<metric::Devices>,
    root: Arc<Resource>,
    holds: Holds,
    resources: HashMap<u32, Arc<Resource>>,
    leaving: Leaving,
    tracer: Tracer,
    unix_offset_ns: i64,
    /// Time of the last tick.
    now_ns: u64,
    kernels: HashSet<KernelKey>,
    /// Stacks of launches.
    pub stacks: Stacks,
    /// What waits for a look at the system.
    pub wants: Wants,
    out: Outcomes,
    /// Keeps what is taken, for a recording.
    pub tape: Option<Tape>,
    /// In a replay: what the parsers made of the next events and inputs.
    script: VecDeque<Parsed>,
    /// In a replay: what the parsers said and nobody asked for.
    pub unasked: u64,
}

impl Session {
    /// For the group of `root`. `seed` makes the ids.
    #[must_use]
    pub fn new(
        registry: Arc<Registry>,
        root: Arc<Resource>,
        seed: u64,
        now_unix_ns: u64,
        offset_ns: i64,
    ) -> Self {
        Self {
            engine: Engine::default(),
            requests: Requests::default(),
            recent: VecDeque::new(),
            iterated: 0,
            iterations: VecDeque::new(),
            batches: Iterations::default(),
            load: Load::default(),
            observer: Observer::new(&registry, &root, now_unix_ns),
            devices: Log::default(),
            device_metrics: Some(metric::Devices::new(Arc::clone(&registry), &root)),
            registry,
            root,
            holds: Holds::default(),
            resources: HashMap::new(),
            leaving: Leaving::default(),
            tracer: Tracer::new(seed),
            unix_offset_ns: offset_ns,
            now_ns: 0,
            kernels: HashSet::new(),
            stacks: Stacks::default(),
            wants: Wants::default(),
            out: Outcomes::default(),
            tape: None,
            script: VecDeque::new(),
            unasked: 0,
        }
    }

    /// Keeps what is taken from here on.
    pub fn record(&mut self, tape: Tape) {
        self.engine.record();
        self.tape = Some(tape);
    }

    /// Takes an input again as it was taken when it was recorded. No bytes are parsed: what was made of them comes along.
    pub fn retake(&mut self, input: Input, parsed: VecDeque<Parsed>) -> Vec<Span> {
        self.script = parsed;
        if !matches!(input, Input::Events(_)) {
            self.prompt();
        }
        // Nobody is there to look at the system.
        self.take(input, &mut |_| {})
    }

    /// With other settings of traces than the usual ones.
    #[must_use]
    pub fn with_traces(mut self, settings: span::Settings) -> Self {
        self.tracer.set(settings);
        self
    }

    /// With metrics under other names, too.
    #[must_use]
    pub fn with_compat(mut self, compat: Option<Compat>) -> Self {
        self.batches.compat = compat;
        self
    }

    /// One of several: what devices say is told once for all of them, elsewhere.
    #[must_use]
    pub fn beside_others(mut self) -> Self {
        self.device_metrics = None;
        self
    }

    /// More is known of a process now, such as the name of its pod: everything of it goes on under the new resource.
    pub fn rename(&mut self, pid: u32, resource: Arc<Resource>) {
        let Some(known) = self.resources.get_mut(&pid) else { return };
        let known = std::mem::replace(known, Arc::clone(&resource));
        self.registry.rename(&known, &resource);
        if known == self.root {
            self.root = resource;
        }
    }

    /// Metrics of all its processes are told once more, and then no longer.
    pub fn retire(&mut self) {
        for resource in self.resources.values().chain([&self.root]) {
            self.registry.target(resource, 0).retire();
        }
    }

    /// Whose a process's metrics are, once it has been learnt of.
    #[must_use]
    pub fn resource(&self, pid: u32) -> Option<&Arc<Resource>> {
        self.resources.get(&pid)
    }

    /// What became of traces so far.
    #[must_use]
    pub fn traces(&self) -> TraceCounts {
        self.tracer.counts()
    }

    /// Takes one input; returns the spans that are finished with it, and calls `report` for what wants a look.
    pub fn take(&mut self, input: Input, report: &mut dyn FnMut(Report)) -> Vec<Span> {
        let mut out = std::mem::take(&mut self.out);
        if let Some(tape) = &mut self.tape {
            tape.begin(&input);
        }
        let is_last = matches!(input, Input::Finish);
        match input {
            Input::Events(events) => {
                for event in events {
                    self.event(event, &mut out);
                }
            }
            Input::Learnt(learnt, resource) => self.learn(learnt, resource, &mut out),
            Input::Listener { pid, fd, address } => self.engine.set_listener(pid, fd, address),
            Input::Serves(server) => self.engine.set_server(server),
            Input::Limits(limits) => self.batches.limits = limits,
            Input::Shape { model, kv_bytes } => self.load.shape(&model, kv_bytes),
            Input::Snapshot { pid, time_ns, bytes } => {
                self.engine.snapshot(pid, time_ns, &bytes, &mut out);
            }
            Input::Gone { pid, time_ns } => {
                let held = self.holds.gone(pid);
                self.go_on(held, &mut out);
                self.engine.process_gone(pid, time_ns, &mut out);
                self.leave(pid, time_ns);
                self.batches.forget(pid);
                self.load.forget(pid);
            }
            Input::Tick { now_ns, unix_offset_ns } => {
                self.unix_offset_ns = unix_offset_ns;
                self.now_ns = now_ns;
                let held = self.holds.overdue(now_ns);
                self.go_on(held, &mut out);
                self.engine.tick(now_ns, &mut out);
                self.tracer.tick(now_ns);
                self.let_go(now_ns);
                self.levels(now_ns, false);
            }
            Input::Counting => self.engine.set_counting(),
            Input::Counted { sums, threads } => {
                self.engine.counted(&sums, &mut out);
                for (pid, tid, burst) in threads {
                    self.engine.burst(pid, tid, burst, &mut out);
                }
            }
            Input::Devices(reading) => self.read(&reading),
            Input::Named(kernels) => {
                for (kernel, name) in kernels {
                    self.observer.named(kernel, name.clone());
                    name.into_iter().for_each(|name| self.tracer.named(kernel, name));
                }
            }
            Input::Finish => {
                let held = self.holds.overdue(u64::MAX);
                self.go_on(held, &mut out);
                self.engine.finish(&mut out);
                self.requests.in_flight = self.engine.active_requests() as u64;
            }
        }
        if let Some(tape) = &mut self.tape {
            tape.end(self.engine.take_parsed());
        }
        let mut spans = self.settle(&mut out, report);
        if is_last {
            // Behind the last iterations.
            self.levels(self.now_ns, true);
            self.tracer.tick(u64::MAX);
        }
        spans.extend(self.tracer.steps());
        self.out = out;
        spans
    }

    /// Takes running totals and what is in hand over into metrics, for the `last` time or not.
    fn levels(&mut self, now_ns: u64, last: bool) {
        self.observer.totals(&self.engine, last);
        self.wants.models.extend(self.load.new_models(&self.engine));
        let Iterations { limits, compat, .. } = self.batches;
        self.load.tell(self.observer.target(), &self.engine, limits, compat, now_ns);
        let now_unix_ns = now_ns.saturating_add_signed(self.unix_offset_ns);
        for ((pid, device), times) in self.engine.gpu_times() {
            let resource = self.resources.get(&pid).unwrap_or(&self.root);
            metric::idle(&self.registry, resource, device, &times, now_unix_ns);
        }
    }

    fn event(&mut self, event: Event, out: &mut Outcomes) {
        self.prompt();
        if let Some(tape) = &mut self.tape {
            tape.event(&event);
        }
        // What a thread works for is of use to its sockets at once, and to its calls in their order.
        if let Body::Context(context) = event.body {
            self.engine.works_for((event.pid, event.tid), context);
        }
        if let Some(event) = self.holds.pass(event) {
            self.engine.event(event, out);
        }
        if let Some(tape) = &mut self.tape {
            tape.made(self.engine.take_parsed());
        }
    }

    /// In a replay, gives the parsers' next words.
    fn prompt(&mut self) {
        if let Some(parsed) = self.script.pop_front() {
            self.unasked += self.engine.replay(parsed) as u64;
        }
    }

    fn learn(&mut self, learnt: Learnt, resource: Arc<Resource>, out: &mut Outcomes) {
        if learnt.from_start || learnt.surprised {
            self.engine.set_from_start(learnt.pid, !learnt.surprised);
        }
        if !learnt.runtime.is_empty() {
            self.engine.set_runtime(learnt.pid, learnt.runtime);
        }
        for (connection, address) in learnt.connections {
            self.engine.found_open(learnt.pid, connection, address);
        }
        for (fd, address) in learnt.listeners {
            self.engine.set_listener(learnt.pid, fd, address);
        }
        if resource.gpus() == 1 {
            self.engine.set_only_device(learnt.pid);
        }
        // Its metrics begin here, whichever come first: a replay has not all of them.
        self.registry.target(&resource, learnt.looked_ns.saturating_add_signed(self.unix_offset_ns));
        self.leaving.stay(learnt.pid, &resource);
        let known = self.resources.insert(learnt.pid, Arc::clone(&resource));
        if known.is_some_and(|known| known != resource)
            && let Some(metrics) = &mut self.device_metrics
        {
            metrics.forget(learnt.pid);
        }
        if learnt.ahead {
            let held = self.holds.looked(learnt.pid, learnt.looked_ns);
            self.go_on(held, out);
        }
    }

    fn read(&mut self, reading: &Reading) {
        let resources = &self.resources;
        let now_ns = reading.time_ns.saturating_add_signed(self.unix_offset_ns);
        if let Some(metrics) = &mut self.device_metrics {
            metrics.take(reading, now_ns, |pid| resources.get(&pid).cloned());
        }
        self.devices.take(reading);
        self.engine.read_devices(reading);
    }

    /// The group's own metrics stay as long as the group.
    fn leave(&mut self, pid: u32, time_ns: u64) {
        if let Some(resource) = self.resources.get(&pid).filter(|resource| ***resource != *self.root) {
            self.leaving.add(time_ns, pid, Arc::clone(resource));
        }
    }

    fn let_go(&mut self, now_ns: u64) {
        for (pid, resource) in self.leaving.let_go(now_ns, &self.registry) {
            if self.resources.get(&pid) == Some(&resource) {
                self.resources.remove(&pid);
                if let Some(metrics) = &mut self.device_metrics {
                    metrics.forget(pid);
                }
            }
        }
    }

    /// Events that have waited for a look at their process.
    fn go_on(&mut self, held: Vec<Event>, out: &mut Outcomes) {
        for event in held {
            self.engine.event(event, out);
        }
    }

    /// Turns what correlation brought into spans, metrics and reports.
    fn settle(&mut self, out: &mut Outcomes, report: &mut dyn FnMut(Report)) -> Vec<Span> {
        for (direction, bytes) in out.copies.drain(..) {
            self.observer.copy(direction, bytes);
        }
        for (direction, bytes) in out.counted_copies.drain(..) {
            self.observer.counted_copies(direction, bytes);
        }
        self.wants.add(out);
        out.stacks.drain(..).for_each(|(pid, stack)| self.stacks.add(pid, stack));
        for kernel in out.kernels.drain(..) {
            self.first_launch(kernel, report);
        }
        for step in out.steps.drain(..) {
            self.observer.step(&step);
            for kernel in step.work.kernels.keys() {
                self.first_launch(*kernel, report);
            }
        }
        out.payload.drain(..).for_each(|(connection, payload)| report(Report::Payload(connection, payload)));
        out.changes.drain(..).for_each(|(pid, change)| report(Report::Changed(pid, change)));
        for iteration in out.iterations.drain(..) {
            self.iterate(iteration);
        }
        for (pid, fd) in self.engine.unknown_listeners() {
            report(Report::Listener(pid, fd));
        }
        let finished: Vec<_> = out.requests.drain(..).collect();
        finished.into_iter().flat_map(|request| self.finish(request)).collect()
    }

    fn iterate(&mut self, iteration: Iteration) {
        let resource = self.resources.get(&iteration.pid).unwrap_or(&self.root);
        let now_unix_ns = iteration.step.end_ns.saturating_add_signed(self.unix_offset_ns);
        self.batches.take(&self.registry, resource, &iteration, now_unix_ns);
        self.load.iteration(&iteration);
        iteration.gpu.iter().for_each(|gpu| self.observer.work(gpu));
        self.tracer.iteration(&iteration, resource, self.unix_offset_ns);
        if self.iterations.len() == RECENT_ITERATIONS {
            self.iterations.pop_front();
        }
        self.iterated += 1;
        self.iterations.push_back(iteration);
    }

    fn first_launch(&mut self, kernel: KernelKey, report: &mut dyn FnMut(Report)) {
        if self.kernels.len() < crate::correlate::MOST_KERNELS && self.kernels.insert(kernel) {
            report(Report::Kernel(kernel));
        }
    }

    fn finish(&mut self, request: Request) -> Vec<Span> {
        let resource = self.resources.get(&request.pid).unwrap_or(&self.root);
        let spans = self.tracer.request(&request, resource, self.unix_offset_ns);
        let end_unix_ns = request.ended_ns.saturating_add_signed(self.unix_offset_ns);
        metric::request(&self.registry, resource, &request, spans.first(), end_unix_ns);
        if let Some(compat) = self.batches.compat {
            compat.request(&self.registry.target(resource, end_unix_ns), &request);
        }
        self.load.finished(&request);
        self.wants.models.extend(self.load.new_model(&request));
        self.requests.add(&request);
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(Finished { request: Arc::new(request), spans: spans.clone().into() });
        spans
    }
}

impl Requests {
    fn add(&mut self, request: &Request) {
        let status = request.status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        self.total += 1;
        *self.by_status.entry(status).or_default() += 1;
        *self.by_outcome.entry(request.outcome.name()).or_default() += 1;
        self.violations += request.life.violations;
        self.streaming += u64::from(request.streaming != crate::http::Streaming::None);
        self.partial += u64::from(request.outcome == crate::correlate::Outcome::Partial);
        self.input_tokens += request.usage.input.unwrap_or(0);
        self.output_tokens += request.usage.output.unwrap_or(0);
    }
}
