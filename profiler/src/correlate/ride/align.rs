//! Which pieces of work of several threads, devices or processes are one iteration, where no engine says so.
//!
//! In: pieces of work in the order of their ends. Out: for each the work that it belongs to, if any. An engine on several
//! devices has a thread or a process for each, and all of them work at the same time; its samples come back from one of
//! them, or from each the same. So work that overlaps belongs together where one side never brings samples back, and
//! where both do if it has been the same work, time and again. Absent: who rode.

use super::{GpuWork, Piece};
use crate::probe::Direction;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// A thread's work on one device: process, thread, device.
pub type Lane = (u32, u32, Option<u32>);

/// Works that are looked at for a partner: ranks and devices of an iteration end within few of each other.
const MOST_BACK: usize = 16;

/// Lanes, and pairs of them, that are remembered; then all are learnt anew.
const MOST_LANES: usize = 4096;

/// How often the work of two lanes must have been the same, and how often that is remembered; work that is not the same
/// takes some away. Engines that know nothing of each other agree by chance, but not for long.
const SAME: u32 = 16;
const MOST_SAME: u32 = 64;
const OTHER: u32 = 8;

/// What is known of the lanes of a target.
#[derive(Debug, Default)]
pub struct Lanes {
    /// Those that have brought samples back.
    sampling: BTreeSet<Lane>,
    same: HashMap<(Lane, Lane), u32>,
    /// Those that found no room.
    pub forgotten: u64,
}

impl Lanes {
    /// The work among those that wait that `new` belongs to: its process and its place there.
    pub fn partner(
        &mut self,
        works: &BTreeMap<u32, VecDeque<GpuWork>>,
        new: &GpuWork,
    ) -> Option<(u32, usize)> {
        self.learn(new);
        let mut best: Option<(u64, u32, usize)> = None;
        for (pid, works) in works {
            let back = works.iter().enumerate().rev().take(MOST_BACK);
            for (index, work) in back.take_while(|(_, work)| work.end_ns > new.begin_ns()) {
                let Some(shared) = overlap(work, new) else { continue };
                if self.belongs(work, new) && best.is_none_or(|(most, ..)| shared > most) {
                    best = Some((shared, *pid, index));
                }
            }
        }
        best.map(|(_, pid, index)| (pid, index))
    }

    /// A process is gone; its number may be another's later.
    pub fn gone(&mut self, pid: u32) {
        self.sampling.retain(|(of, ..)| *of != pid);
        self.same.retain(|((one, ..), (other, ..)), _| *one != pid && *other != pid);
    }

    fn learn(&mut self, new: &GpuWork) {
        let brings = new.work.copies.get(Direction::DtoH as usize).is_some_and(|(count, _)| *count > 0);
        let known = self.sampling.len() + self.same.len();
        if known > MOST_LANES {
            self.forgotten += known as u64;
            self.sampling.clear();
            self.same.clear();
        }
        if brings {
            self.sampling.extend(new.pieces.iter().map(Piece::lane));
        }
    }

    /// Whether work that overlaps is one iteration.
    fn belongs(&mut self, work: &GpuWork, new: &GpuWork) -> bool {
        let mut belongs = true;
        for (known, piece) in
            work.pieces.iter().flat_map(|known| new.pieces.iter().map(move |new| (known, new)))
        {
            // A lane takes its turn once in an iteration.
            if known.lane() == piece.lane() {
                return false;
            }
            let both = self.sampling.contains(&known.lane()) && self.sampling.contains(&piece.lane());
            if both || known.pid != piece.pid {
                belongs &= self.are_ranks(known, piece);
            }
        }
        belongs
    }

    /// Whether two lanes have done the same so far, this work included.
    fn are_ranks(&mut self, known: &Piece, new: &Piece) -> bool {
        let (one, other) = (known.lane(), new.lane());
        let votes = self.same.entry((one.min(other), one.max(other))).or_default();
        let what = |piece: &Piece| (piece.whole.launches, piece.inputs);
        *votes = match what(known) == what(new) && new.whole.launches > 0 {
            true => (*votes + 1).min(MOST_SAME),
            false => votes.saturating_sub(OTHER),
        };
        *votes >= SAME
    }
}

