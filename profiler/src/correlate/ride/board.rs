//! GPU work and iterations, until each piece of work belongs to an iteration and each iteration to its riders.
//!
//! Where an adapter hears the engine, an iteration takes the work that was done by its end, unless it is that of another
//! engine's thread, and its members are as said. Elsewhere each piece of work, with those of other devices that belong to
//! it ([`super::align`]), is an iteration, and who rode in it shows a moment later, when its tokens have left
//! ([`super::guess`]). What belongs to nobody is told as such.

use super::align::{EngineKey, Lanes, Works};
use super::course::{Course, Seat};
use super::guess::{Guesses, Passenger, Sizes};
use super::idle::{GpuTimes, Quiet, Times};
use super::mix::Mixes;
use super::split::split;
use super::whose::Whose;
use super::{GpuWork, Iteration, Ride, Rider, Share, Who};
use crate::correlate::beyond::oldest;
use crate::correlate::energy::{Energy, charge};
use crate::correlate::request::Owner;
use crate::correlate::step::Step;
use crate::evidence::Evidence;
use crate::server::said::{EngineStep, Inner, Member, Part};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How long work waits for the tokens that it brought to leave, and finished requests for their last iterations.
pub const LAG_NS: u64 = 250_000_000;

/// How long work of an engine that is new waits until enough of it is there to learn from.
pub const LEARNING_NS: u64 = 4 * LAG_NS;

/// So many pieces of it are enough.
const ENOUGH: usize = 32;

/// How long work of a process whose engine is heard waits for its iteration to be told: prompts can take seconds.
const PATIENCE_NS: u64 = 30_000_000_000;

/// Pieces of work of a process that wait; the oldest go first, to nobody.
const MOST_WAITING: usize = 16_384;

/// Engines of which the course is known, and devices of processes of which the times are: the engine that stood still
/// longest goes first, and devices that come later have no times of their own.
const MOST_ENGINES: usize = 1024;

/// Threads of engines that are remembered; then all are learnt anew.
const MOST_THREADS: usize = 4096;

/// What became of the work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct BoardCounts {
    /// Iterations that work was joined with, as told by adapters.
    pub told: u64,
    /// Iterations that are nothing but a piece of work.
    pub generic: u64,
    /// Of these, those whose rider was said by the thread that sent the work.
    pub stated: u64,
    /// GPU time of all of them, nanoseconds.
    pub gpu_ns: u64,
    /// Of it, that of riders.
    pub shared_ns: u64,
    /// Of it, that of nobody.
    pub unattributed_ns: u64,
    /// Kernel launches and graph launches of nobody.
    pub unattributed_launches: u64,
    /// Pieces of work that found no room to wait.
    pub evicted: u64,
    /// Riders whose request was over when their iteration was told.
    pub late: u64,
}

/// The guests of a server, as far as the board must know them.
pub trait Guestbook {
    /// Lets `change` see the ride of a guest, which names its speaker and its number, and how it rides in an iteration
    /// that ends then; false when it is not there or its request is over.
    fn with(&mut self, guest: (usize, Inner), end_ns: u64, change: &mut dyn FnMut(&mut Ride, Seat)) -> bool;
}

/// GPU work and iterations that do not know of each other yet.
#[derive(Debug, Default)]
pub struct Board {
    works: Works,
    /// The newest work: the same wait may have ended more.
    fresh: Option<GpuWork>,
    lanes: Lanes,
    /// Which engine told that a thread works for it, by process and thread.
    threads: HashMap<(u32, u32), u64>,
    /// Processes whose engines are heard.
    heard: BTreeSet<u32>,
    /// Processes that are gone, until their last work is an iteration.
    gone: BTreeSet<u32>,
    courses: HashMap<(u32, u64), Course>,
    mixes: Mixes,
    guesses: Guesses,
    whose: Whose,
    quiet: Quiet,
    /// Power of the devices.
    pub energy: Energy,
    times: BTreeMap<(u32, Option<u32>), Times>,
    iterations: u64,
    counts: BoardCounts,
    /// Courses, and pieces of work in no account of times.
    forgotten: (u64, u64),
}

