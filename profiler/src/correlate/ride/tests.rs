//! A small engine with continuous batching, and who is found in its iterations from outside.

use super::guess::{Passenger, Sizes};
use super::{Board, Iteration, LAG_NS, Who};
use crate::correlate::life::Hook;
use crate::correlate::request::{Outcome, Request};
use crate::correlate::step::{Step, Work};
use crate::http::{Streaming, Usage};
use crate::probe::Direction;
use crate::server::route;
use std::collections::BTreeSet;

const STEP_NS: u64 = 2_000_000;
const PID: u32 = 7;

/// A request of the engine.
struct Sequence {
    request: Request,
    prompt: u64,
    tokens: u64,
    computed: u64,
    made: u64,
    /// Its client leaves after so many tokens; the engine makes one more.
    stays: Option<u64>,
    stream: bool,
    /// When its tokens leave.
    leaves: Vec<u64>,
}

impl Sequence {
    fn is_done(&self) -> bool {
        self.made >= self.tokens || self.stays.is_some_and(|stays| self.made > stays)
    }
}

struct Engine {
    batch: usize,
    budget: u64,
    random: fastrand::Rng,
    /// How late tokens leave at most.
    delay_ns: u64,
    /// What goes to the GPU does not depend on what is in a step.
    padded: bool,
}

impl Engine {
    fn request(&mut self, index: u64, arrived_ns: u64, stream: bool) -> Sequence {
        let mut request = Request::new(PID, index, 0, arrived_ns, Hook::Socket);
        let prompt = self.random.u64(1..600);
        request.arrived_ns = Some(arrived_ns);
        request.request_bytes = Some(100 + 5 * prompt);
        request.route = route::find("/v1/chat/completions");
        request.streaming = if stream { Streaming::Sse } else { Streaming::None };
        let tokens = self.random.u64(1..60);
        Sequence { request, prompt, tokens, computed: 0, made: 0, stays: None, stream, leaves: Vec::new() }
    }

    /// One iteration: who is in it with how many tokens.
    fn schedule(&self, all: &[Sequence], running: &mut Vec<usize>, now_ns: u64) -> Vec<(usize, u64)> {
        running.retain(|index| !all[*index].is_done());
        let mut budget = self.budget;
        let mut step = Vec::new();
        let waiting = (0..all.len()).filter(|index| {
            all[*index].computed == 0
                && all[*index].made == 0
                && all[*index].request.arrived_ns <= Some(now_ns)
        });
        let waiting: Vec<_> = waiting.filter(|index| !running.contains(index)).collect();
        for index in running.clone().into_iter().chain(waiting) {
            let is_new = !running.contains(&index);
            if budget == 0 || is_new && running.len() >= self.batch {
                continue;
            }
            let left = (all[index].prompt - all[index].computed).max(1).min(budget);
            budget -= left;
            step.push((index, left));
            if is_new {
                running.push(index);
            }
        }
        step
    }

    /// Runs requests to their ends, and lets who rode be found.
    fn run(&mut self, mut all: Vec<Sequence>) -> Found {
        let mut running = Vec::new();
        let mut now_ns = 0;
        let mut steps = Vec::new();
        while all.iter().any(|sequence| !sequence.is_done()) {
            now_ns += 100_000;
            let step = self.schedule(&all, &mut running, now_ns);
            let start_ns = now_ns;
            now_ns += STEP_NS;
            if step.is_empty() {
                continue;
            }
            let tokens: u64 = step.iter().map(|(_, tokens)| tokens).sum();
            let mut samples = 0;
            for (index, tokens) in &step {
                let late = self.random.u64(10_000..=self.delay_ns);
                let sequence = &mut all[*index];
                let prompt = sequence.prompt - sequence.computed;
                sequence.computed += prompt.min(*tokens);
                if prompt <= *tokens {
                    samples += 1;
                    sequence.made += 1;
                    if sequence.stays.is_some_and(|stays| sequence.made > stays) {
                        continue;
                    }
                    sequence.leaves.push((now_ns + late).max(sequence.leaves.last().copied().unwrap_or(0)));
                }
            }
            let mut work = Work::default();
            let inputs = if self.padded { 4096 } else { tokens * 12 + (step.len() as u64 + 1) * 4 };
            work.copies[Direction::HtoD as usize] = (3, inputs);
            work.copies[Direction::DtoH as usize] = (1, samples * 4);
            let mut piece = Step::default();
            (piece.pid, piece.start_ns, piece.end_ns, piece.gpu_ns) = (PID, start_ns, now_ns, STEP_NS);
            piece.work = work;
            steps.push((piece, step));
        }
        judge(all, &steps)
    }
}

/// What of a request shows at a time: the answer's bytes so far.
fn show(sequence: &mut Sequence, now_ns: u64) -> Passenger<'_> {
    let Sequence { request, leaves, stream, prompt, tokens, stays, .. } = sequence;
    let over_ns = *leaves.last().unwrap() + 1000;
    let seen: Vec<u64> = leaves.iter().copied().filter(|at| *at <= now_ns).collect();
    if *stream {
        request.first_token_ns = seen.first().copied();
        request.last_token_ns = seen.last().copied();
        request.deltas = seen.len() as u64;
    }
    let is_over = over_ns <= now_ns;
    if is_over {
        request.answered_ns = Some(if *stream { leaves[0] } else { over_ns });
        request.ended_ns = over_ns;
        let leaves = stays.is_some_and(|stays| stays < *tokens);
        request.outcome = if leaves { Outcome::Aborted } else { Outcome::Completed };
        if !leaves {
            request.usage = Usage { input: Some(*prompt), output: Some(*tokens), ..Usage::default() };
        }
    }
    Passenger::new(request, is_over)
}

