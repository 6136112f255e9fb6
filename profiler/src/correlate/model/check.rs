//! What must hold of what the correlator made of a history.

use super::act::{ENGINE, OTHER};
use super::history::Truth;
use super::reference::Reference;
use crate::correlate::ride::{Share, Who};
use crate::correlate::step::{ANY_STREAM, Step};
use crate::correlate::{Engine, Outcome, Outcomes, Owner, Request};
use crate::span::Parts;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Closed steps whose time is remembered.
const REMEMBERED: usize = 64;

/// An observation that is over, or goes on.
#[derive(Debug)]
pub struct Ran {
    pub engine: Engine,
    pub out: Outcomes,
    pub reference: Reference,
    pub now_ns: u64,
    /// Requests that were seen under way.
    pub begun: BTreeSet<Owner>,
    /// How many of them were when their process ended.
    pub lost: usize,
}

/// Launches, copies, bytes, and GPU time at least, at most and at best.
type Sums = [u64; 6];

fn sums(share: &Share) -> Sums {
    [share.launches, share.copies, share.copy_bytes, share.gpu_lo_ns, share.gpu_hi_ns, share.gpu_ns]
}

fn add(to: &mut Sums, share: &Share) {
    to.iter_mut().zip(sums(share)).for_each(|(sum, value)| *sum += value);
}

impl Ran {
    /// What holds at any time, whatever was lost.
    pub fn check(&self) {
        self.check_loss();
        self.check_counts();
        self.check_memory();
        self.check_steps();
        self.check_iterations();
        self.check_times();
        self.check_shares();
        self.check_breakdowns();
    }

    /// `decoded = joined + ignored`.
    fn check_loss(&self) {
        let totals = self.engine.totals();
        let ignored: u64 = totals.ignored_by_reason().map(|(_, count)| count).sum();
        assert_eq!(ignored, self.reference.ignored, "ignored");
        assert_eq!(totals.joined + ignored, self.reference.events, "every event is joined or ignored");
    }

    /// Of all work that was sent, what has not closed yet.
    fn open(&self) -> Vec<&Step> {
        self.engine.processes.values().flat_map(|process| process.steps.open()).collect()
    }

    /// Each launch, copy and byte is in one step, and closed steps are the totals.
    fn check_counts(&self) {
        let (reference, totals) = (&self.reference, &self.engine.totals().work);
        let mut all = totals.clone();
        for step in self.open() {
            all.merge(step.work.clone());
        }
        let counted =
            self.out.steps.iter().chain(self.open()).map(|step| {
                (step.work.counted_launches, step.work.counted_copies.0, step.work.counted_copies.1)
            });
        let counted = counted.fold((0, 0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1, sum.2 + more.2));
        assert_eq!(counted, reference.counted, "counted in the kernel");
        // What was counted in the kernel is told by kernel elsewhere, and in no total of steps.
        let open_counted: u64 = self.open().iter().map(|step| step.work.counted_launches).sum();
        assert_eq!(all.launches - open_counted, reference.launches, "launches");
        assert_eq!(all.graph_launches, reference.graph_launches);
        assert_eq!((all.graph_nodes, all.unknown_graphs), (reference.graph_nodes, reference.unknown_graphs));
        assert_eq!(all.copies, reference.copies, "copies");
        assert_eq!((all.sets, all.host_functions), (reference.sets, reference.host_functions));
        let kernels: HashMap<_, _> =
            all.kernels.iter().map(|(key, counts)| ((key.pid, key.function), *counts)).collect();
        assert_eq!(kernels, reference.kernels, "by kernel");
        assert_eq!(self.engine.captured_launches(), reference.captured, "recorded into graphs");
        let mut closed = crate::correlate::Work::default();
        self.out.steps.iter().for_each(|step| closed.merge(step.work.clone()));
        assert_eq!(closed.launches - closed.counted_launches, totals.launches, "steps are the totals");
        assert_eq!((closed.copies, closed.sets), (totals.copies, totals.sets));
        assert_eq!(self.out.steps.len() as u64, self.engine.totals().steps);
    }

    fn check_memory(&self) {
        let memory = self.engine.device_memory();
        assert_eq!(memory.allocated_bytes, self.reference.allocated_bytes);
        assert_eq!(memory.live_bytes, self.reference.live_bytes, "held");
        assert_eq!(memory.frees_of_unknown, self.reference.frees_of_unknown);
        assert!(memory.peak_bytes >= memory.live_bytes && memory.freed_bytes <= memory.allocated_bytes);
    }

