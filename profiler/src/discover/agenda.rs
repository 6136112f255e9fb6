//! When processes are looked at out of turn, because something happened to them.
//!
//! In: hints. Out: who is to be looked at now, and when to come again. Hints hasten looks and prove nothing: whatever is
//! dropped here is seen at the next look at everything. Pure: time is an argument.

use crate::receive::Happened;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

impl Happened {
    /// When it is looked at: a program loads its libraries within the first second, or much later; a socket listens a moment
    /// after the hint, which comes from inside the system call.
    fn looks(self) -> impl Iterator<Item = Duration> {
        let after_ms: &[u64] = match self {
            Self::Executed => &[0, 100, 300, 700],
            Self::Listens => &[0, 100],
        };
        after_ms.iter().copied().map(Duration::from_millis)
    }
}

/// Looks that are to come. Without one a process is seen all the same.
const MOST: usize = 4096;
/// Processes of one look.
const MOST_AT_ONCE: usize = 64;
/// The least time between two looks.
const BREATH: Duration = Duration::from_millis(20);
/// And in units of what the last one took: a machine that starts programs all the time costs 2 % of a core at most.
const REST: u32 = 50;

/// Who is to be looked at.
#[derive(Debug, Default)]
pub struct Agenda {
    /// Whether it is to be examined whatever it looks like, by time and process.
    looks: BTreeMap<(Instant, u32), bool>,
    rest_until: Option<Instant>,
}

impl Agenda {
    /// Something happened to a process.
    pub fn add(&mut self, pid: u32, happened: Happened, now: Instant) {
        for (number, after) in happened.looks().enumerate() {
            if self.looks.len() >= MOST {
                return;
            }
            self.looks.insert((now + after, pid), number == 0 || happened == Happened::Listens);
        }
    }

    /// When somebody is to be looked at next.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        let ((first, _), _) = self.looks.first_key_value()?;
        Some(self.rest_until.map_or(*first, |rest| rest.max(*first)))
    }

    /// When hints are of use again.
    #[must_use]
    pub fn rests_until(&self) -> Option<Instant> {
        self.rest_until
    }

    /// Who is to be looked at now, a few at a time, and which of them are to be examined whatever they look like.
    pub fn due(&mut self, now: Instant) -> BTreeMap<u32, bool> {
        let mut due = BTreeMap::new();
        while due.len() < MOST_AT_ONCE
            && let Some(look) = self.looks.first_entry().filter(|look| look.key().0 <= now)
        {
            let (_, pid) = *look.key();
            let whole = look.remove();
            *due.entry(pid).or_default() |= whole;
        }
        due
    }

    /// Everything is about to be looked at: who is to be examined then, whatever it looks like. Later looks stay.
    pub fn all_due(&mut self, now: Instant) -> BTreeSet<u32> {
        let later = self.looks.split_off(&(now, u32::MAX));
        let due = std::mem::replace(&mut self.looks, later);
        due.into_iter().filter_map(|((_, pid), whole)| whole.then_some(pid)).collect()
    }

    /// This process is gone: most programs that begin end before the second look.
    pub fn forget(&mut self, pid: u32) {
        self.looks.retain(|(_, of), _| *of != pid);
    }

    /// A look took so long; whether it was at something that had just happened.
    pub fn looked(&mut self, now: Instant, took: Duration, fresh: bool) {
        let rest = (took * REST).max(if fresh { BREATH } else { Duration::ZERO });
        if rest >= BREATH {
            self.rest_until = Some(now + rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn pids(due: BTreeMap<u32, bool>) -> Vec<(u32, bool)> {
        due.into_iter().collect()
    }

    #[test]
    fn a_new_program_is_looked_at_at_once_and_again_while_it_loads() {
        let (mut agenda, start) = (Agenda::default(), Instant::now());
        agenda.add(7, Happened::Executed, start);
        let mut seen = Vec::new();
        for at in 0..2000 {
            let due = pids(agenda.due(start + at * MS));
            seen.extend(due.into_iter().map(|of| (at, of)));
        }
        assert_eq!(seen, [(0, (7, true)), (100, (7, false)), (300, (7, false)), (700, (7, false))]);
        assert_eq!(agenda.next(), None);
    }

    #[test]
    fn a_storm_waits_its_turn_and_is_bounded() {
        let (mut agenda, start) = (Agenda::default(), Instant::now());
        (0..100_000).for_each(|pid| agenda.add(pid, Happened::Executed, start));
        assert_eq!(agenda.looks.len(), MOST);
        assert_eq!(agenda.next(), Some(start));
        assert_eq!(agenda.due(start).len(), MOST_AT_ONCE);
        agenda.looked(start, 10 * MS, false);
        assert_eq!(agenda.next(), Some(start + 500 * MS), "rest in units of work");
        agenda.looked(start, Duration::ZERO, true);
        assert_eq!(agenda.next(), Some(start + BREATH));
    }

    #[test]
    fn a_look_at_everything_takes_what_is_due_and_leaves_the_rest() {
        let (mut agenda, start) = (Agenda::default(), Instant::now());
        agenda.add(7, Happened::Executed, start);
        agenda.add(8, Happened::Listens, start + 50 * MS);
        assert_eq!(agenda.all_due(start + 120 * MS), BTreeSet::from([7, 8]));
        assert_eq!(pids(agenda.due(start + 200 * MS)), [(8, true)]);
        agenda.add(9, Happened::Executed, start);
        agenda.forget(9);
        assert_eq!(pids(agenda.due(start + 400 * MS)), [(7, false)]);
    }
}