/// How long two pieces of work were there at the same time, where that is more than the moments by which iterations that
/// follow one another overlap: an eighth of what the GPU worked for the one that had less. A thread that was given no CPU
/// sends its part late, and says late that it is done, but not what comes after it.
fn overlap(one: &GpuWork, other: &GpuWork) -> Option<u64> {
    let from_ns = one.begin_ns().max(other.begin_ns());
    let shared = one.end_ns.min(other.end_ns).saturating_sub(from_ns);
    let least = one.whole.gpu_ns.min(other.whole.gpu_ns) / 8;
    (shared > 0 && shared >= least).then_some(shared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::ride::Share;

    /// Work of a lane that lasts from one time to another, with bytes to and from the GPU.
    fn work(lane: Lane, (from_ns, end_ns): (u64, u64), inputs: u64, samples: u64) -> GpuWork {
        let (pid, tid, device) = lane;
        let whole = Share { steps: 1, launches: 10, gpu_ns: end_ns - from_ns, ..Share::default() };
        let piece = Piece { pid, tid, device, from_ns, end_ns, whole, inputs };
        let mut all = GpuWork { start_ns: from_ns, end_ns, whole, pieces: vec![piece], ..GpuWork::default() };
        all.work.copies[Direction::DtoH as usize] = (samples.min(1), samples);
        all
    }

    /// Joins pieces in the order of their ends; returns the lanes' threads of each iteration.
    fn joined(pieces: Vec<GpuWork>) -> Vec<Vec<u32>> {
        let (mut lanes, mut works) = (Lanes::default(), BTreeMap::new());
        works.insert(0, VecDeque::new());
        for piece in pieces {
            let place = lanes.partner(&works, &piece);
            let queue: &mut VecDeque<GpuWork> = works.get_mut(&0).unwrap();
            match place {
                Some((_, index)) => queue[index].add(piece),
                None => queue.push_back(piece),
            }
        }
        works[&0].iter().map(|work| work.pieces.iter().map(|piece| piece.tid).collect()).collect()
    }

    #[test]
    fn devices_without_samples_belong_to_the_one_that_has_them() {
        let mut pieces = Vec::new();
        for step in 0..50 {
            let at = step * 100;
            // The device that brings samples back is now the first and now the last to be waited for.
            let (first, last) = if step % 3 == 0 { (95, 90) } else { (80, 92) };
            pieces.push(work((1, 1, Some(0)), (at, at + first), 8, 0));
            pieces.push(work((1, 2, Some(1)), (at + 3, at + last), 8, 4));
        }
        pieces.sort_by_key(|piece| piece.end_ns);
        assert!(joined(pieces).iter().all(|threads| threads.len() == 2));
    }

    #[test]
    fn engines_that_each_have_samples_stay_apart() {
        let mut pieces = Vec::new();
        for step in 0..50 {
            pieces.push(work((1, 1, Some(0)), (step * 100, step * 100 + 90), 8 + step % 5, 4));
            pieces.push(work((1, 2, Some(0)), (step * 100 + 20, step * 100 + 99), 9 + step % 7, 4));
        }
        assert_eq!(joined(pieces).len(), 100);
    }

    #[test]
    fn ranks_that_do_the_same_become_one_and_replicas_do_not() {
        let ranks = |inputs: fn(u32, u64) -> u64| {
            let mut pieces = Vec::new();
            for step in 0..100 {
                for pid in [1, 2] {
                    let end = step * 100 + 90 + u64::from(pid);
                    pieces.push(work((pid, pid, None), (step * 100, end), inputs(pid, step), 4));
                }
            }
            joined(pieces).len()
        };
        assert_eq!(ranks(|_, step| 100 + step % 7), 100 + SAME as usize - 1);
        assert_eq!(ranks(|pid, step| 100 + step % (2 + u64::from(pid))), 200);
    }

    #[test]
    fn what_a_process_did_is_forgotten_with_it() {
        let mut lanes = Lanes::default();
        let known = work((1, 1, None), (0, 90), 8, 4);
        let works = BTreeMap::from([(1, VecDeque::from([known.clone()]))]);
        lanes.partner(&BTreeMap::new(), &known);
        lanes.partner(&works, &work((2, 2, None), (0, 95), 8, 4));
        assert_eq!((lanes.sampling.len(), lanes.same.len()), (2, 1));
        lanes.gone(1);
        assert_eq!((lanes.sampling.len(), lanes.same.len()), (1, 0));
    }

    #[test]
    fn a_lane_takes_its_turn_once_and_what_hardly_overlaps_is_not_joined() {
        let pieces = vec![
            work((1, 1, Some(0)), (0, 90), 8, 0),
            work((1, 1, Some(0)), (40, 95), 8, 0),
            work((1, 2, Some(1)), (90, 180), 8, 4),
        ];
        assert_eq!(joined(pieces), [vec![1], vec![1], vec![2]]);
    }
}