    /// The best figure lies between the bounds, and the steps of a thread have no time twice.
    fn check_steps(&self) {
        let mut by_thread: BTreeMap<(u32, u32), Vec<&Step>> = BTreeMap::new();
        for step in &self.out.steps {
            let (lo, hi) = step.gpu_bounds_ns();
            assert!(lo <= step.gpu_ns && step.gpu_ns <= hi, "{lo} <= {} <= {hi}", step.gpu_ns);
            assert!(step.start_ns <= step.end_ns && hi <= step.end_ns - step.start_ns, "{step:?}");
            let is_told = step.blocked_ns.is_some() || step.is_timed();
            assert!(is_told || lo == 0, "nobody waited, nothing is known: {step:?}");
            by_thread.entry((step.pid, step.tid)).or_default().push(step);
        }
        self.check_waits();
        // What is remembered of closed steps is bounded, and more of them may overlap.
        for steps in by_thread.into_values().filter(|steps| steps.len() <= REMEMBERED) {
            // What was sent behind other work began a moment before the wait for that returned.
            const MOMENT_NS: u64 = 50_000;
            let spans = steps.iter().map(|step| (step.start_ns, step.end_ns)).collect();
            // Where a wait returned late, some of its time may have been the next step's, which says so.
            let most: u64 = steps.iter().map(|step| step.gpu_bounds_ns().1 - step.early_ns).sum();
            let there_was = length(spans);
            assert!(
                most <= there_was + MOMENT_NS * steps.len() as u64,
                "{most} of {there_was} ns: {steps:#?}"
            );
        }
    }

    /// No time of a wait is told of two steps of a process. What the GPU's clock says is not of waits.
    fn check_waits(&self) {
        let mut waits: BTreeMap<u32, (u64, Vec<(u64, u64)>)> = BTreeMap::new();
        for step in self.out.steps.iter().filter(|step| !step.is_timed()) {
            let Some(blocked_ns) = step.blocked_ns else { continue };
            let (least, spans) = waits.entry(step.pid).or_default();
            *least += step.gpu_bounds_ns().0;
            spans.push((step.end_ns - blocked_ns, step.end_ns));
        }
        for (pid, (least, spans)) in waits {
            let waited = length(spans);
            assert!(least <= waited, "{least} of {waited} ns that were waited for: {pid}");
        }
    }

    /// Riders' shares and the rest are the iteration, and all iterations that were told and those to come the totals.
    fn check_iterations(&self) {
        let mut ids = BTreeSet::new();
        let mut all = self.engine.board.waiting();
        let mut unattributed_ns = 0;
        for iteration in &self.out.iterations {
            assert!(ids.insert(iteration.id), "a number is used once");
            let mut parts = sums(&iteration.unattributed);
            iteration.riders.iter().for_each(|rider| add(&mut parts, &rider.share));
            let whole = iteration.gpu.as_ref().map_or(Share::default(), |gpu| gpu.whole);
            assert_eq!(parts, sums(&whole), "parts of {iteration:#?}");
            unattributed_ns += iteration.unattributed.gpu_ns;
            all.add(&whole);
            if let Some(gpu) = &iteration.gpu {
                let launches = gpu.work.launches + gpu.work.graph_launches;
                assert_eq!((whole.launches, whole.copies), (launches, gpu.work.copy_count()));
            }
        }
        let totals = self.engine.totals();
        let work = &totals.work;
        let counted = self.out.steps.iter().map(|step| &step.work);
        let (launches, copies, bytes) = counted.fold((0, 0, 0), |(launches, copies, bytes), work| {
            (launches + work.counted_launches, copies + work.counted_copies.0, bytes + work.counted_copies.1)
        });
        let whole = [
            work.launches + work.graph_launches + launches,
            work.copy_count() + copies,
            work.copy_bytes() + bytes,
            totals.gpu_lo_ns,
            totals.gpu_hi_ns,
            totals.gpu_ns,
        ];
        assert_eq!(sums(&all), whole, "iterations are the totals");
        let counts = self.engine.rides();
        assert_eq!(counts.told + counts.generic, ids.len() as u64);
        assert_eq!(counts.unattributed_ns, unattributed_ns);
        assert_eq!(counts.gpu_ns, counts.shared_ns + counts.unattributed_ns);
    }

    /// Each nanosecond between a process's first work on a device and its last there is in one sum, and GPU time that is in none of them is
    /// told.
    fn check_times(&self) {
        let mut busy: BTreeMap<(u32, Option<u32>), u64> = BTreeMap::new();
        let mut ends: BTreeMap<(u32, Option<u32>), (u64, u64)> = BTreeMap::new();
        for step in &self.out.steps {
            let place = (step.pid, step.device);
            *busy.entry(place).or_default() += step.gpu_ns;
            let (_, end_ns) = ends.entry(place).or_insert((step.start_ns, step.end_ns));
            *end_ns = step.end_ns.max(*end_ns);
        }
        for (place, times) in self.engine.gpu_times() {
            let idle = times.no_request_ns + times.cpu_late_ns + times.launch_bound_ns;
            assert_eq!(times.busy_ns + idle, times.window_ns, "{times:?}");
            let (first_ns, last_ns) = ends[&place];
            assert_eq!(times.window_ns, last_ns - first_ns, "the window");
            assert_eq!(times.busy_ns + times.overlap_ns, busy[&place], "steps and idle time are the window");
        }
    }

