//! The ring of the hints → what happened to whom.
//!
//! In: the ring buffer. Out: pids. Nothing is counted: what is not understood or found no room is seen at the next look.

use aya::maps::{MapData, RingBuf};
use profiler_common::hint::what;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

/// Hints taken at once; who is behind them is told again by the next one, or seen anyway.
const MOST: usize = 4096;

/// What happened to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It runs another program.
    Executed,
    /// It listens.
    Listens,
}

/// Reads hints. Its descriptor can be read when there is one.
pub struct Hints(RingBuf<MapData>);

impl Hints {
    /// Of a kernel side.
    #[must_use]
    pub fn new(ring: RingBuf<MapData>) -> Self {
        Self(ring)
    }

    /// Takes all that there are.
    pub fn take(&mut self, mut tell: impl FnMut(u32, Happened)) {
        for _ in 0..MOST {
            let Some(record) = self.0.next() else { return };
            if let Some((pid, happened)) = parse(&record) {
                tell(pid, happened);
            }
        }
    }
}

impl AsFd for Hints {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring is open as long as it is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

/// A [`Hint`](profiler_common::hint::Hint).
fn parse(record: &[u8]) -> Option<(u32, Happened)> {
    let (what, pid) = record.split_first_chunk::<4>()?;
    let happened = match u32::from_ne_bytes(*what) {
        what::EXEC => Happened::Executed,
        what::LISTEN => Happened::Listens,
        _ => return None,
    };
    Some((u32::from_ne_bytes(pid.try_into().ok()?), happened))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_hints_of_known_kinds_are_understood() {
        let hint = |what: u32, pid: u32| [what.to_ne_bytes(), pid.to_ne_bytes()].concat();
        assert_eq!(parse(&hint(what::EXEC, 7)), Some((7, Happened::Executed)));
        assert_eq!(parse(&hint(what::LISTEN, 8)), Some((8, Happened::Listens)));
        assert_eq!(parse(&hint(9, 8)), None);
        (0..8).for_each(|length| assert_eq!(parse(&hint(what::EXEC, 7)[..length]), None));
        assert_eq!(parse(&[hint(what::EXEC, 7), vec![0]].concat()), None);
    }
}
