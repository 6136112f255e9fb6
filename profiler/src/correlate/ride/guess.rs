//! Who rode in an iteration of which only the GPU work is known: whose tokens left after it.
//!
//! An engine makes a token a sequence and iteration, and the token leaves right after the iteration's last wait. So who
//! streams rides in every iteration from that before its first token to that before its last. Who streams nothing rides
//! in as many iterations before its answer as that has tokens; while the answer is not there it shows by how many samples
//! are copied back beyond those of the others. Before its first token a request waits or has its prompt computed, in
//! order of arrival: more bytes go to the GPU then than those who generate need. Where only one reading fits, the
//! evidence is E2; else it is a share, E3.

use super::GpuWork;
use super::align::EngineKey;
use super::habits::{Habits, copied};
use crate::correlate::request::{Outcome, Owner, Request};
use crate::evidence::Evidence;
use crate::http::Streaming;
use crate::probe::Direction;
use crate::server::said::Part;
use std::cmp::Reverse;
use std::collections::HashMap;

/// A request that may have ridden.
#[derive(Debug)]
pub struct Passenger<'a> {
    /// It.
    pub request: &'a mut Request,
    /// Its last byte has left, or it was given up.
    pub is_over: bool,
    /// The only engine of several that it rides in, and how sure that is.
    pub engine: Option<(EngineKey, Evidence)>,
}

impl<'a> Passenger<'a> {
    /// One that may ride in any engine.
    pub fn new(request: &'a mut Request, is_over: bool) -> Self {
        Self { request, is_over, engine: None }
    }
}

/// How long a request was, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizes {
    /// Bytes of what asked.
    pub bytes: Option<u64>,
    /// Tokens of its prompt that had to be computed.
    pub prompt: Option<u64>,
    /// Tokens that it generated.
    pub generated: Option<u64>,
}

impl Sizes {
    /// Those of a request that is over.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        let prompt = request.computed_input_tokens();
        Self { bytes: request.request_bytes, prompt, generated: request.usage.output }
    }
}

/// Who rode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its place among the passengers.
    pub index: usize,
    /// What the iteration did for it.
    pub part: Part,
    /// Tokens that were processed for it, as far as it can be told.
    pub tokens: u32,
    /// How sure this is.
    pub evidence: Evidence,
}

/// What is known of engines and of those who rode in them.
#[derive(Debug, Default)]
pub struct Guesses {
    known: HashMap<(Owner, EngineKey), Known>,
    engines: HashMap<EngineKey, Habits>,
}

/// What is known of a request in an engine.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// It has made a token.
    generates: bool,
    /// That is concluded from its answer, which came whole.
    concluded: bool,
    /// Iterations that made one for it.
    ridden: u64,
    /// Bytes beyond those of the others that went to the GPU for its prompt.
    prompt_bytes: f64,
    /// These are not all of them.
    is_part: bool,
    /// Some went together with those of another prompt.
    is_mixed: bool,
    /// Tokens of its prompt that were computed, as far as it can be told.
    prompt_tokens: f64,
}

/// How long an engine goes on with a request whose client has left: it looks now and then, and is a step ahead.
const LINGERS_NS: u64 = 50_000_000;

/// How late a token leaves at most that is looked for in an earlier step than its time says.
const HELD_UP_NS: u64 = 30_000_000;

/// An answer with fewer tokens tells little of how many pieces of work there are for a token.
const FEW: u64 = 8;

/// Where a request stands as an iteration ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It makes tokens.
    Generates,
    /// Its first token left after this iteration and before the next.
    Begins,
    /// It has no token yet.
    Waits,
    /// It streams nothing: it may wait or generate.
    Silent,
    /// Its client has left; the engine may not know it yet.
    Leaves,
    /// It does not ride.
    Away,
}

