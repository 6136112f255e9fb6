//! Which pieces of work of several threads, devices or processes are one iteration, and which are of engines of their own,
//! where no engine says so.
//!
//! In: pieces of work in the order of their ends. Out: for each the engine that it is of, and the work that it belongs to,
//! if any. An engine on several devices has a thread or a process for each, and all of them work at the same time; its
//! samples come back from one of them, or from each the same. So work that overlaps belongs together where one side never
//! brings samples back, and where it changes from one iteration to the next as the other's does, time and again: work that
//! stays the same is the same in engines that know nothing of each other, too. Threads of a process that bring samples back
//! at the same time and do not belong together are engines. Absent: who rode.

use super::{GpuWork, Piece};
use crate::probe::Direction;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// A thread's work on one device: process, thread, device.
pub type Lane = (u32, u32, Option<u32>);

/// An engine: its process, and which of those it has, from 0.
pub type EngineKey = (u32, u64);

/// Works of an engine, in the order of their ends.
pub type Works = BTreeMap<EngineKey, VecDeque<GpuWork>>;

/// Works that are looked at for a partner: ranks and devices of an iteration end within few of each other.
const MOST_BACK: usize = 16;

/// Lanes, and pairs of them, that are remembered; then all are learnt anew.
const MOST_LANES: usize = 4096;

/// How often the work of two lanes must have become the same, and how often that is remembered; work that is not the same
/// takes some away. Engines that know nothing of each other agree by chance, but not for long.
const SAME: u32 = 8;
const MOST_SAME: u32 = 64;
const OTHER: u32 = 8;

/// The same of lanes that both bring samples back, at the same time for the most part: engines with requests that are all
/// alike change alike for a while.
const SAME_SAMPLES: u32 = 32;

/// How often a lane that brings no samples back must have worked beside one that does: an engine that has begun with a
/// long prompt has none for a while, either. Work that is the same counts for several.
const BESIDE: u32 = 16;
const SAME_BESIDE: u32 = 4;

/// How often lanes that both bring samples back must have had other work at the same time.
const APART: u32 = 4;

/// After so many works of two lanes of which none met, they do not take turns together.
const MISSED: u32 = 6;

/// What is known of the lanes of a target.
#[derive(Debug, Default)]
pub struct Lanes {
    known: HashMap<Lane, Known>,
    pairs: HashMap<(Lane, Lane), Pair>,
    /// Lanes so far.
    seen: u64,
    /// Those that found no room.
    pub forgotten: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// It has brought samples back.
    samples: bool,
    /// What it did last.
    did: (u64, u64),
    /// Its number among all, and that of its engine in its process.
    order: u64,
    engine: u64,
}

/// What is known of two lanes.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    same: u32,
    beside: u32,
    apart: u32,
    missed: u32,
    /// The ends of the newest works of both that were compared.
    met_ns: (u64, u64),
}

impl Lanes {
    /// Learns from a new piece of work among those that wait. True where it shows something of them as well: they find
    /// their engines and partners anew.
    pub fn learn(&mut self, works: &Works, new: &mut GpuWork) -> bool {
        self.make_room();
        let brings = new.work.copies.get(Direction::DtoH as usize).is_some_and(|(count, _)| *count > 0);
        for piece in &mut new.pieces {
            let seen = self.seen;
            let known =
                self.known.entry(piece.lane()).or_insert_with(|| Known { order: seen, ..Known::default() });
            self.seen += 1;
            known.samples |= brings;
            piece.is_news = known.did != piece.did();
            known.did = piece.did();
        }
        let mut shows = false;
        for piece in &new.pieces {
            self.miss(piece.lane());
            for known in beside(works, new, piece) {
                shows |= self.compare(&known, piece);
            }
        }
        shows
    }

    /// The engine that work is of: that of a lane which brings samples back, if it has one.
    pub fn engine(&self, work: &GpuWork) -> EngineKey {
        let known = |piece: &Piece| self.known.get(&piece.lane()).copied().unwrap_or_default();
        let lead = work.pieces.iter().min_by_key(|piece| (!known(piece).samples, piece.lane()));
        lead.map_or((0, 0), |lead| (lead.pid, known(lead).engine))
    }

    /// The work among those that wait that `new` belongs to: its engine and its place there.
    pub fn partner(&self, works: &Works, new: &GpuWork) -> Option<(EngineKey, usize)> {
        let mut best: Option<(u64, EngineKey, usize)> = None;
        for (key, works) in works {
            let back = works.iter().enumerate().rev().take(MOST_BACK);
            for (index, work) in back.take_while(|(_, work)| work.end_ns > new.begin_ns()) {
                let Some(shared) = overlap(work.time(), new.time()) else { continue };
                if self.belongs(work, new) && best.is_none_or(|(most, ..)| shared > most) {
                    best = Some((shared, *key, index));
                }
            }
        }
        best.map(|(_, key, index)| (key, index))
    }

