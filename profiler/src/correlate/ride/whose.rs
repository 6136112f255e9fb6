//! Which of several engines of a process a request rides in, where only its tokens and their iterations show.
//!
//! In: ends of iterations, by engine, and the times at which tokens left. Out: an engine for each request, found once. A
//! token leaves after the end of the iteration that made it, and each iteration makes one: so the tokens of a request
//! follow the iterations of its engine one by one, soon, and none comes before its iteration. Those of another engine keep
//! no step with them. Absent: engines that belong to one iteration, which are one ([`super::align`]).

use super::align::{EngineKey, Works};
use super::guess::Passenger;
use super::{GpuWork, LAG_NS};
use crate::correlate::request::{Owner, Request};
use crate::evidence::Evidence;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Ends of iterations that are remembered of an engine: tokens of the requests that are under way, as far as they are
/// looked at.
const MOST_ENDS: usize = 2048;

/// Tokens that are held up leave after so many iterations at most.
const MOST_BEHIND: usize = 16;

/// Tokens that are enough to tell, and how long more are waited for: the first iteration of a request is told then.
const ENOUGH: u64 = 48;
const WAIT_NS: u64 = LAG_NS - 30_000_000;

/// The others' tokens must be so much later than those of the engine that is found, or it is not sure.
const SURE: f64 = 1.25;

/// Which engine each request rides in.
#[derive(Debug, Default)]
pub struct Whose {
    /// Of iterations that were told.
    ends: BTreeMap<EngineKey, VecDeque<u64>>,
    found: HashMap<Owner, (EngineKey, Evidence)>,
}

impl Whose {
    /// An iteration is told: its end is all that is kept of it.
    pub fn told(&mut self, key: EngineKey, end_ns: u64) {
        let ends = self.ends.entry(key).or_default();
        if ends.len() == MOST_ENDS {
            ends.pop_front();
        }
        ends.push_back(end_ns);
    }