impl Guesses {
    /// Who rode in a piece of work of an engine; `later` are those after it, as far as they are known.
    pub fn riders(
        &mut self,
        key: EngineKey,
        work: &GpuWork,
        later: &[GpuWork],
        passengers: &[Passenger<'_>],
    ) -> Vec<Found> {
        let mut order: Vec<usize> = (0..passengers.len()).collect();
        order.sort_by_key(|index| passengers.get(*index).and_then(|passenger| passenger.request.arrived_ns));
        let mut standing: Vec<(usize, Owner, Standing)> = Vec::with_capacity(order.len());
        for index in order {
            let Some(passenger) = passengers.get(index) else { continue };
            if passenger.engine.is_some_and(|(rides_in, _)| rides_in != key) {
                continue;
            }
            let owner = passenger.request.owner();
            let mut known = self.known.get(&(owner, key)).copied().unwrap_or_default();
            let single =
                self.engines.get(&key).and_then(|engine| engine.pieces).is_none_or(|each| each < 1.2);
            let mut stands = stands(passenger, (known, single), work, later);
            if stands == Standing::Silent
                && single
                && let Some(better) = concluded(passenger, known, later)
            {
                stands = better;
                known.concluded = true;
                self.known.insert((owner, key), known);
            }
            if stands != Standing::Away {
                standing.push((index, owner, stands));
            }
        }
        let engine = self.engines.entry(key).or_default();
        let known = &mut self.known;
        let mut board = Boarding { key, work, engine, known, passengers, standing, found: Vec::new() };
        board.judge();
        board.generating();
        board.silent();
        board.prompts();
        board.learn();
        let Boarding { mut found, .. } = board;
        for found in &mut found {
            let engine = passengers.get(found.index).and_then(|passenger| passenger.engine);
            found.evidence = found.evidence.max(engine.map_or(found.evidence, |(_, evidence)| evidence));
        }
        found
    }

    /// How an engine moves bytes is not known yet, and may be soon.
    pub fn is_new(&self, key: EngineKey) -> bool {
        self.engines.get(&key).is_none_or(Habits::is_new)
    }

    /// Learns how a new engine moves bytes from the pieces of its work that are settled, in order, so that who rode in the
    /// first of them is found as well as in the last.
    pub fn study(&mut self, key: EngineKey, works: &[GpuWork], settled: usize, passengers: &[Passenger<'_>]) {
        let Some(last) = settled.checked_sub(1).and_then(|last| works.get(last)) else { return };
        let known = self.known.clone();
        let over =
            |passenger: &&Passenger<'_>| passenger.is_over && passenger.request.ended_ns <= last.end_ns;
        loop {
            let was_new = self.is_new(key);
            for (index, work) in works.iter().enumerate().take(settled) {
                self.riders(key, work, works.get(index + 1..).unwrap_or_default(), passengers);
            }
            for passenger in passengers.iter().filter(over) {
                self.forget(passenger.request.owner(), Sizes::of(passenger.request));
            }
            self.known.clone_from(&known);
            // What prompts take shows once it is known what those take who generate.
            if !was_new || self.is_new(key) {
                return;
            }
        }
    }

    /// A process is gone, and its engines with it.
    pub fn gone(&mut self, pid: u32) {
        self.engines.retain(|(of, _), _| *of != pid);
    }

    /// How much is kept.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.known.len() + self.engines.len()
    }

    /// A request is over. What was known of it tells of the next ones.
    pub fn forget(&mut self, owner: Owner, Sizes { bytes, prompt, generated }: Sizes) {
        let Self { known, engines } = self;
        known.retain(|(of, key), known| {
            if *of != owner {
                return true;
            }
            if let (Some(tokens @ FEW..), false, Some(engine)) =
                (generated, known.concluded, engines.get_mut(key))
            {
                let each = known.ridden as f64 / tokens as f64;
                engine.pieces = Some(engine.pieces.map_or(each, |old| old * 0.75 + each * 0.25));
            }
            if let (Some(tokens @ 1..), Some(engine)) = (prompt, engines.get_mut(key))
                && known.prompt_bytes > 0.0
                && !known.is_part
            {
                engine.mixed.see(known.prompt_bytes, tokens as f64);
                engine.lengths.see(bytes.unwrap_or(0) as f64, tokens as f64);
            }
            false
        });
    }
}

/// `single`: there is one piece of work for a token.
fn stands(
    passenger: &Passenger<'_>,
    (known, single): (Known, bool),
    work: &GpuWork,
    later: &[GpuWork],
) -> Standing {
    let request = &*passenger.request;
    let arrived = request.arrived_ns.is_some_and(|at| at <= work.start_ns);
    if !request.is_inference() || !arrived {
        return Standing::Away;
    }
    if passenger.is_over
        && request.outcome == Outcome::Aborted
        && (request.ended_ns < work.end_ns || known.generates)
        && request.last_token_ns.is_none_or(|last| last < work.end_ns)
    {
        let lately = work.start_ns <= request.ended_ns.saturating_add(LINGERS_NS);
        return if lately && known.generates { Standing::Leaves } else { Standing::Away };
    }
    if passenger.is_over && request.ended_ns < work.start_ns {
        return Standing::Away;
    }
    if request.streaming == Streaming::None && request.first_token_ns.is_none() {
        let is_answered = passenger.is_over && request.ended_ns < work.end_ns;
        return if is_answered { Standing::Away } else { Standing::Silent };
    }
    let Some(first_ns) = request.first_token_ns else {
        return if passenger.is_over { Standing::Away } else { Standing::Waits };
    };
    let has_begun = known.generates || first_ns < work.end_ns;
    match (has_begun, later.first().map(|next| next.end_ns)) {
        (false, Some(next_ns)) if next_ns <= first_ns => Standing::Waits,
        (false, _) => Standing::Begins,
        (true, _) => {
            let all = request.usage.output.unwrap_or(request.deltas).max(request.deltas);
            let done = single && passenger.is_over && known.ridden >= all.max(1);
            let silent = request.last_token_ns.is_none_or(|last| last < work.end_ns);
            if done || silent { Standing::Away } else { Standing::Generates }
        }
    }
}

/// Where a request stands whose answer came whole and is there: it rode in the last iterations before that, one for each
/// token. None while the answer is not there, and where it had made a token before these.
fn concluded(passenger: &Passenger<'_>, known: Known, later: &[GpuWork]) -> Option<Standing> {
    let request = &*passenger.request;
    let tokens = request.usage.output.filter(|tokens| passenger.is_over && *tokens > 0)?;
    let left = 1 + later.partition_point(|work| work.end_ns <= request.ended_ns) as u64;
    match (known.generates, left <= tokens) {
        (true, true) => Some(Standing::Generates),
        (false, true) => Some(Standing::Begins),
        (true, false) => None,
        (false, false) => Some(Standing::Waits),
    }
}

/// An iteration that is being filled.
struct Boarding<'a, 'b> {
    key: EngineKey,
    work: &'a GpuWork,
    engine: &'a mut Habits,
    known: &'a mut HashMap<(Owner, EngineKey), Known>,
    passengers: &'a [Passenger<'b>],
    /// By arrival.
    standing: Vec<(usize, Owner, Standing)>,
    found: Vec<Found>,
}