impl Board {
    /// What became of the work so far.
    #[must_use]
    pub fn counts(&self) -> BoardCounts {
        self.counts
    }

    /// How the GPU time of each process passed on each of its devices.
    pub fn times(&self) -> impl Iterator<Item = ((u32, Option<u32>), GpuTimes)> {
        self.times.iter().map(|(place, times)| (*place, times.sums))
    }

    /// Work that waits for its iteration.
    #[cfg(test)]
    pub fn waiting(&self) -> Share {
        let mut sum = Share::default();
        self.works.values().flatten().chain(&self.fresh).for_each(|work| sum.add(&work.whole));
        sum
    }

    /// How much is kept of what goes on: nothing once it is over.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.works.len() + self.courses.len() + self.guesses.held()
    }

    /// Whether requests are under way from now on.
    pub fn busy(&mut self, time_ns: u64, busy: bool) {
        self.quiet.now(time_ns, busy);
    }

    /// A piece of work is done.
    pub fn done(&mut self, step: &Step, out: &mut Vec<Iteration>) {
        self.gone.remove(&step.pid);
        let place = (step.pid, step.device);
        if self.times.len() < MOST_ENGINES || self.times.contains_key(&place) {
            let times = self.times.entry(place).or_default();
            times.work((step.start_ns, step.end_ns), step.gpu_ns, &self.quiet);
        } else {
            self.forgotten.1 += 1;
        }
        let work = GpuWork::of(step);
        for piece in &work.pieces {
            self.energy.works((piece.pid, piece.device), piece.from_ns, piece.end_ns);
        }
        let is_same = |fresh: &GpuWork| {
            let wait = |work: &GpuWork| (work.pid(), work.end_ns);
            wait(fresh) == wait(&work) && self.engine_of(fresh) == self.engine_of(&work)
        };
        if self.fresh.as_ref().is_some_and(is_same)
            && let Some(fresh) = &mut self.fresh
        {
            return fresh.add(work);
        }
        self.flush(out);
        self.fresh = Some(work);
    }

    /// The newest work takes its place: all that the same wait ended is there.
    fn flush(&mut self, out: &mut Vec<Iteration>) {
        let Some(mut work) = self.fresh.take() else { return };
        // Where engines are heard they say what belongs to an iteration.
        if self.heard.is_empty() && self.lanes.learn(&self.works, &mut work) {
            let mut waiting: Vec<_> = std::mem::take(&mut self.works).into_values().flatten().collect();
            waiting.sort_by_key(|work| work.end_ns);
            for work in waiting {
                self.place(work);
            }
        }
        let key = self.place(work);
        let works = self.works.entry(key).or_default();
        if works.len() > MOST_WAITING
            && let Some(oldest) = works.pop_front()
        {
            self.counts.evicted += 1;
            out.push(self.nobodys(key, oldest));
        }
    }

    /// Work finds its engine, and the iteration that it belongs to.
    fn place(&mut self, mut work: GpuWork) -> EngineKey {
        while self.heard.is_empty()
            && let Some((key, index)) = self.lanes.partner(&self.works, &work)
            && let Some(partner) = self.works.get_mut(&key).and_then(|works| works.remove(index))
        {
            work.add(partner);
        }
        let key = self.lanes.engine(&work);
        let works = self.works.entry(key).or_default();
        let place = works.partition_point(|known| known.end_ns <= work.end_ns);
        works.insert(place, work);
        key
    }

    /// The engine that all threads of the work are known to work for.
    fn engine_of(&self, work: &GpuWork) -> Option<(u32, u64)> {
        let mut engines = work.pieces.iter().map(|piece| {
            let engine = self.threads.get(&(piece.pid, piece.tid))?;
            Some((piece.pid, *engine))
        });
        let first = engines.next().flatten()?;
        engines.all(|engine| engine == Some(first)).then_some(first)
    }

    /// A thread was heard to work for an engine.
    fn learn_thread(&mut self, pid: u32, step: &EngineStep) {
        let Some(tid) = step.thread else { return };
        if self.threads.len() >= MOST_THREADS {
            self.forgotten.0 += self.threads.len() as u64;
            self.threads.clear();
        }
        self.threads.insert((pid, tid), step.engine);
    }

    /// An engine's iteration was told: its work and its riders are found.
    pub fn told(&mut self, iteration: &mut Iteration, guests: &mut dyn Guestbook, out: &mut Vec<Iteration>) {
        self.heard.insert(iteration.pid);
        self.learn_thread(iteration.pid, &iteration.step);
        self.flush(out);
        self.iterations += 1;
        iteration.id = self.iterations;
        iteration.gpu = self.work_of(iteration.pid, &iteration.step).map(Box::new);
        if let Some(gpu) = &mut iteration.gpu {
            charge(&self.energy, &mut gpu.pieces, &mut gpu.whole);
        }
        let key = (iteration.pid, iteration.step.engine);
        let start_ns = self.start_of(key, iteration);
        let has = |part| iteration.step.members.iter().any(|member| member.part == part);
        let course = self.course(key);
        course.go_on(start_ns, iteration.step.end_ns, (has(Part::Prefill), has(Part::Decode)));
        self.share_out(iteration, guests);
        self.counts.told += 1;
        self.count(iteration);
    }

    /// An engine tells its iterations.
    #[must_use]
    pub fn hears(&self) -> bool {
        !self.heard.is_empty()
    }

    /// What the tables had to forget: mixes, courses, and pieces of work in no account of times.
    #[must_use]
    pub fn forgotten(&self) -> (u64, u64, u64) {
        (self.mixes.forgotten, self.forgotten.0 + self.lanes.forgotten, self.forgotten.1)
    }

    /// The course of an engine, for which there is room.
    fn course(&mut self, key: (u32, u64)) -> &mut Course {
        if self.courses.len() >= MOST_ENGINES
            && !self.courses.contains_key(&key)
            && let Some(oldest) = oldest(&self.courses, |_, course| course.end_ns().unwrap_or(0))
        {
            self.courses.remove(&oldest);
            self.forgotten.0 += 1;
        }
        self.courses.entry(key).or_default()
    }

    /// Nothing that was heard counts any more.
    pub fn hush(&mut self) {
        self.heard.clear();
    }

    /// Time passed: work that no adapter tells of finds its riders among `passengers`.
    pub fn settle(&mut self, now_ns: u64, passengers: &mut [Passenger<'_>], out: &mut Vec<Iteration>) {
        self.flush(out);
        if self.heard.is_empty() {
            self.whose.seat(&self.works, passengers, now_ns);
        }
        let keys: Vec<EngineKey> = self.works.keys().copied().collect();
        for key in keys {
            let heard = !self.heard.is_empty();
            let wait = if heard { PATIENCE_NS } else { self.patience(key, now_ns, passengers) };
            while let Some(work) = self.take_settled(key, now_ns.saturating_sub(wait)) {
                let iteration = match heard {
                    true => self.nobodys(key, work),
                    false => self.guess(key, work, passengers),
                };
                out.push(iteration);
            }
        }
        self.works.retain(|_, works| !works.is_empty());
        let is_done = |pid: &u32| !self.works.keys().any(|(of, _)| of == pid);
        for pid in self.gone.extract_if(.., is_done) {
            self.heard.remove(&pid);
            self.threads.retain(|(of, _), _| *of != pid);
            self.lanes.gone(pid);
            self.courses.retain(|(of, _), _| *of != pid);
            self.guesses.gone(pid);
            self.whose.gone(pid);
        }
    }

    /// A process is gone: once its work is shared out nothing is remembered of it but sums.
    pub fn gone(&mut self, pid: u32) {
        self.gone.insert(pid);
    }

    /// The beginning of the oldest work that waits.
    #[must_use]
    pub fn oldest_ns(&self) -> Option<u64> {
        let waiting = self.works.values().filter_map(|works| works.front()).chain(&self.fresh);
        waiting.map(|work| work.start_ns).min()
    }

    /// A request is over: nothing is remembered of it.
    pub fn release(&mut self, owner: Owner, sizes: Sizes) {
        self.whose.forget(owner);
        self.guesses.forget(owner, sizes);
    }

    /// How long work waits whose riders are inferred. That of a new engine is looked at as a whole before.
    fn patience(&mut self, key: EngineKey, now_ns: u64, passengers: &[Passenger<'_>]) -> u64 {
        let is_new = self.guesses.is_new(key) && !passengers.is_empty();
        let Some(works) = self.works.get_mut(&key).filter(|_| is_new) else { return LAG_NS };
        let settled = works.partition_point(|work| work.end_ns.saturating_add(LAG_NS) <= now_ns);
        if settled < ENOUGH
            && works.front().is_some_and(|work| work.end_ns.saturating_add(LEARNING_NS) > now_ns)
        {
            return LEARNING_NS;
        }
        let works = &*works.make_contiguous();
        self.guesses.study(key, works, settled, passengers);
        if self.guesses.is_new(key) { LEARNING_NS } else { LAG_NS }
    }

    fn take_settled(&mut self, key: EngineKey, until_ns: u64) -> Option<GpuWork> {
        let works = self.works.get_mut(&key)?;
        if works.front()?.end_ns > until_ns {
            return None;
        }
        works.pop_front()
    }

    /// The work of an iteration: what was done by its end and not before it began, but for what another engine's thread
    /// sent.
    fn work_of(&mut self, pid: u32, step: &EngineStep) -> Option<GpuWork> {
        let mut all: Option<GpuWork> = None;
        for worker in self.workers(pid) {
            let Some(mut works) = self.works.remove(&worker) else { continue };
            let from = step.start_ns.unwrap_or(0);
            // They wait in the order of their ends.
            let later = works.iter().position(|work| work.end_ns > step.end_ns).unwrap_or(works.len());
            let first = works.iter().position(|work| work.end_ns >= from).unwrap_or(later);
            let mut others = Vec::new();
            for work in works.drain(first.min(later)..later) {
                let is_others = self.engine_of(&work).is_some_and(|engine| engine != (pid, step.engine));
                match &mut all {
                    _ if is_others => others.push(work),
                    Some(all) => all.add(work),
                    None => all = Some(work),
                }
            }
            for work in others.into_iter().rev() {
                works.insert(first, work);
            }
            self.works.insert(worker, works);
        }
        all
    }

    /// Processes whose work an engine's iterations are: its own, and where it is the only one that is heard, those of
    /// its workers.
    fn workers(&self, pid: u32) -> Vec<EngineKey> {
        let alone = self.heard.len() == 1;
        self.works.keys().filter(|(of, _)| alone || *of == pid).copied().collect()
    }

    /// When an iteration began: as said, with its work, or when the one before it ended.
    fn start_of(&self, key: (u32, u64), iteration: &Iteration) -> u64 {
        let end_ns = iteration.step.end_ns;
        let before = self.courses.get(&key).and_then(Course::end_ns).filter(|before| *before <= end_ns);
        let work = iteration.gpu.as_ref().map(|work| work.start_ns.max(before.unwrap_or(0)));
        iteration.step.start_ns.or(work).unwrap_or_else(|| before.unwrap_or(end_ns)).min(end_ns)
    }

    /// Divides the work of a told iteration among its members by the tokens that it processed for each.
    fn share_out(&mut self, iteration: &mut Iteration, guests: &mut dyn Guestbook) {
        let Some(course) = self.courses.get(&(iteration.pid, iteration.step.engine)) else { return };
        let step = &iteration.step;
        // A failed attempt is made again, and what it cost is nobody's.
        let members: &[Member] = if step.failed { &[] } else { &step.members };
        let weights: Vec<u64> = members.iter().map(weight).collect();
        let known: u64 = weights.iter().sum();
        let rest = if step.is_complete { 0 } else { step.tokens.unwrap_or(0).saturating_sub(known) };
        let whole = iteration.gpu.as_ref().map_or(Share { steps: 1, ..Share::default() }, |work| work.whole);
        let whole = Share { steps: 1, ..whole };
        let mix = iteration.gpu.as_ref().map(|gpu| self.mixes.of(&gpu.work));
        let (parts, mut left) = split(&whole, &weights, rest);
        for (member, share) in members.iter().zip(parts) {
            let evidence = if step.is_complete { member.evidence } else { member.evidence.max(Evidence::E3) };
            let guest = (iteration.speaker, member.inner);
            let seated = guests.with(guest, step.end_ns, &mut |ride, seat| {
                course.take(ride, seat);
                ride.evidence = ride.evidence.max(Some(evidence));
                let phase = if seat.decodes { &mut ride.decode } else { &mut ride.prefill };
                phase.add(&share, iteration.gpu.as_deref().zip(mix.as_ref()));
            });
            if !seated {
                self.counts.late += 1;
                left.add(&Share { steps: 0, ..share });
                continue;
            }
            let tokens = u32::try_from(weight(member)).unwrap_or(u32::MAX);
            let who = Who::Inner(member.inner);
            iteration.riders.push(Rider { who, part: member.part, tokens, share, evidence });
        }
        iteration.unattributed = left;
    }

    /// An iteration of which only the work is known, and who may have ridden in it.
    fn guess(&mut self, key: EngineKey, work: GpuWork, passengers: &mut [Passenger<'_>]) -> Iteration {
        self.whose.told(key, work.end_ns);
        let later = self.works.entry(key).or_default().make_contiguous();
        let stated = super::stated::passenger(&work, passengers);
        self.counts.stated += u64::from(stated.is_some());
        let riders = match stated {
            Some(index) => super::stated::alone(&mut self.guesses, key, (&work, later), (index, passengers)),
            None => self.guesses.riders(key, &work, later, passengers),
        };
        let mut iteration = self.of_work(key, work);
        let Some(gpu) = &iteration.gpu else { return iteration };
        let has = |part| riders.iter().any(|rider| rider.part == part);
        self.course(key);
        let course = self.courses.entry(key).or_default();
        course.go_on(gpu.start_ns, gpu.end_ns, (has(Part::Prefill), has(Part::Decode)));
        let mix = self.mixes.of(&gpu.work);
        let weights: Vec<u64> = riders.iter().map(|rider| u64::from(rider.tokens)).collect();
        let (parts, left) = split(&gpu.whole, &weights, 0);
        for (rider, share) in riders.iter().zip(parts) {
            let Some(passenger) = passengers.get_mut(rider.index) else { continue };
            let request = &mut *passenger.request;
            let decodes = rider.part == Part::Decode;
            let ride = &mut *request.ride;
            course.take(ride, Seat { queued_ns: request.arrived_ns, decodes });
            ride.evidence = ride.evidence.max(Some(rider.evidence));
            let phase = if decodes { &mut ride.decode } else { &mut ride.prefill };
            phase.add(&share, Some((gpu, &mix)));
            iteration.riders.push(Rider {
                who: Who::Request(request.owner()),
                part: rider.part,
                tokens: rider.tokens,
                share,
                evidence: rider.evidence,
            });
        }
        iteration.unattributed = left;
        self.count(&iteration);
        iteration
    }

    /// Work that belongs to nobody.
    fn nobodys(&mut self, key: EngineKey, work: GpuWork) -> Iteration {
        let iteration = self.of_work(key, work);
        self.count(&iteration);
        iteration
    }

    fn of_work(&mut self, (pid, engine): EngineKey, mut work: GpuWork) -> Iteration {
        charge(&self.energy, &mut work.pieces, &mut work.whole);
        self.iterations += 1;
        self.counts.generic += 1;
        let (start_ns, end_ns) = (Some(work.start_ns), work.end_ns);
        let step = EngineStep { engine, start_ns, end_ns, ..EngineStep::default() };
        Iteration {
            id: self.iterations,
            adapter: "generic",
            speaker: usize::MAX,
            pid,
            step,
            unattributed: Share { steps: 0, ..work.whole },
            gpu: Some(Box::new(work)),
            riders: Vec::new(),
        }
    }

    fn count(&mut self, iteration: &Iteration) {
        self.energy.account(iteration);
        let whole = iteration.gpu.as_ref().map_or(0, |work| work.whole.gpu_ns);
        self.counts.gpu_ns += whole;
        self.counts.unattributed_ns += iteration.unattributed.gpu_ns;
        self.counts.shared_ns += whole - iteration.unattributed.gpu_ns;
        self.counts.unattributed_launches += iteration.unattributed.launches;
    }
}

/// Tokens that an iteration processed for a member: one, where it is not said.
fn weight(member: &Member) -> u64 {
    u64::from(member.computed.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that has forgotten its guests.
    struct Nobody;

    impl Guestbook for Nobody {
        fn with(&mut self, _: (usize, Inner), _: u64, _: &mut dyn FnMut(&mut Ride, Seat)) -> bool {
            false
        }
    }

    fn work(board: &mut Board, tid: u32, (start_ns, end_ns): (u64, u64)) {
        let mut step = Step::default();
        (step.pid, step.tid, step.start_ns, step.end_ns) = (7, tid, start_ns, end_ns);
        step.gpu_ns = end_ns - start_ns;
        board.done(&step, &mut Vec::new());
    }

    /// GPU time of an iteration that an engine tells, with the thread that ran it.
    fn told(board: &mut Board, engine: u64, thread: Option<u32>, end_ns: u64) -> Option<u64> {
        let step = EngineStep { engine, end_ns, thread, ..EngineStep::default() };
        let mut iteration = Iteration { pid: 7, ..Iteration::for_test(0, step) };
        board.told(&mut iteration, &mut Nobody, &mut Vec::new());
        iteration.gpu.map(|gpu| gpu.whole.gpu_ns)
    }

    #[test]
    fn engines_of_one_process_have_the_work_of_their_own_threads() {
        let mut board = Board::default();
        // Until the second engine has told its thread, nothing shows whose its work is.
        work(&mut board, 1, (0, 10));
        work(&mut board, 2, (5, 15));
        assert_eq!(
            (told(&mut board, 0xa, Some(1), 20), told(&mut board, 0xb, Some(2), 21)),
            (Some(20), None)
        );
        for at in [100, 200] {
            work(&mut board, 1, (at, at + 30));
            work(&mut board, 2, (at + 10, at + 30));
            work(&mut board, 3, (at + 35, at + 36));
            assert_eq!(
                told(&mut board, 0xb, Some(2), at + 40),
                Some(20 + 1),
                "and that of a thread of nobody's"
            );
            assert_eq!(told(&mut board, 0xa, Some(1), at + 41), Some(30));
        }
        work(&mut board, 1, (300, 310));
        assert_eq!(told(&mut board, 0xc, Some(1), 320), Some(10), "a thread may run several engines");
        work(&mut board, 1, (330, 340));
        assert_eq!(told(&mut board, 0xa, Some(1), 350), Some(10));
        work(&mut board, 9, (400, 410));
        assert_eq!(told(&mut board, 0xa, None, 420), Some(10), "where no thread is told all is as before");
    }
}
