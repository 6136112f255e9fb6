//! Which processes of this machine are model servers, told again and again, for little.
//!
//! ```text
//! /proc ─► table (who runs, what changed) ─► candidates ─► roots (one a server) ─► rules, back-off ─► targets
//! ```
//! In: the process table, pids that a driver has on its GPUs, hints, rules. Out: plain data; the caller compares two looks
//! by root and start. Absent: attaching to anything, and Kubernetes, whose facts come through a function.
//!
//! A target is a known server by its name or command line, before it has loaded anything; or a program that has a GPU's
//! runtime, driver or device, if it or another of its group listens; or what a rule includes. A mapped libcudart alone is
//! no proof. A program with a CUDA runtime linked in is told by the driver's library, which that maps at its first call.

mod agenda;
mod backoff;
mod found;
mod kind;
mod procfs;
mod root;
mod rules;
mod standing;
mod table;
#[cfg(test)]
mod tests;

pub use found::{Found, Look, MOST_TARGETS, Passed, Settings};
pub use procfs::{Processes, Procfs, Program, Status};
pub use rules::{Action, Match, PlaceFacts, Rule, RuleError, Rules};

use crate::receive::Happened;
use agenda::Agenda;
use backoff::BackOff;
use kind::Kind;
use root::Evidence;
use rules::Verdict;
use standing::{excluded_by, is_candidate, is_outside, of_kind, recognise, subject};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};
use table::{Process, Table};

/// How long a pod's name is waited for where a rule asks for it.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long what is left of a target that ended is no target of its own.
const LEFT_OVER: Duration = Duration::from_secs(5);
/// Between two looks at what rules say of a target, where they ask for its place.
const REVIEW: Duration = Duration::from_secs(10);
/// For how long a process may become a server without a hint: by a library, or by a socket that is none of TCP. What is
/// older does so rarely, and is seen some seconds later.
const YOUNG: Duration = Duration::from_secs(60);
/// For how long one that has a GPU may begin to listen without a hint: as long as a model takes to load.
const UNSURE: Duration = Duration::from_secs(900);
/// A program that lives longer than this may be a server.
const LASTS: Duration = Duration::from_millis(600);
/// The most that is told of what was passed over.
const MOST_PASSED: usize = 256;
/// Targets that ended and are remembered.
const MOST_ENDED: usize = 256;

/// Finds targets.
pub struct Discovery {
    processes: Box<dyn Processes + Send>,
    table: Table,
    rules: Rules,
    settings: Settings,
    agenda: Agenda,
    targets: BTreeMap<u32, Target>,
    /// Servers that are one with a target though they are not under it, by pid.
    joined: BTreeMap<u32, (u64, u32)>,
    /// Targets that ended: pid, start and when.
    ended: VecDeque<((u32, u64), Instant)>,
    back_off: BackOff,
    /// The last look had something that may be a server soon.
    unsure: bool,
    is_quiet: bool,
}

struct Target {
    found: Found,
    /// What it is for the back-off.
    kind: u64,
    executable: String,
    /// Without the rules it would not be one.
    by_rule: bool,
    /// When it was last held against the rules; none if those are others now.
    reviewed: Option<Instant>,
}

impl Discovery {
    /// On this machine's processes.
    #[must_use]
    pub fn new(rules: Rules, settings: Settings) -> Self {
        Self::on(Box::<Procfs>::default(), rules, settings)
    }

    /// On any process table.
    #[must_use]
    pub fn on(processes: Box<dyn Processes + Send>, rules: Rules, settings: Settings) -> Self {
        Self {
            processes,
            table: Table::default(),
            rules,
            settings,
            agenda: Agenda::default(),
            targets: BTreeMap::new(),
            joined: BTreeMap::new(),
            ended: VecDeque::new(),
            back_off: BackOff::default(),
            unsure: false,
            is_quiet: false,
        }
    }

    /// Something happened to this process: it is looked at as soon as may be.
    pub fn hint(&mut self, pid: u32, happened: Happened, now: Instant) {
        self.agenda.add(pid, happened, now);
    }

    /// When a look at those that something happened to is due.
    #[must_use]
    pub fn next_hinted(&self) -> Option<Instant> {
        self.agenda.next()
    }