impl Boarding<'_, '_> {
    /// Those whose tokens left after it.
    fn generating(&mut self) {
        let samples = self.engine.samples(self.work);
        let sure = self.count(Standing::Generates) + self.count(Standing::Begins);
        let mut more = samples.map_or(0, |samples| samples.saturating_sub(sure));
        if self.count(Standing::Silent) > 0 {
            more = 0;
        }
        // First those whose tokens go nowhere any more, the last to leave first; then those whose first token was held up
        // on its way out.
        let until_ns = self.work.end_ns.saturating_add(HELD_UP_NS);
        let request = |index: usize| self.passengers.get(index).map(|of| &*of.request);
        let mut leave = self.those(Standing::Leaves);
        leave.sort_by_key(|(index, _)| Reverse(request(*index).map(|request| request.ended_ns)));
        let mut held_up = self.those(Standing::Waits);
        held_up.retain(|(index, _)| {
            request(*index).and_then(|of| of.first_token_ns).is_some_and(|at| at <= until_ns)
        });
        for (those, to) in [(leave, Standing::Generates), (held_up, Standing::Begins)] {
            for (index, _) in those {
                if more > 0 {
                    self.stand(index, to);
                    more -= 1;
                }
            }
        }
        for (index, owner, standing) in self.standing.clone() {
            if standing == Standing::Generates {
                self.sample(index, owner, Evidence::E2);
            }
        }
    }

