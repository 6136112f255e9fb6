//! The kernel side's sums → what they rose by since the last look.
//!
//! The sums only rise, so a look that is late or missed loses nothing.

use super::{KernelKey, Outcomes};
use crate::probe::{self, Direction, Meaning, Way};
use profiler_common::event::{Count, CountKey, counted};
use std::collections::HashMap;

/// The sums as they stood at the last look.
#[derive(Debug, Default)]
pub struct Counts {
    seen: HashMap<CountKey, Count>,
}

impl Counts {
    /// What `sum` has risen by, and whether it is the first look at it.
    pub fn rise(&mut self, key: &CountKey, sum: &Count) -> (Count, bool) {
        let before = self.seen.insert(*key, *sum);
        let old = before.unwrap_or_default();
        let more =
            Count { count: sum.count.saturating_sub(old.count), bytes: sum.bytes.saturating_sub(old.bytes) };
        (more, before.is_none())
    }

    /// A process is gone and its sums with it: another may get its number, and begins at nothing.
    pub fn forget(&mut self, pid: u32) {
        self.seen.retain(|key, _| key.tgid != pid);
    }
}

/// Which way counted copies go: by the function's name, or by the kind that they are counted under.
pub fn direction(way: Way, key: &CountKey) -> Direction {
    match way {
        Way::Fixed(direction) => direction,
        _ => Direction::from_memcpy_kind(key.function),
    }
}

/// Tells what others want to know of a rise: a kernel that wants a name, bytes that were copied.
pub fn tell(key: &CountKey, more: &Count, first: bool, out: &mut Outcomes) {
    if key.detail != counted::OWN {
        return;
    }
    match probe::api(key.api).map(|api| api.meaning) {
        Some(Meaning::Launch) if first => {
            out.kernels.push(KernelKey { pid: key.tgid, function: key.function });
        }
        Some(Meaning::Copy { way, .. }) => out.counted_copies.push((direction(way, key), more.bytes)),
        _ => {}
    }
}

impl super::Engine {
    /// Takes the kernel side's sums by kernel as they stand; what they rose by is new.
    pub fn counted(&mut self, sums: &[(CountKey, Count)], out: &mut Outcomes) {
        for (key, sum) in sums {
            let (more, first) = self.counts.rise(key, sum);
            if more.count == 0 {
                continue;
            }
            self.totals.counted(key, &more);
            tell(key, &more, first, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_told() {
        let mut counts = Counts::default();
        let key = CountKey { function: 7, tgid: 1, api: 0, detail: counted::OWN };
        let sum = |count, bytes| Count { count, bytes };
        assert_eq!(counts.rise(&key, &sum(5, 50)), (sum(5, 50), true));
        assert_eq!(counts.rise(&key, &sum(7, 50)), (sum(2, 0), false));
        assert_eq!(counts.rise(&key, &sum(7, 50)), (sum(0, 0), false));
        counts.forget(1);
        assert_eq!(counts.rise(&key, &sum(3, 9)), (sum(3, 9), true), "another process of the same number");
    }
}
