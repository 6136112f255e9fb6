//! How a process stands by what is known of itself: a candidate, an outsider, what rules say of its name. Pure.

use super::kind::Kind;
use super::rules::{PlaceFacts, Rules, Subject};
use super::table::Process;
use crate::server::known;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Not part of any target, whatever it does. Of those who watch GPUs a rule may name one; a shell has the names of what it
/// starts in its own command line.
pub fn is_outside(process: &Process) -> bool {
    let named = matches!(process.kind, Kind::Bystander(_)) && process.wanted == Some(true);
    process.kind.is_outside() && !named
}

/// It could be a target, or part of one, by what is known of itself.
pub fn is_candidate(process: &Process) -> bool {
    let shows =
        matches!(process.kind, Kind::Server(_)) || process.gpu.is_some() || process.wanted == Some(true);
    shows && !is_outside(process)
}

impl Process {
    /// Asks the rules about it, once.
    pub fn ask(&mut self, pid: u32, rules: &Rules, facts: &dyn Fn(u32) -> PlaceFacts) {
        let Self { wanted, program, command, status, .. } = self;
        let subject = Subject { executable: &program.executable, command, uid: status.uid };
        wanted.get_or_insert_with(|| rules.wants(subject, &|| facts(pid)));
    }
}

/// What rules are held against.
pub fn subject(process: &Process) -> Subject<'_> {
    Subject { executable: &process.program.executable, command: &process.command, uid: process.status.uid }
}

/// Why a rule keeps it from being a target.
pub fn excluded_by(number: usize, words: &str) -> String {
    format!("rule {number} excludes it ({words})")
}

/// Which server it is.
pub fn recognise(process: &Process) -> &'static str {
    known::recognise(&process.status.comm, &process.program.executable, &process.program.command_line)
}

/// What tells servers of a kind for the back-off: a container that is started again has another id.
pub fn of_kind(process: &Process) -> u64 {
    let mut hasher = DefaultHasher::new();
    let is_id = |part: &&str| part.len() >= 32 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let place: Vec<_> = process.program.cgroup.split(['/', '-', '.']).filter(|part| !is_id(part)).collect();
    (&process.program.executable, &process.command, place).hash(&mut hasher);
    hasher.finish()
}