    /// Those who stream nothing: as many as samples are left, who generates before who waits, the first to arrive first.
    fn silent(&mut self) {
        let silent: Vec<(usize, Owner)> = self.those(Standing::Silent);
        if silent.is_empty() {
            return;
        }
        let streaming = self.found.len() as u64 + self.count(Standing::Begins);
        let Some(samples) = self.engine.samples(self.work) else {
            // Nothing tells them apart: each may have ridden.
            return silent.into_iter().for_each(|(index, owner)| self.sample(index, owner, Evidence::E3));
        };
        let left = usize::try_from(samples.saturating_sub(streaming)).unwrap_or(usize::MAX);
        let (running, waiting): (Vec<_>, Vec<_>) =
            silent.into_iter().partition(|(_, owner)| self.knows(*owner).generates);
        let begin: Vec<_> = waiting.into_iter().take(left.saturating_sub(running.len())).collect();
        running.into_iter().take(left).for_each(|(index, owner)| self.sample(index, owner, Evidence::E2));
        begin.into_iter().for_each(|(index, _)| self.stand(index, Standing::Begins));
        // The others wait, as those do who will stream.
        for (index, _, standing) in &mut self.standing {
            if *standing == Standing::Silent && !self.found.iter().any(|found| found.index == *index) {
                *standing = Standing::Waits;
            }
        }
    }

    /// Prompts: of those whose first token is made here, and perhaps a part of the next one's.
    fn prompts(&mut self) {
        let begin = self.those(Standing::Begins);
        let waiting = self.those(Standing::Waits);
        let extra = self.engine.extra(self.work, self.found.len() as u64);
        let alone = self.found.is_empty() && begin.is_empty();
        let is_full = self.engine.is_full(self.work);
        let has_prompt = extra.map_or(alone, |(bytes, each)| bytes > 1.5 * each);
        let more = if begin.is_empty() { has_prompt || is_full } else { is_full };
        let next = waiting.first().filter(|_| more).copied();
        let riders: Vec<_> = begin.iter().copied().chain(next).collect();
        let tokens = self.prompt_tokens(&riders, begin.len(), extra);
        let all = tokens_of(&tokens);
        for (place, ((index, owner), tokens)) in riders.iter().zip(&tokens).enumerate() {
            let begins = place < begin.len();
            let known = self.known.entry((*owner, self.key)).or_default();
            known.prompt_bytes += extra.map_or(0.0, |(bytes, _)| bytes * tokens / all);
            known.is_part |= extra.is_none();
            known.is_mixed |= riders.len() > 1;
            known.prompt_tokens += tokens;
            if begins {
                known.generates = true;
                known.ridden += 1;
            }
            let known = *known;
            if let Some(prompt) = self.prompt(*index).filter(|_| begins && !known.is_part && !known.is_mixed)
            {
                self.engine.see_prompt(known.prompt_bytes, prompt);
            }
            let evidence = if begins { Evidence::E2 } else { Evidence::E3 };
            let tokens = tokens.round().clamp(1.0, f64::from(u32::MAX)) as u32;
            self.found.push(Found { index: *index, part: Part::Prefill, tokens, evidence });
        }
    }

