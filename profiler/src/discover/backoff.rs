//! Servers that crash as soon as they are started: attaching to each start would cost more than it tells.
//!
//! In: when something of one kind (program, command line, place) started and ended. Out: whether it is left alone for
//! now. Absent: what a kind is; here it is a number.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// A life shorter than this is a crash: servers take longer than that to load a model and end in order.
const SHORT: Duration = Duration::from_secs(30);
/// So many crashes within [`WINDOW`] are a loop. Fewer happen while somebody tries things out.
const CRASHES: usize = 3;
const WINDOW: Duration = Duration::from_secs(120);
/// How long it is left alone for a start, and at most.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);
/// Who lives this long is forgiven, and so is who has not been seen for so long after its time was over.
const FORGIVEN: Duration = Duration::from_secs(60);
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Kinds and starts that are remembered.
const MOST: usize = 256;
const MOST_STARTS: usize = 32;

/// Remembers who crashed.
#[derive(Debug, Default)]
pub struct BackOff {
    loops: BTreeMap<u64, Loop>,
}

#[derive(Debug)]
struct Loop {
    starts: VecDeque<Instant>,
    crashes: VecDeque<Instant>,
    /// How long it was left alone last; zero while it is no loop.
    wait: Duration,
    until: Instant,
    touched: Instant,
}

/// Why something is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// How often it was started.
    pub starts: usize,
    /// Since when.
    pub within: Duration,
    /// When it is looked at again.
    pub again_in: Duration,
}

impl std::fmt::Display for Blocked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { starts, within, again_in } = self;
        let seconds = |time: &Duration| time.as_secs_f64().ceil();
        write!(
            f,
            "back-off: started {starts} times in {} s, looked at again in {} s",
            seconds(within),
            seconds(again_in)
        )
    }
}

impl BackOff {
    /// One of a kind has been seen for the first time.
    pub fn started(&mut self, kind: u64, now: Instant) {
        if self.loops.len() >= MOST && !self.loops.contains_key(&kind) {
            self.forget_oldest();
        }
        let of = self.loops.entry(kind).or_insert_with(|| Loop {
            starts: VecDeque::new(),
            crashes: VecDeque::new(),
            wait: Duration::ZERO,
            until: now,
            touched: now,
        });
        of.touched = now;
        of.starts.push_back(now);
        while of.starts.len() > MOST_STARTS
            || of.starts.front().is_some_and(|start| now.duration_since(*start) > LONGEST)
        {
            of.starts.pop_front();
        }
    }

    /// One that was attached to has ended.
    pub fn ended(&mut self, kind: u64, now: Instant, lived: Duration) {
        let Some(of) = self.loops.get_mut(&kind) else { return };
        if lived >= FORGIVEN {
            self.loops.remove(&kind);
            return;
        }
        if lived >= SHORT {
            return;
        }
        of.touched = now;
        of.crashes.push_back(now);
        while of.crashes.front().is_some_and(|crash| now.duration_since(*crash) > WINDOW) {
            of.crashes.pop_front();
        }
        if !of.wait.is_zero() || of.crashes.len() >= CRASHES {
            of.wait = (of.wait * 2).clamp(FIRST, LONGEST);
            of.until = now + of.wait;
            of.crashes.clear();
        }
    }

    /// Whether it is left alone now. `lived` is how long the one that is asked for has lived: nobody who lives long is in
    /// a loop.
    #[must_use]
    pub fn blocked(&self, kind: u64, now: Instant, lived: Duration) -> Option<Blocked> {
        let of = self.loops.get(&kind).filter(|of| now < of.until && lived < FORGIVEN)?;
        let first = of.starts.front().copied().unwrap_or(now);
        Some(Blocked {
            starts: of.starts.len(),
            within: now.duration_since(first),
            again_in: of.until.duration_since(now),
        })
    }

    /// Forgives who has lived long enough, told by kind, and forgets who has not been seen for long.
    pub fn settle(&mut self, now: Instant, lives: impl Fn(u64) -> Option<Duration>) {
        self.loops.retain(|kind, of| {
            let forgotten = now.duration_since(of.touched.max(of.until)) > FORGOTTEN;
            !forgotten && lives(*kind).is_none_or(|lived| lived < FORGIVEN)
        });
    }

    fn forget_oldest(&mut self) {
        let oldest = self.loops.iter().min_by_key(|(_, of)| of.touched).map(|(kind, _)| *kind);
        if let Some(kind) = oldest {
            self.loops.remove(&kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn crash(back_off: &mut BackOff, now: &mut Instant) {
        back_off.started(7, *now);
        *now += S;
        back_off.ended(7, *now, S);
    }

    #[test]
    fn who_crashes_again_and_again_is_left_alone_for_ever_longer() {
        let (mut back_off, mut now) = (BackOff::default(), Instant::now());
        for _ in 0..2 {
            crash(&mut back_off, &mut now);
            assert_eq!(back_off.blocked(7, now, S), None);
        }
        let mut waits = Vec::new();
        for _ in 0..8 {
            crash(&mut back_off, &mut now);
            let blocked = back_off.blocked(7, now, S).unwrap();
            waits.push(blocked.again_in.as_secs());
            now += blocked.again_in;
            assert_eq!(back_off.blocked(7, now, S), None);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn it_is_said_in_words() {
        let (mut back_off, mut now) = (BackOff::default(), Instant::now());
        (0..3).for_each(|_| crash(&mut back_off, &mut now));
        back_off.started(7, now);
        let text = back_off.blocked(7, now + S, S).unwrap().to_string();
        assert_eq!(text, "back-off: started 4 times in 4 s, looked at again in 9 s");
    }

    #[test]
    fn who_lives_long_is_forgiven() {
        let (mut back_off, mut now) = (BackOff::default(), Instant::now());
        (0..3).for_each(|_| crash(&mut back_off, &mut now));
        assert!(back_off.blocked(7, now, S).is_some());
        assert_eq!(back_off.blocked(7, now, FORGIVEN), None, "it is no loop any more");
        back_off.settle(now, |_| Some(S));
        assert!(back_off.blocked(7, now, S).is_some());
        back_off.settle(now, |_| Some(FORGIVEN));
        assert_eq!(back_off.blocked(7, now, S), None);
        for lived in [SHORT, FORGIVEN] {
            let mut patient = BackOff::default();
            for _ in 0..10 {
                patient.started(1, now);
                patient.ended(1, now, lived);
            }
            assert_eq!(patient.blocked(1, now, S), None, "{lived:?} is no crash");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut back_off, now) = (BackOff::default(), Instant::now());
        (0..2000).for_each(|kind| back_off.started(kind, now + Duration::from_millis(kind)));
        (0..2000).for_each(|_| back_off.started(1999, now + 3 * S));
        assert!(back_off.loops.len() <= MOST && back_off.loops[&1999].starts.len() <= MOST_STARTS);
        back_off.settle(now + 2 * FORGOTTEN, |_| None);
        assert!(back_off.loops.is_empty());
    }
}