    /// A process is gone; its number may be another's later.
    pub fn gone(&mut self, pid: u32) {
        self.known.retain(|(of, ..), _| *of != pid);
        self.pairs.retain(|((one, ..), (other, ..)), _| *one != pid && *other != pid);
    }

    fn make_room(&mut self) {
        let known = self.known.len() + self.pairs.len();
        if known > MOST_LANES {
            self.forgotten += known as u64;
            self.known.clear();
            self.pairs.clear();
        }
    }

    /// A lane has new work, with which none of another's may have met.
    fn miss(&mut self, lane: Lane) {
        for (_, pair) in self.pairs.iter_mut().filter(|((one, other), _)| *one == lane || *other == lane) {
            pair.missed += 1;
            if pair.missed > MISSED {
                pair.other(false);
            }
        }
    }

    /// Two lanes worked at the same time. True where they are found to belong together from now on, or to be engines of
    /// their own.
    fn compare(&mut self, known: &Piece, new: &Piece) -> bool {
        let (one, other) = (known.lane(), new.lane());
        let samples = [one, other].map(|lane| self.known.get(&lane).is_some_and(|known| known.samples));
        let were = self.are_one(one, other);
        let pair = self.pairs.entry((one.min(other), one.max(other))).or_default();
        let met_ns = if one < other { (known.end_ns, new.end_ns) } else { (new.end_ns, known.end_ns) };
        // Each work meets one of the other lane.
        if met_ns.0 <= pair.met_ns.0 || met_ns.1 <= pair.met_ns.1 {
            return false;
        }
        (pair.met_ns, pair.missed) = (met_ns, 0);
        let is_same = known.did() == new.did() && new.whole.launches > 0;
        let both = samples == [true; 2];
        // Ranks have a device each.
        let one_device = one.0 == other.0 && one.2 == other.2 && one.2.is_some();
        if !is_same || one_device && both {
            pair.other(both);
            pair.apart = if both { (pair.apart + 1).min(MOST_SAME) } else { 0 };
        } else if known.is_news && new.is_news && (!both || together(known.time(), new.time())) {
            pair.same = (pair.same + 1).min(MOST_SAME);
        }
        if samples[0] != samples[1] && one.0 == other.0 {
            let more = if is_same && !one_device { SAME_BESIDE } else { 1 };
            pair.beside = (pair.beside + more).min(MOST_SAME);
        }
        let is_apart = pair.apart >= APART;
        let (now, alone) = (self.are_one(one, other), is_apart && self.separate(one, other));
        alone || now && !were
    }

    /// Whether two lanes have worked for the same iterations so far.
    fn are_one(&self, one: Lane, other: Lane) -> bool {
        let Some(pair) = self.pairs.get(&(one.min(other), one.max(other))) else { return false };
        let samples = |lane| self.known.get(&lane).is_some_and(|known: &Known| known.samples);
        match (samples(one), samples(other)) {
            (true, true) => pair.same >= SAME_SAMPLES,
            (one, other) => pair.same >= SAME || pair.beside >= BESIDE && one != other,
        }
    }

    /// Two lanes that are apart are of different engines, if they have been of one; true if they were.
    fn separate(&mut self, one: Lane, other: Lane) -> bool {
        let known = |lane| self.known.get(&lane).copied().unwrap_or_default();
        if one.0 != other.0 || known(one).engine != known(other).engine || self.are_one(one, other) {
            return false;
        }
        let later = if known(one).order > known(other).order { one } else { other };
        let is_apart = |lane: &Lane| {
            let pair = self.pairs.get(&(later.min(*lane), later.max(*lane)));
            pair.is_some_and(|pair| pair.apart >= APART)
        };
        let others = self.known.iter().filter(|(lane, _)| lane.0 == later.0 && is_apart(lane));
        let taken: Vec<u64> = others.map(|(_, known)| known.engine).collect();
        let free = (0..).find(|engine| !taken.contains(engine)).unwrap_or(0);
        self.known.entry(later).or_default().engine = free;
        true
    }