    /// Tokens of each of those whose prompts are computed; the first `begin` of them end theirs here, and the last may
    /// have what is left.
    fn prompt_tokens(&self, riders: &[(usize, Owner)], begin: usize, extra: Option<(f64, f64)>) -> Vec<f64> {
        let mut tokens: Vec<f64> = riders.iter().map(|rider| self.prompt_left(*rider)).collect();
        let Some((bytes, each)) = extra else { return tokens };
        let each = self.engine.prompt_bytes().unwrap_or(each);
        let all = (bytes / each.max(1.0)).max(1.0);
        // Who ends a prompt of known length here has what was left of it.
        let is_open = |place: usize| {
            place >= begin || riders.get(place).is_none_or(|(index, _)| self.prompt(*index).is_none())
        };
        let (mut open, mut sure) = (0.0, 0.0);
        for (place, tokens) in tokens.iter().enumerate() {
            *if is_open(place) { &mut open } else { &mut sure } += tokens;
        }
        let rest = (all - sure).max(1.0);
        match tokens.last_mut().filter(|_| begin < riders.len()) {
            // Who does not end its prompt here takes what the others leave.
            Some(last) if open - *last < rest => *last += rest - open,
            _ => {
                let scaled = tokens.iter_mut().enumerate().filter(|(place, _)| is_open(*place));
                scaled.for_each(|(_, tokens)| *tokens = (*tokens * rest / open).max(1.0));
            }
        }
        tokens
    }

    /// Tokens of a prompt that are still to be computed: as its answer says, or as long as what asked makes it.
    fn prompt_left(&self, (index, owner): (usize, Owner)) -> f64 {
        let body = self.body(index);
        let likely = || self.engine.lengths.fit().map_or(body, |(height, slope)| height + slope * body);
        let whole = self.prompt(index).unwrap_or_else(likely);
        (whole - self.knows(owner).prompt_tokens).max(1.0)
    }

    /// Tokens of a prompt that have to be computed, where that is said.
    fn prompt(&self, index: usize) -> Option<f64> {
        Some(self.passengers.get(index)?.request.computed_input_tokens()? as f64)
    }

    /// What this iteration tells of the engine.
    fn learn(&mut self) {
        let sure = self.found.iter().all(|found| found.evidence <= Evidence::E2);
        let begun = self.found.iter().filter(|found| found.part == Part::Prefill).count();
        let making = self.those(Standing::Begins).len() as u64 + self.count(Standing::Generates);
        self.engine.seen += 1;
        if self.found.is_empty() {
            return;
        }
        let (_, bytes) = copied(self.work, Direction::HtoD);
        self.engine.most = self.engine.most.max(bytes as f64);
        if begun == 0 || !sure {
            self.engine.see_inputs(making, bytes as f64);
        }
    }

    /// How many made a token: those who stream surely, the others perhaps.
    fn judge(&mut self) {
        let sure = self.count(Standing::Generates) + self.count(Standing::Begins);
        let perhaps =
            self.count(Standing::Silent) + self.count(Standing::Waits) + self.count(Standing::Leaves);
        if sure + perhaps > 0 {
            self.engine.see_samples(self.work, (sure, sure + perhaps));
        }
    }

    /// A request makes a token.
    fn sample(&mut self, index: usize, owner: Owner, evidence: Evidence) {
        let known = self.known.entry((owner, self.key)).or_default();
        known.generates = true;
        known.ridden += 1;
        self.found.push(Found { index, part: Part::Decode, tokens: 1, evidence });
    }

    /// It is known better where one stands.
    fn stand(&mut self, index: usize, stands: Standing) {
        let found = self.standing.iter_mut().find(|(of, ..)| *of == index);
        found.into_iter().for_each(|(.., standing)| *standing = stands);
    }

    fn knows(&self, owner: Owner) -> Known {
        self.known.get(&(owner, self.key)).copied().unwrap_or_default()
    }

    fn count(&self, which: Standing) -> u64 {
        self.standing.iter().filter(|(.., standing)| *standing == which).count() as u64
    }

    fn those(&self, which: Standing) -> Vec<(usize, Owner)> {
        let those = self.standing.iter().filter(|(.., standing)| *standing == which);
        those.map(|(index, owner, _)| (*index, *owner)).collect()
    }

    /// How long a prompt is beside others, as far as it can be told before its tokens are counted: the size of what
    /// asked.
    fn body(&self, index: usize) -> f64 {
        let request = self.passengers.get(index).map(|passenger| &*passenger.request);
        request.and_then(|request| request.request_bytes).unwrap_or(1).max(1) as f64
    }
}

fn tokens_of(tokens: &[f64]) -> f64 {
    tokens.iter().sum::<f64>().max(1.0)
}