/// Lets the board find who rode, as time passes.
fn judge(mut all: Vec<Sequence>, steps: &[(Step, Vec<(usize, u64)>)]) -> Found {
    let mut board = Board::default();
    let mut found = Vec::new();
    let mut gone = BTreeSet::new();
    let mut next = 0;
    let end_ns = steps.last().unwrap().0.end_ns + 10 * LAG_NS;
    for now_ns in (0..end_ns).step_by(20_000_000) {
        while let Some((step, _)) = steps.get(next).filter(|(step, _)| step.end_ns <= now_ns) {
            board.done(step, &mut found);
            next += 1;
        }
        let oldest_ns = board.oldest_ns().unwrap_or(now_ns);
        let mut passengers = Vec::new();
        for (place, sequence) in all.iter_mut().enumerate() {
            if sequence.request.arrived_ns > Some(now_ns) || gone.contains(&place) {
                continue;
            }
            let passenger = show(sequence, now_ns);
            if passenger.is_over && passenger.request.ended_ns + LAG_NS < now_ns.min(oldest_ns) {
                gone.insert(place);
                board.release(passenger.request.owner(), Sizes::of(passenger.request));
                continue;
            }
            passengers.push(passenger);
        }
        board.settle(now_ns, &mut passengers, &mut found);
    }
    compare(&all, steps, &found)
}

/// How well it was found.
struct Found {
    /// Memberships that are right, of all.
    right: f64,
    /// By how much requests' shares are off: sorted, as parts of them.
    off: Vec<f64>,
}

fn compare(all: &[Sequence], steps: &[(Step, Vec<(usize, u64)>)], found: &[Iteration]) -> Found {
    assert_eq!(found.len(), steps.len());
    let (mut wrong, mut edges) = (0, 0);
    let mut shares = vec![(0.0, 0.0); all.len()];
    for ((step, members), iteration) in steps.iter().zip(found) {
        assert_eq!(iteration.step.end_ns, step.end_ns);
        let place =
            |who| all.iter().position(|sequence| Who::Request(sequence.request.owner()) == who).unwrap();
        let riders: BTreeSet<usize> = iteration.riders.iter().map(|rider| place(rider.who)).collect();
        assert_eq!(riders.len(), iteration.riders.len(), "nobody rides twice");
        let members_of: BTreeSet<usize> = members.iter().map(|(index, _)| *index).collect();
        edges += members_of.union(&riders).count();
        wrong += members_of.symmetric_difference(&riders).count();
        let tokens: u64 = members.iter().map(|(_, tokens)| tokens).sum();
        for (index, part) in members {
            shares[*index].0 += STEP_NS as f64 * *part as f64 / tokens as f64;
        }
        for rider in &iteration.riders {
            shares[place(rider.who)].1 += rider.share.gpu_ns as f64;
        }
    }
    let mut off: Vec<f64> = shares.iter().map(|(truth, found)| (found / truth - 1.0).abs()).collect();
    off.sort_by(f64::total_cmp);
    Found { right: 1.0 - f64::from(u32::try_from(wrong).unwrap()) / edges as f64, off }
}

/// `stream` says which requests stream, and after how many tokens their clients leave.
fn found(batch: usize, delay_ns: u64, padded: bool, stream: impl Fn(u64) -> (bool, Option<u64>)) -> Found {
    let mut engine = Engine { batch, budget: 256, random: fastrand::Rng::with_seed(3), delay_ns, padded };
    let mut at = 0;
    let mut all = Vec::new();
    for index in 0..400 {
        // All at once to begin with: at first no step is without a prompt.
        at += if index < 32 { 0 } else { engine.random.u64(0..8_000_000) };
        let (stream, stays) = stream(index);
        all.push(Sequence { stays, ..engine.request(index, at, stream) });
    }
    engine.run(all)
}

impl Found {
    fn check(&self, right: f64, off: f64) {
        let at = |percent: usize| self.off[self.off.len() * percent / 100];
        println!("{:.4} right, shares off by {:.3} at the median, {:.3} at p95", self.right, at(50), at(95));
        assert!(self.right >= right && at(95) <= off);
    }
}

#[test]
fn streams_are_found_in_their_steps() {
    found(16, 300_000, false, |_| (true, None)).check(0.995, 0.02);
}

#[test]
fn streams_whose_tokens_leave_late_are_found_in_their_steps() {
    found(16, 15_000_000, false, |_| (true, None)).check(0.995, 0.02);
}

#[test]
fn whole_answers_are_found_in_the_last_steps_before_them() {
    found(16, 300_000, false, |index| (index % 2 == 0, None)).check(0.995, 0.02);
}

#[test]
fn clients_that_leave_take_nothing_from_others() {
    found(16, 300_000, false, |index| (true, (index % 5 == 0).then_some(1 + index % 4))).check(0.99, 0.1);
}

#[test]
fn where_inputs_are_padded_queues_are_not_taken_for_prompts() {
    found(16, 300_000, true, |_| (true, None)).check(0.95, 1.0);
}