    /// Whether work that overlaps is one iteration: a lane takes its turn once in it, and no two of its lanes bring samples
    /// of their own.
    fn belongs(&self, work: &GpuWork, new: &GpuWork) -> bool {
        let samples = |piece: &Piece| self.known.get(&piece.lane()).is_some_and(|known| known.samples);
        let mut belongs = false;
        for (known, piece) in
            work.pieces.iter().flat_map(|known| new.pieces.iter().map(move |new| (known, new)))
        {
            let are_one = known.lane() != piece.lane() && self.are_one(known.lane(), piece.lane());
            if known.lane() == piece.lane() || !are_one && samples(known) && samples(piece) {
                return false;
            }
            belongs |= are_one;
        }
        belongs
    }
}

impl Pair {
    /// They did not do the same.
    fn other(&mut self, samples: bool) {
        self.same = if samples { self.same / 2 } else { self.same.saturating_sub(OTHER) };
        self.missed = 0;
    }
}

/// Of each other lane the work that was there at the same time as a piece of new work for longest.
fn beside(works: &Works, new: &GpuWork, piece: &Piece) -> Vec<Piece> {
    let mut found: BTreeMap<Lane, (u64, Piece)> = BTreeMap::new();
    for works in works.values() {
        let back = works.iter().rev().take(MOST_BACK);
        for known in back.take_while(|work| work.end_ns > new.begin_ns()).flat_map(|work| &work.pieces) {
            let Some(shared) = overlap(known.time(), piece.time()) else { continue };
            let is_own = new.pieces.iter().any(|piece| piece.lane() == known.lane());
            if !is_own && found.get(&known.lane()).is_none_or(|(most, _)| shared > *most) {
                found.insert(known.lane(), (shared, *known));
            }
        }
    }
    found.into_values().map(|(_, piece)| piece).collect()
}

/// How long two pieces of work were there at the same time, where that is more than the moments by which iterations that
/// follow one another overlap: an eighth of what the GPU worked for the one that had less. A thread that was given no CPU
/// sends its part late, and says late that it is done, but not what comes after it.
fn overlap(one: Time, other: Time) -> Option<u64> {
    let shared = one.end_ns.min(other.end_ns).saturating_sub(one.from_ns.max(other.from_ns));
    (shared > 0 && shared >= one.gpu_ns.min(other.gpu_ns) / 8).then_some(shared)
}

/// Whether work was under way at the same time for three quarters of it.
fn together(one: Time, other: Time) -> bool {
    let shared = one.end_ns.min(other.end_ns).saturating_sub(one.from_ns.max(other.from_ns));
    let all = one.end_ns.max(other.end_ns).saturating_sub(one.from_ns.min(other.from_ns));
    shared.saturating_mul(4) >= all.saturating_mul(3)
}

/// When work was under way, and how long the GPU worked for it.
#[derive(Clone, Copy, Debug)]
struct Time {
    from_ns: u64,
    end_ns: u64,
    gpu_ns: u64,
}

impl GpuWork {
    fn time(&self) -> Time {
        Time { from_ns: self.begin_ns(), end_ns: self.end_ns, gpu_ns: self.whole.gpu_ns }
    }
}

impl Piece {
    fn time(&self) -> Time {
        Time { from_ns: self.from_ns, end_ns: self.end_ns, gpu_ns: self.whole.gpu_ns }
    }

