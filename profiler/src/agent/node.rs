//! The controlling side of an agent: which targets a node has, and how much of each is observed.
//!
//! In: looks of the discovery, reports of the correlating thread, what probes cost. Out: targets attached and let go,
//! [`Message`]s in the order in which the correlating thread must see them. All looking at the system happens here, on one
//! thread.

mod told;

use super::budget::{Budget, Level, share};
use super::linger::Linger;
use super::router::{Message, Router};
use crate::account::Own;
use crate::attach::{Attacher, Detail, Kernel, KernelError, Price};
use crate::clock;
use crate::control::{Around, Control};
use crate::discover::{Found, Look, Passed};
use crate::metric::Registry;
use crate::session::{Input, Report, Session};
use crate::span::model::Resource;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two measurements of what targets are slowed down by.
pub const MEASURE: Duration = Duration::from_millis(500);
/// How long records of a target that was let go may still be under way: some looks at the ring.
const UNDER_WAY: Duration = Duration::from_millis(200);
/// Measurements in a row beyond a limit of the node after which less is observed: attaching takes a second of CPU time, and
/// is no load.
const BELIEVED: u32 = 6;

/// What an agent may cost, in shares of one core.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// A target, by the probes in it.
    pub target: f64,
    /// All targets and the agent itself.
    pub node: f64,
    /// How long a new target is given no second chance.
    pub canary: Duration,
    /// How long the hooks on system calls stay behind the last target.
    pub linger: Duration,
    /// The agent itself.
    pub own_cpu: f64,
    /// The agent itself, bytes resident.
    pub own_memory: u64,
}

/// How targets are observed.
#[derive(Clone, Debug)]
pub struct Manner {
    /// The level to begin with.
    pub detail: Detail,
    /// Which traces there are.
    pub traces: crate::span::Settings,
    /// Metrics under other names, too.
    pub compat: Option<crate::metric::Compat>,
    /// Resource attributes that all targets are given.
    pub given: Vec<(String, String)>,
}

struct Target {
    found: Found,
    resource: Arc<Resource>,
    control: Control,
    budget: Budget,
    /// What the budget has decided and is carried out.
    level: Level,
    runs: [u64; 2],
    cost: f64,
    since: Instant,
}

/// All targets of a node.
pub struct Node {
    kernel: Arc<Mutex<Kernel>>,
    registry: Arc<Registry>,
    manner: Manner,
    around: Around,
    limits: Limits,
    price: Price,
    seed: u64,
    targets: BTreeMap<u8, Target>,
    /// Let go of; records may be under way until then.
    leaving: Vec<(Instant, u8)>,
    linger: Linger,
    passed: Vec<Passed>,
    measured: Instant,
    own_cpu_s: f64,
    /// Measurements in a row in which the node or the agent itself was beyond its limits.
    beyond: u32,
    /// Times that a target was stepped down.
    pub stepped_down: u64,
    /// Why nothing is observed.
    pub off: Option<String>,
}

impl Node {
    /// On a loaded kernel side, without a target.
    #[must_use]
    pub fn new(
        kernel: &Arc<Mutex<Kernel>>,
        registry: &Arc<Registry>,
        manner: Manner,
        around: Around,
        (limits, price): (Limits, Price),
        seed: u64,
    ) -> Self {
        Self {
            kernel: Arc::clone(kernel),
            registry: Arc::clone(registry),
            manner,
            around,
            limits,
            price,
            seed,
            targets: BTreeMap::new(),
            leaving: Vec::new(),
            linger: Linger::new(limits.linger),
            passed: Vec::new(),
            measured: Instant::now(),
            own_cpu_s: Own::usage().cpu_s,
            beyond: 0,
            stepped_down: 0,
            off: None,
        }
    }