    /// Whether, where hints tell of programs and sockets, looks at everything may be rarer for now.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.is_quiet
    }

    /// Until when hints may wait: looking at what they say must not cost too much.
    #[must_use]
    pub fn rests_until(&self) -> Option<Instant> {
        self.agenda.rests_until()
    }

    /// Other rules from the next look on. Targets that they exclude, and those that only the old ones included, go.
    pub fn set(&mut self, rules: Rules, settings: Settings) {
        self.rules = rules;
        self.settings = settings;
        self.table.iter_mut().for_each(|(_, process)| process.wanted = None);
        self.targets.values_mut().for_each(|target| target.reviewed = None);
    }

    /// Programs and libraries that were examined so far.
    #[must_use]
    pub fn examined(&self) -> u64 {
        self.table.examined
    }

    /// Looks. `gpu_pids` is what drivers say who is on their GPUs, `facts` what is known of the place of a process.
    pub fn look(
        &mut self,
        now: Instant,
        gpu_pids: &BTreeSet<u32>,
        facts: &dyn Fn(u32) -> PlaceFacts,
    ) -> Look {
        let hints = self.agenda.all_due(now);
        let gone = self.table.update(now, self.processes.as_mut(), &hints);
        self.unsure = false;
        let look = self.decide(now, &gone, gpu_pids, facts);
        self.is_quiet = !self.unsure && self.table.iter().all(|(_, process)| process.lived(now) >= YOUNG);
        look
    }

    /// Looks only at those that something happened to; none if that changes nothing.
    pub fn look_at_hinted(
        &mut self,
        now: Instant,
        gpu_pids: &BTreeSet<u32>,
        facts: &dyn Fn(u32) -> PlaceFacts,
    ) -> Option<Look> {
        let began = Instant::now();
        let due = self.agenda.due(now);
        let gone = self.table.update_some(now, self.processes.as_mut(), &due);
        let is_target = due.keys().any(|pid| self.targets.contains_key(pid));
        let matters = is_target || self.concerns(&due, facts);
        let look = matters.then(|| self.decide(now, &gone, gpu_pids, facts));
        for pid in due.keys() {
            match self.table.get(*pid).map(|process| process.lived(now)) {
                None => self.agenda.forget(*pid),
                // What lives no longer than that is nobody's server.
                Some(lived) => self.is_quiet &= !(LASTS..YOUNG).contains(&lived),
            }
        }
        self.agenda.looked(now, began.elapsed(), due.values().any(|whole| *whole));
        look
    }

    /// Whether one of these, or a process that works for one of them, could be a target or is part of one.
    fn concerns(&mut self, hinted: &BTreeMap<u32, bool>, facts: &dyn Fn(u32) -> PlaceFacts) -> bool {
        for pid in hinted.keys() {
            if let Some(process) = self.table.get_mut(*pid) {
                process.ask(*pid, &self.rules, facts);
            }
        }
        let candidates = self.table.iter().filter(|(_, process)| is_candidate(process));
        let mut families =
            candidates.flat_map(|(pid, _)| std::iter::once(pid).chain(self.table.ancestors(pid)));
        families.any(|pid| hinted.contains_key(&pid))
    }

    /// What a look comes to, with the table up to date.
    fn decide(
        &mut self,
        now: Instant,
        gone: &[(u32, Process)],
        gpu_pids: &BTreeSet<u32>,
        facts: &dyn Fn(u32) -> PlaceFacts,
    ) -> Look {
        self.let_go(now, gone);
        let mut look = Look::default();
        self.review(now, facts, &mut look.passed);
        let mut on_gpu = self.processes.on_amd();
        on_gpu.extend(gpu_pids);
        for root in self.candidates(now, &on_gpu, facts, &mut look.passed) {
            let since = self.table.get(root).and_then(|process| process.candidate);
            self.unsure |= since.is_none_or(|since| now.duration_since(since) < UNSURE);
            if let Err(why) = self.consider(root, now, &on_gpu, facts) {
                look.passed.push(self.passed(root, why));
            }
        }
        look.passed.truncate(MOST_PASSED);
        look.found = self.targets.values().map(|target| target.found.clone()).collect();
        look
    }

    /// Targets whose root is gone or runs another program.
    fn let_go(&mut self, now: Instant, gone: &[(u32, Process)]) {
        for (pid, process) in gone {
            let ended =
                self.targets.get(pid).is_some_and(|of| of.found.start_ticks == process.program.start_ticks);
            if let Some(target) = ended.then(|| self.targets.remove(pid)).flatten() {
                self.back_off.ended(target.kind, now, process.lived(now));
                self.ended.push_back(((*pid, target.found.start_ticks), now));
            }
        }
        let changed = |pid: &u32, target: &Target| {
            self.table.get(*pid).is_none_or(|process| process.program.executable != target.executable)
        };
        let changed: Vec<u32> =
            self.targets.iter().filter(|(pid, target)| changed(pid, target)).map(|(pid, _)| *pid).collect();
        changed.iter().for_each(|pid| drop(self.targets.remove(pid)));
        self.ended.retain(|(_, at)| now.duration_since(*at) < LEFT_OVER);
        self.ended.truncate(MOST_ENDED);
        self.joined.retain(|pid, (start, root)| {
            let alive = self.table.get(*pid).is_some_and(|process| process.program.start_ticks == *start);
            alive && self.targets.contains_key(root)
        });
        let targets = &self.targets;
        let table = &self.table;
        self.back_off.settle(now, |kind| {
            let of_kind = targets.iter().filter(|(_, target)| target.kind == kind);
            of_kind.filter_map(|(pid, _)| Some(table.get(*pid)?.lived(now))).max()
        });
    }

    /// What rules say of targets may change as more becomes known of their place.
    fn review(&mut self, now: Instant, facts: &dyn Fn(u32) -> PlaceFacts, passed: &mut Vec<Passed>) {
        let mut excluded = Vec::new();
        for (pid, target) in &mut self.targets {
            let is_due = |last| self.rules.ask_place() && now.duration_since(last) >= REVIEW;
            if !target.reviewed.is_none_or(is_due) {
                continue;
            }
            target.reviewed = Some(now);
            let Some(process) = self.table.get(*pid) else { continue };
            match self.rules.of(subject(process), false, &|| facts(*pid)) {
                Verdict::Rule(number, Rule { action: Action::Exclude, .. }, words) => {
                    excluded.push((*pid, excluded_by(number, words)));
                }
                Verdict::Rule(_, rule, _) => target.found.named_by(Some(rule)),
                Verdict::None | Verdict::Wait if target.by_rule => {
                    excluded.push((*pid, "no rule includes it any more".to_owned()));
                }
                Verdict::None | Verdict::Wait => target.found.named_by(None),
            }
        }
        for (pid, why) in excluded {
            self.targets.remove(&pid);
            tracing::debug!(pid, why, "no target any more");
            // Whether it is passed over again is told by the look at the candidates.
            if !self.table.get(pid).is_some_and(is_candidate) {
                passed.push(self.passed(pid, why));
            }
        }
    }

    /// Topmost processes of what could be a target, those of targets left out.
    fn candidates(
        &mut self,
        now: Instant,
        on_gpu: &BTreeSet<u32>,
        facts: &dyn Fn(u32) -> PlaceFacts,
        passed: &mut Vec<Passed>,
    ) -> Vec<u32> {
        let rules = &self.rules;
        let mut candidates = BTreeSet::new();
        for (pid, process) in self.table.iter_mut() {
            process.ask(pid, rules, facts);
            if is_candidate(process) || on_gpu.contains(&pid) && !is_outside(process) {
                process.candidate.get_or_insert(now);
                candidates.insert(pid);
            } else if let Kind::Bystander(what) = process.kind
                && (process.gpu.is_some() || on_gpu.contains(&pid))
            {
                passed.push(Passed { pid, comm: process.status.comm.clone(), why: what.to_owned() });
            }
        }
        let mut roots = BTreeSet::new();
        for pid in &candidates {
            let ancestors = self.table.ancestors(*pid);
            if let Some(target) = self.target_of(*pid, &ancestors) {
                if let Some(process) = self.table.get_mut(*pid) {
                    process.part_of = Some(target);
                }
                continue;
            }
            roots.insert(ancestors.into_iter().rfind(|above| candidates.contains(above)).unwrap_or(*pid));
        }
        let mut roots: Vec<u32> = roots.into_iter().collect();
        // Who came first keeps its place when there are too many.
        roots.sort_by_key(|pid| self.table.get(*pid).map(|process| process.program.start_ticks));
        roots
    }

    /// The living target that a process is part of.
    fn target_of(&self, pid: u32, ancestors: &[u32]) -> Option<(u32, u64)> {
        let start = |root: u32| Some((root, self.targets.get(&root)?.found.start_ticks));
        let under = std::iter::once(&pid).chain(ancestors).find_map(|pid| start(*pid));
        let joined = || std::iter::once(&pid).chain(ancestors).find_map(|pid| start(self.joined.get(pid)?.1));
        let was = || {
            let was = self.table.get(pid)?.part_of?;
            (start(was.0) == Some(was)).then_some(was)
        };
        under.or_else(joined).or_else(was)
    }

    /// Makes a candidate a target, or says why it is none.
    fn consider(
        &mut self,
        candidate: u32,
        now: Instant,
        on_gpu: &BTreeSet<u32>,
        facts: &dyn Fn(u32) -> PlaceFacts,
    ) -> Result<(), String> {
        self.is_left_over(candidate, now)?;
        let Evidence { root, server, why, lacks } =
            root::evidence(&mut self.table, self.processes.as_mut(), candidate, now, on_gpu);
        if self.targets.contains_key(&root) {
            // Another candidate has led there within this look.
            return Ok(());
        }
        let gone = || "it is gone".to_owned();
        let since = self.table.get(candidate).and_then(|process| process.candidate).unwrap_or(now);
        let process = self.table.get(root).ok_or_else(gone)?;
        let patient = now.duration_since(since) < PATIENCE;
        let (rule, why) = match (self.rules.of(subject(process), patient, &|| facts(root)), why) {
            (Verdict::Wait, _) => return Err("a rule asks for its pod, which is not known yet".to_owned()),
            (Verdict::Rule(number, Rule { action: Action::Exclude, .. }, words), _) => {
                return Err(excluded_by(number, words));
            }
            (Verdict::Rule(_, rule, _), Some(why)) => (Some(rule.clone()), why),
            (Verdict::Rule(number, rule, words), None) => {
                (Some(rule.clone()), format!("rule {number} includes it ({words})"))
            }
            (Verdict::None, Some(why)) => (None, why),
            (Verdict::None, None) => return Err(lacks),
        };
        let by_rule = why.starts_with("rule ");
        let kind = of_kind(process);
        let mut found = Found {
            root,
            start_ticks: process.program.start_ticks,
            server: server.unwrap_or_else(|| recognise(process)),
            name: None,
            attributes: Vec::new(),
            why,
        };
        found.named_by(rule.as_ref());
        let executable = process.program.executable.clone();
        let target = Target { found, kind, executable, by_rule, reviewed: Some(now) };
        self.admit(root, target, now)
    }

    /// What is left of a target that ended is often about to end, too.
    fn is_left_over(&self, pid: u32, now: Instant) -> Result<(), String> {
        let part_of = self.table.get(pid).and_then(|process| process.part_of);
        let ended = part_of.and_then(|of| self.ended.iter().rfind(|(target, _)| *target == of));
        let Some(((root, _), at)) = ended else { return Ok(()) };
        let left = LEFT_OVER.saturating_sub(now.duration_since(*at)).as_secs_f64().ceil();
        Err(format!("left over from target {root}, which ended; looked at again in {left} s"))
    }

    /// Takes it among the targets if there is room, if it does not crash all the time, and if it is one of its own.
    fn admit(&mut self, root: u32, target: Target, now: Instant) -> Result<(), String> {
        let counted = self.table.get(root).is_some_and(|process| process.counted);
        if let Some(process) = self.table.get_mut(root).filter(|_| !counted) {
            process.counted = true;
            self.back_off.started(target.kind, now);
        }
        let lived = self.table.get(root).map_or(Duration::ZERO, |process| process.lived(now));
        if let Some(blocked) = self.back_off.blocked(target.kind, now, lived) {
            return Err(blocked.to_string());
        }
        if self.targets.len() >= self.settings.most_targets {
            return Err(format!(
                "there are {} targets already, which is the most (discover.most_targets)",
                self.targets.len()
            ));
        }
        let under = self.targets.keys().find(|other| self.table.ancestors(**other).contains(&root));
        if let Some(under) = under {
            return Err(format!("process {under} under it is a target already"));
        }
        if let Some(other) = self.one_with(root, &target) {
            self.joined.insert(root, (target.found.start_ticks, other));
            return Ok(());
        }
        tracing::debug!(root, server = target.found.server, why = target.found.why, "found");
        for pid in self.table.descendants(root) {
            if let Some(process) = self.table.get_mut(pid) {
                process.part_of = Some((root, target.found.start_ticks));
            }
        }
        self.targets.insert(root, target);
        Ok(())
    }

    /// The target that a server belongs to which runs beside it: in its container, or with its memory or sockets.
    fn one_with(&self, root: u32, target: &Target) -> Option<u32> {
        let is_server = |target: &Target| target.found.server != "generic";
        if !is_server(target) || !self.targets.values().any(is_server) {
            return None;
        }
        let group = self.processes.group(root);
        let of_target = |pid: &u32| self.target_of(*pid, &self.table.ancestors(*pid));
        group.iter().filter(|pid| **pid != root).find_map(of_target).map(|(root, _)| root)
    }

    fn passed(&self, pid: u32, why: String) -> Passed {
        let comm = self.table.get(pid).map(|process| process.status.comm.clone()).unwrap_or_default();
        Passed { pid, comm, why }
    }
}