    /// What iterations say that a request had is what it has, and each request ends once.
    fn check_shares(&self) {
        let mut outside: HashMap<Owner, Sums> = HashMap::new();
        let mut inside: HashMap<(&str, u64), Sums> = HashMap::new();
        for iteration in &self.out.iterations {
            for rider in &iteration.riders {
                match rider.who {
                    Who::Request(owner) => add(outside.entry(owner).or_default(), &rider.share),
                    Who::Inner(inner) => {
                        add(inside.entry((iteration.adapter, inner.0)).or_default(), &rider.share)
                    }
                }
            }
        }
        let mut owners = BTreeSet::new();
        for request in &self.out.requests {
            assert!(owners.insert(request.owner()), "it ends once: {request:#?}");
            let mut had = outside.get(&request.owner()).copied().unwrap_or_default();
            for sequence in request.served.iter().flat_map(|served| &served.sequences) {
                let more = inside.get(&("vllm", sequence.inner)).copied().unwrap_or_default();
                had.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
            }
            assert_eq!(sums(&request.share()), had, "its share: {request:#?}");
        }
    }

    fn check_breakdowns(&self) {
        for request in &self.out.requests {
            assert!(request.opened_ns <= request.ended_ns, "{request:?}");
            let parts = Parts::of(request).breakdown();
            let sum: u64 = parts.iter().map(|(_, part)| part).sum();
            assert_eq!(sum, request.ended_ns - request.opened_ns, "{parts:?}");
        }
    }

    /// Everything is over: nothing is kept but sums.
    pub fn check_empty(&self) {
        let engine = &self.engine;
        assert_eq!((engine.active_requests(), engine.settling.len()), (0, 0));
        let ended: BTreeSet<Owner> = self.out.requests.iter().map(Request::owner).collect();
        assert!(self.begun.is_subset(&ended), "{:?} have no end", self.begun.difference(&ended));
        let lost = self.out.requests.iter().filter(|request| request.outcome == Outcome::Lost);
        assert_eq!(lost.count(), self.lost, "lost with their process");
        assert!(engine.processes.is_empty() && engine.closed.is_empty());
        assert_eq!(engine.board.held(), 0, "{:#?}", engine.board);
    }

    /// Without faults a life breaks no rule.
    pub fn check_violations(&self) {
        for request in &self.out.requests {
            assert_eq!(request.life.violations, 0, "{request:#?}");
        }
    }

    /// Steps of a process close in the order of their ends, but for those that nobody waited for.
    pub fn check_steps_in_time(&self) {
        for pid in [ENGINE, OTHER] {
            let own = self.out.steps.iter().filter(|step| step.pid == pid && step.blocked_ns.is_some());
            let ends: Vec<u64> = own.map(|step| step.end_ns).collect();
            assert!(ends.is_sorted(), "{ends:?}");
        }
    }

    /// Requests ended as they truly did, and those that had not ended were lost with their process.
    pub fn check_requests(&self, truth: &Truth) {
        let ended = |request: &Request| {
            let owner = request.owner();
            ((owner.connection, owner.exchange), (request.outcome, request.deltas))
        };
        let (over, rest): (Vec<_>, Vec<_>) =
            (self.out.requests.iter().map(ended)).partition(|(owner, _)| truth.requests.contains_key(owner));
        assert_eq!(over.into_iter().collect::<HashMap<_, _>>(), truth.requests);
        assert!(rest.iter().all(|(_, (outcome, _))| *outcome == Outcome::Error), "{rest:?}");
    }

    /// Where each thread has streams of its own and waits for them itself, the truth lies within the bounds of the steps
    /// of each thread together; and of each step, where it has one stream and nothing is sent ahead.
    pub fn check_truth(&self, truth: &Truth, each: bool) {
        let mut threads: BTreeMap<(u32, u32), (u64, u64)> = BTreeMap::new();
        for step in self.out.steps.iter().filter(|step| step.stream != ANY_STREAM) {
            let (lo, hi) = step.gpu_bounds_ns();
            let sums = threads.entry((step.pid, step.tid)).or_default();
            *sums = (sums.0 + lo, sums.1 + hi);
            let busy = truth.busy.get(&(step.pid, step.tid)).map_or(&[][..], Vec::as_slice);
            let within = busy.iter().filter(|(from, to)| step.start_ns <= *from && *to <= step.end_ns);
            let busy = length(within.copied().collect());
            assert!(!each || lo <= busy && busy <= hi, "{lo} <= {busy} <= {hi}: {step:#?}");
        }
        for (thread, (lo, hi)) in threads {
            let busy = length(truth.busy.get(&thread).cloned().unwrap_or_default());
            assert!(lo <= busy && busy <= hi, "{lo} <= {busy} <= {hi}: {thread:?} {:#?}", self.out.steps);
        }
    }
}

/// The length of what spans cover.
pub fn length(mut spans: Vec<(u64, u64)>) -> u64 {
    spans.sort_unstable();
    let (mut sum, mut at) = (0, 0);
    for (from, to) in spans {
        sum += to.saturating_sub(from.max(at));
        at = at.max(to);
    }
    sum
}