    /// The kernel side.
    pub fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other limits from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.linger.set(limits.linger);
        self.targets.values_mut().for_each(|target| target.budget.set_limit(limits.target));
    }

    /// Another level to begin with, for targets that are new from now on.
    pub fn set_detail(&mut self, detail: Detail) {
        self.manner.detail = detail;
    }

    /// Follows a look: new targets are attached to, others let go.
    pub fn follow(&mut self, look: Look, send: &mut dyn FnMut(Message)) {
        self.passed = look.passed;
        let wanted = if self.off.is_none() { look.found } else { Vec::new() };
        let same =
            |one: &Found, other: &Found| (one.root, one.start_ticks) == (other.root, other.start_ticks);
        let unwanted: Vec<u8> = self
            .targets
            .iter()
            .filter(|(_, target)| !wanted.iter().any(|found| same(found, &target.found)))
            .map(|(group, _)| *group)
            .collect();
        self.let_go(&unwanted, send);
        for found in wanted {
            match self.targets.values_mut().find(|target| same(&target.found, &found)) {
                Some(target) => target.found = found,
                None => self.begin(found, send),
            }
        }
    }

    /// Lets go of everything, at once.
    pub fn let_all_go(&mut self, send: &mut dyn FnMut(Message)) {
        let all: Vec<u8> = self.targets.keys().copied().collect();
        self.let_go(&all, send);
    }

    /// Whether records may come from somewhere.
    #[must_use]
    pub fn is_watching(&self) -> bool {
        self.kernel().is_watching()
    }

    /// No target, and none whose records may be under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.targets.is_empty() && self.leaving.is_empty()
    }

    /// Takes the hooks that everybody on the machine pays for out: at once, or when there has been no target for a while.
    pub fn stop_watching(&mut self, now: Instant, at_once: bool) {
        let is_any = self.levels().any(|level| level != Level::Off);
        let is_over = self.linger.is_over(is_any, now);
        if (is_over || at_once) && self.is_watching() {
            // It never fails to take them out.
            let _ = self.kernel().watch(false);
            let took_ms = now.elapsed().as_millis() as u64;
            tracing::info!(took_ms, "system calls are watched no longer");
        }
    }

    /// Ends targets whose records have all come.
    pub fn bury(&mut self, now: Instant, send: &mut dyn FnMut(Message)) {
        for (_, group) in self.leaving.extract_if(.., |(due, _)| *due <= now) {
            send(Message::End(group));
        }
    }

    /// Acts upon a report of the correlating thread.
    pub fn act(&mut self, group: u8, report: Report, send: &mut dyn FnMut(Message)) {
        let Some(target) = self.targets.get_mut(&group) else { return };
        if let Err(error) = target.control.act(report, &mut |input| send(Message::Of(group, input))) {
            tracing::warn!(error = %crate::chain(&error), "a change in a target could not be followed");
        }
    }

    /// Looks at processes that mapped files.
    pub fn look_at_mapped(&mut self, send: &mut dyn FnMut(Message)) -> bool {
        let mut waits = false;
        for (group, target) in &mut self.targets {
            target.control.look_at_mapped(&mut |input| send(Message::Of(*group, input)));
            waits |= target.control.has_mapped();
        }
        waits
    }

    /// Reports were dropped: everything is looked at anew.
    pub fn rescan(&mut self, send: &mut dyn FnMut(Message)) {
        for (group, target) in &mut self.targets {
            if let Err(error) = target.control.rescan_all(&mut |input| send(Message::Of(*group, input))) {
                tracing::warn!(error = %crate::chain(&error), "a target is not followed any more");
            }
        }
    }

    /// More may be known of the places where processes run: whose resource is another now is told.
    pub fn rename(&mut self, router: &Mutex<Router>, send: &mut dyn FnMut(Message)) {
        for (group, target) in &mut self.targets {
            for pid in target.control.attacher.pids().collect::<Vec<_>>() {
                let resource = target.control.resource(pid);
                let known = {
                    let mut router = router.lock().unwrap_or_else(PoisonError::into_inner);
                    router.session_mut(*group).and_then(|session| session.resource(pid).cloned())
                };
                if known.is_some_and(|known| known != resource) {
                    send(Message::Renamed(*group, pid, Arc::clone(&resource)));
                }
                if pid == target.found.root {
                    target.resource = resource;
                }
            }
        }
    }

    /// Names kernels, looks at what correlation asked for, lets go of processes that are gone.
    pub fn sweep(&mut self, router: &Mutex<Router>, send: &mut dyn FnMut(Message)) {
        let mut over = Vec::new();
        for (group, target) in &mut self.targets {
            let asked = {
                let mut router = router.lock().unwrap_or_else(PoisonError::into_inner);
                router.session_mut(*group).map(|session| (session.wants.fetch(), session.stacks.take_fresh()))
            };
            let learn = &mut |input| send(Message::Of(*group, input));
            if let Some((wants, stacks)) = asked {
                target.control.look(wants, stacks, learn);
            }
            target.control.sweep(learn);
            if target.control.is_over() && target.level != Level::Off {
                over.push(*group);
            }
        }
        self.let_go(&over, send);
    }

    /// Passes on what has been counted in the kernel, to whom it is of.
    pub fn count(&self, send: &mut dyn FnMut(Message)) {
        // Reading empty tables takes longer than all else that an idle agent does.
        if self.targets.is_empty() {
            return;
        }
        let (sums, threads) = {
            let kernel = self.kernel();
            (kernel.counts(), kernel.threads())
        };
        for (group, target) in &self.targets {
            let is_of = |pid: u32| target.control.attacher.has(pid);
            let sums: Vec<_> = sums.iter().filter(|(key, _)| is_of(key.tgid)).copied().collect();
            let threads: Vec<_> = threads.iter().filter(|(pid, ..)| is_of(*pid)).copied().collect();
            if !sums.is_empty() || !threads.is_empty() {
                send(Message::Of(*group, Input::Counted { sums, threads }));
            }
        }
    }

    /// Measures what targets are slowed down by, and steps down whose budget is used up. `own_cpu_s` is the agent's CPU time
    /// so far, seconds, and `own_bytes` what it has resident.
    pub fn measure(&mut self, now: Instant, own_cpu_s: f64, own_bytes: u64, send: &mut dyn FnMut(Message)) {
        let elapsed = now.duration_since(self.measured).as_secs_f64();
        if elapsed < MEASURE.as_secs_f64() / 2.0 {
            return;
        }
        let own_share = (own_cpu_s - self.own_cpu_s).max(0.0) / elapsed;
        (self.measured, self.own_cpu_s) = (now, own_cpu_s);
        let mut changes = Vec::new();
        for (group, target) in &mut self.targets {
            let runs = self.kernel.lock().unwrap_or_else(PoisonError::into_inner).runs(*group);
            target.cost = share(self.price, target.runs, runs, elapsed);
            target.runs = runs;
            if let Some(level) = target.budget.measured(target.cost, now) {
                changes.push((*group, level, "its budget"));
            }
        }
        let all: f64 = own_share + self.targets.values().map(|target| target.cost).sum::<f64>();
        let why = [
            (all > self.limits.node, "the node's budget"),
            (own_share > self.limits.own_cpu, "the agent's limit of CPU time"),
            (own_bytes > self.limits.own_memory, "the agent's limit of memory"),
        ];
        let why = why.into_iter().find_map(|(is_beyond, why)| is_beyond.then_some(why));
        self.beyond = why.map_or(0, |_| self.beyond + 1);
        let why = why.filter(|_| self.beyond >= BELIEVED);
        let dearest = self.targets.iter_mut().filter(|(_, target)| target.level != Level::Off);
        let dearest = dearest.max_by(|(_, one), (_, other)| one.cost.total_cmp(&other.cost));
        if let (Some(why), Some((group, target)), true) = (why, dearest, changes.is_empty()) {
            self.beyond = 0;
            changes.push((*group, target.budget.give_up(now), why));
        }
        for (group, level, why) in changes {
            self.go_to(group, level, why, send);
        }
    }

    fn begin(&mut self, found: Found, send: &mut dyn FnMut(Message)) {
        let taken =
            |group: &u8| self.targets.contains_key(group) || self.leaving.iter().any(|(_, of)| of == group);
        let Some(group) = (0..=u8::MAX).find(|group| !taken(group)) else { return };
        // Before anything is said or asked of the target: not a byte of it may come too early.
        if !self.is_watching()
            && let Err(error) = self.watch()
        {
            tracing::warn!(pid = found.root, error = %crate::chain(&error), "a target cannot be watched");
            return;
        }
        let attacher = Attacher::sharing(&self.kernel, group);
        let mut given = self.manner.given.clone();
        given.extend(found.name.iter().map(|name| ("service.name".to_owned(), name.clone())));
        given.extend(found.attributes.iter().cloned());
        let mut control = Control::new(found.root, attacher, given).within(Arc::clone(&self.around));
        let root: Arc<Resource> = control.resource(found.root);
        self.seed = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
        let session = Session::new(
            Arc::clone(&self.registry),
            Arc::clone(&root),
            self.seed,
            clock::unix_ns(),
            clock::unix_offset_ns(),
        );
        let session = session.with_traces(self.manner.traces).with_compat(self.manner.compat).beside_others();
        send(Message::Begin(group, Box::new(session)));
        let start = Instant::now();
        let attached = self.attach(group, &mut control, send);
        tracing::info!(
            pid = found.root,
            server = control.server,
            why = found.why,
            took_ms = start.elapsed().as_millis() as u64,
            "target begins"
        );
        if let Err(error) = attached {
            tracing::warn!(pid = found.root, error = %crate::chain(&error), "a target could not be attached to");
        }
        let best = match self.manner.detail {
            Detail::Events => Level::Events,
            Detail::Aggregate => Level::Aggregate,
        };
        let budget = Budget::new(self.limits.target, best, self.limits.canary, start);
        let runs = self.kernel().runs(group);
        let target =
            Target { found, resource: root, control, budget, level: best, runs, cost: 0.0, since: start };
        self.targets.insert(group, target);
    }

    fn watch(&mut self) -> Result<(), KernelError> {
        let start = Instant::now();
        self.kernel().watch(true)?;
        tracing::info!(took_ms = start.elapsed().as_millis() as u64, "system calls are watched");
        Ok(())
    }

    fn attach(
        &self,
        group: u8,
        control: &mut Control,
        send: &mut dyn FnMut(Message),
    ) -> Result<(), KernelError> {
        let learn = &mut |input| send(Message::Of(group, input));
        control.set_detail(self.manner.detail, learn)?;
        control.attach_tree(learn)
    }

    fn let_go(&mut self, groups: &[u8], send: &mut dyn FnMut(Message)) {
        if !groups.is_empty() {
            self.count(send);
        }
        for group in groups {
            let Some(mut target) = self.targets.remove(group) else { continue };
            let took = target.control.let_go_of_all(&mut |input| send(Message::Of(*group, input)));
            tracing::info!(pid = target.found.root, took_ms = took.as_millis() as u64, "target ends");
            self.leaving.push((Instant::now() + UNDER_WAY, *group));
        }
    }

    /// Carries out what a budget decided.
    fn go_to(&mut self, group: u8, level: Level, why: &str, send: &mut dyn FnMut(Message)) {
        if level != Level::Off
            && !self.is_watching()
            && let Err(error) = self.watch()
        {
            tracing::warn!(error = %crate::chain(&error), "a target cannot be watched again");
        }
        let Some(target) = self.targets.get_mut(&group) else { return };
        let learn = &mut |input| send(Message::Of(group, input));
        let from = std::mem::replace(&mut target.level, level);
        if level > from {
            self.stepped_down += 1;
            tracing::warn!(pid = target.found.root, %from, to = %level, cost = target.cost, "stepped down by {why}");
        } else {
            tracing::info!(pid = target.found.root, %from, to = %level, "more is observed again");
        }
        let detail = if level == Level::Events { Detail::Events } else { Detail::Aggregate };
        let control = &mut target.control;
        if let Err(error) = control.set_level(detail, level <= Level::Aggregate, level != Level::Off, learn) {
            tracing::warn!(pid = target.found.root, error = %crate::chain(&error), "a level could not be set");
        }
    }
}