    /// Finds the engine of each passenger that has shown enough, where there are several.
    pub fn seat(&mut self, works: &Works, passengers: &mut [Passenger<'_>], now_ns: u64) {
        let engines = self.several(works);
        if engines.is_empty() {
            return;
        }
        for passenger in passengers {
            let owner = passenger.request.owner();
            if !self.found.contains_key(&owner) && shows(passenger, now_ns) {
                let tokens = tokens(passenger.request);
                self.found.extend(best(&engines, &tokens).map(|found| (owner, found)));
            }
            passenger.engine = self.found.get(&owner).copied();
        }
    }

    /// A request is over: nothing is remembered of it.
    pub fn forget(&mut self, owner: Owner) {
        self.found.remove(&owner);
    }

    /// A process is gone, and its engines with it.
    pub fn gone(&mut self, pid: u32) {
        self.ends.retain(|(of, _), _| *of != pid);
        self.found.retain(|_, ((of, _), _)| *of != pid);
    }

    /// Ends of the iterations of engines that are not alone in their process.
    fn several(&self, works: &Works) -> Vec<(EngineKey, Vec<u64>)> {
        // The first engine of a process has the number 0: whoever has another is not alone.
        let mut pids: Vec<u32> = self
            .ends
            .keys()
            .chain(works.keys())
            .filter(|(_, engine)| *engine > 0)
            .map(|(pid, _)| *pid)
            .collect();
        pids.dedup();
        let mut engines: BTreeMap<EngineKey, Vec<u64>> = BTreeMap::new();
        for (key, ends) in self.ends.iter().filter(|((pid, _), _)| pids.contains(pid)) {
            engines.entry(*key).or_default().extend(ends);
        }
        for (key, works) in works.iter().filter(|((pid, _), _)| pids.contains(pid)) {
            engines.entry(*key).or_default().extend(works.iter().map(|work: &GpuWork| work.end_ns));
        }
        engines.into_iter().collect()
    }
}

/// Its tokens are there, or as many of them as can be waited for.
fn shows(passenger: &Passenger<'_>, now_ns: u64) -> bool {
    let request = &*passenger.request;
    let waited = request.first_token_ns.is_some_and(|first_ns| first_ns.saturating_add(WAIT_NS) <= now_ns);
    request.is_inference() && (passenger.is_over || waited || request.deltas >= ENOUGH)
}

/// When which token of a request left; that of an answer which came whole is its end.
fn tokens(request: &Request) -> Vec<(usize, u64)> {
    let times = request.delta_times.iter();
    let mut tokens: Vec<_> =
        times.filter_map(|(token, at_ns)| Some((usize::try_from(token).ok()?, at_ns))).collect();
    if tokens.is_empty() {
        tokens.push((0, request.ended_ns));
    }
    tokens
}

/// The engine whose iterations the tokens follow soonest.
fn best(engines: &[(EngineKey, Vec<u64>)], tokens: &[(usize, u64)]) -> Option<(EngineKey, Evidence)> {
    let one_by_one =
        |ends: &[u64]| in_step(ends, tokens).or_else(|| after(ends, tokens).map(|late| 4.0 * late));
    let mut late: Vec<(f64, EngineKey)> =
        engines.iter().filter_map(|(key, ends)| Some((one_by_one(ends)?, *key))).collect();
    late.sort_by(|one, other| one.0.total_cmp(&other.0));
    let ((first, key), second) = (*late.first()?, late.get(1));
    let is_sure = second.is_none_or(|(second, _)| *second >= SURE * first) && tokens.len() > 1;
    Some((key, if is_sure { Evidence::E2 } else { Evidence::E3 }))
}

/// How long after the ends of iterations tokens leave on average, if each iteration made one; none if one would have left
/// before its iteration.
fn in_step(ends: &[u64], tokens: &[(usize, u64)]) -> Option<f64> {
    let (first, first_ns) = *tokens.first()?;
    let upto = ends.partition_point(|end| *end <= first_ns);
    let late = |begin: usize| -> Option<f64> {
        let late_ns =
            tokens.iter().map(|(token, at_ns)| at_ns.checked_sub(*ends.get(begin + token - first)?));
        let all = late_ns.collect::<Option<Vec<u64>>>()?;
        Some(all.iter().sum::<u64>() as f64 / all.len() as f64)
    };
    (upto.saturating_sub(MOST_BEHIND)..upto).rev().find_map(late)
}

/// How long after the newest iteration tokens leave on average.
fn after(ends: &[u64], tokens: &[(usize, u64)]) -> Option<f64> {
    let newest = |at_ns: u64| ends.get(ends.partition_point(|end| *end <= at_ns).checked_sub(1)?);
    let late_ns = tokens.iter().map(|(_, at_ns)| newest(*at_ns).map(|end| at_ns - end));
    let all = late_ns.collect::<Option<Vec<u64>>>()?;
    Some(all.iter().sum::<u64>() as f64 / all.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two engines whose iterations take as long, now and then a little longer, and who is found of requests that leave
    /// `late` after them at least: the part that is right.
    fn right(tokens_each: usize, late: std::ops::Range<u64>) -> f64 {
        let mut random = fastrand::Rng::with_seed(5);
        let mut engines = Vec::new();
        for engine in 0..2u64 {
            let mut at = 0;
            let next = |_| {
                at += 1_000 + random.u64(0..200);
                at
            };
            engines.push(((1, engine), (0..1000).map(next).collect::<Vec<u64>>()));
        }
        let mut right = 0;
        for round in 0..400 {
            let (key, ends) = &engines[round % 2];
            let begin = random.usize(20..900);
            let leaves = |token: usize| (token, ends[begin + token] + random.u64(late.clone()));
            let tokens: Vec<_> = (0..tokens_each).map(leaves).collect();
            right += usize::from(best(&engines, &tokens).unwrap().0 == *key);
        }
        right as f64 / 400.0
    }

    #[test]
    fn tokens_keep_step_with_the_iterations_of_their_engine() {
        assert!(right(30, 50..400) > 0.99);
        // Five show less, and so do those that are held up for longer than an iteration takes.
        assert!(right(5, 50..400) > 0.85);
        assert!(right(30, 50..3000) > 0.85);
    }

    #[test]
    fn a_token_that_left_before_an_iteration_was_not_made_in_it() {
        assert_eq!(in_step(&[100, 200, 300], &[(0, 110), (1, 190)]), None);
        assert_eq!(in_step(&[100, 200, 300], &[(0, 210), (1, 310)]), Some(10.0));
        assert_eq!(after(&[100, 200, 300], &[(0, 110), (1, 190)]), Some(50.0));
    }
}