    /// What the same is called in lanes that do the same.
    fn did(&self) -> (u64, u64) {
        (self.whole.launches, self.inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::ride::Share;

    /// Work of a lane that lasts from one time to another, with bytes to and from the GPU.
    fn work(lane: Lane, (from_ns, end_ns): (u64, u64), inputs: u64, samples: u64) -> GpuWork {
        let (pid, tid, device) = lane;
        let whole = Share { steps: 1, launches: 10, gpu_ns: end_ns - from_ns, ..Share::default() };
        let piece = Piece { pid, tid, device, from_ns, end_ns, whole, inputs, is_news: false };
        let mut all = GpuWork { start_ns: from_ns, end_ns, whole, pieces: vec![piece], ..GpuWork::default() };
        all.work.copies[Direction::DtoH as usize] = (samples.min(1), samples);
        all
    }

    /// Joins pieces in the order of their ends, and those that wait once something is learnt of them; returns the lanes'
    /// threads of each iteration, by engine.
    fn by_engine(pieces: Vec<GpuWork>) -> BTreeMap<EngineKey, Vec<Vec<u32>>> {
        let (mut lanes, mut works) = (Lanes::default(), Works::new());
        for mut piece in pieces {
            let shows = lanes.learn(&works, &mut piece);
            let again =
                if shows { std::mem::take(&mut works).into_values().flatten().collect() } else { Vec::new() };
            let mut again: Vec<GpuWork> = again;
            again.push(piece);
            again.sort_by_key(|work| work.end_ns);
            for mut work in again {
                while let Some((key, index)) = lanes.partner(&works, &work) {
                    work.add(works.get_mut(&key).unwrap().remove(index).unwrap());
                }
                let queue = works.entry(lanes.engine(&work)).or_default();
                queue.insert(queue.partition_point(|known| known.end_ns <= work.end_ns), work);
            }
        }
        works.retain(|_, works| !works.is_empty());
        let threads = |work: &GpuWork| work.pieces.iter().map(|piece| piece.tid).collect();
        works.into_iter().map(|(key, works)| (key, works.iter().map(threads).collect())).collect()
    }

    fn joined(pieces: Vec<GpuWork>) -> Vec<Vec<u32>> {
        by_engine(pieces).into_values().flatten().collect()
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
        let engines = by_engine(pieces);
        let threads: Vec<Vec<u32>> =
            engines.values().map(|works| works.iter().flatten().copied().collect()).collect();
        assert_eq!(threads, [vec![1; 50], vec![2; 50]]);
    }

    /// Engines whose batches are full do the same for long, and begin and end at times of their own.
    #[test]
    fn engines_that_do_alike_stay_apart() {
        for (pids, devices) in [([1, 1], [0, 0]), ([1, 1], [0, 1]), ([1, 2], [0, 1])] {
            let mut pieces = Vec::new();
            for step in 0..2000 {
                for engine in 0..2 {
                    // The same course, at another time.
                    let course = (step + 17 * engine as u64) % 50;
                    let inputs = if course < 3 { 1000 * (course + 1) } else { 100 };
                    let end = step * 100 + 90 + 5 * engine as u64;
                    let lane = (pids[engine], 1 + engine as u32, Some(devices[engine]));
                    pieces.push(work(lane, (end - 90, end), inputs, if course == 0 { 0 } else { 4 }));
                }
            }
            let engines = by_engine(pieces);
            assert_eq!(
                engines.values().map(Vec::len).collect::<Vec<_>>(),
                [2000, 2000],
                "{pids:?} {devices:?}"
            );
        }
    }

    /// Engines with requests that are all alike change alike for a while, and then do not.
    #[test]
    fn engines_that_change_alike_for_a_while_stay_apart() {
        let mut pieces = Vec::new();
        for step in 0..400u64 {
            for engine in 0..2 {
                let course = (step + u64::from(step % 50 > 25 && engine == 1)) % 20;
                let at = step * 100 + 10 * u64::from(engine);
                pieces.push(work((1, 1 + engine, None), (at, at + 90), 100 + 50 * course, 4));
            }
        }
        assert_eq!(by_engine(pieces).values().map(Vec::len).collect::<Vec<_>>(), [400, 400]);
    }

    /// Threads of a pool that take turns are one engine.
    #[test]
    fn threads_that_take_turns_are_one_engine() {
        let turn =
            |step: u64| work((1, (step % 4) as u32, Some(0)), (step * 100, step * 100 + 90), 8 + step % 5, 4);
        assert_eq!(by_engine((0..100).map(turn).collect()).len(), 1);
    }

    #[test]
    fn ranks_that_do_the_same_become_one_and_replicas_do_not() {
        let ranks = |samples: fn(u32) -> u64, inputs: fn(u32, u64) -> u64| {
            let mut pieces = Vec::new();
            for step in 0..100 {
                for pid in [1, 2, 3] {
                    let end = step * 100 + 90 + u64::from(pid);
                    pieces.push(work((pid, pid, None), (step * 100, end), inputs(pid, step), samples(pid)));
                }
            }
            joined(pieces).len()
        };
        for samples in [|_| 4, |pid| if pid == 1 { 4 } else { 0 }] {
            assert_eq!(ranks(samples, |_, step| 100 + step % 7), 100, "those before it is known as well");
            assert_eq!(ranks(samples, |pid, step| 100 + step % (2 + u64::from(pid))), 300);
        }
        assert_eq!(ranks(|_| 4, |_, _| 100), 300, "what never changes shows nothing");
    }

    #[test]
    fn what_a_process_did_is_forgotten_with_it() {
        let mut lanes = Lanes::default();
        let mut known = work((1, 1, None), (0, 90), 8, 4);
        lanes.learn(&Works::new(), &mut known);
        let works = Works::from([((1, 0), VecDeque::from([known]))]);
        lanes.learn(&works, &mut work((2, 2, None), (0, 95), 8, 4));
        assert_eq!((lanes.known.len(), lanes.pairs.len()), (2, 1));
        lanes.gone(1);
        assert_eq!((lanes.known.len(), lanes.pairs.len()), (1, 0));
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
