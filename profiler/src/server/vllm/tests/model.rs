//! A small model of vLLM's scheduler against the adapter: batches under way at a time, prompts in parts, requests that lose
//! their place, are given up or stop by themselves, with and without statistics and a ring, heard from the middle on
//! and with pieces missing. The model knows each step; whatever the adapter calls complete must be that step.
//!
//! It follows `EngineCore.step_with_batch_queue`, `Scheduler.schedule` and `update_from_output` of vLLM 0.32: steps end in
//! the order in which they are made; who runs is scheduled first, in the order of admission; who computed its
//! whole prompt has a token in each step; who lost its place is not scheduled before its outputs under way are in.

use std::collections::{BTreeMap, VecDeque};

use super::cases::chunk;
use super::versions::{ms, newest};
use super::*;

/// One way to run an engine, and to listen to it.
#[derive(Clone, Copy, Debug)]
struct Setting {
    /// Steps under way at a time: one, two with asynchronous scheduling, more with pipeline stages.
    depth: usize,
    has_stats: bool,
    has_ring: bool,
    clients: u64,
    /// Step from which on the profiler listens, and that from which on it reads the ring.
    heard_from: u64,
    ring_from: u64,
    /// Of a thousand messages and chunks, how many are lost.
    lost: u64,
    preempts: bool,
}

#[derive(Debug)]
struct Request {
    client: u64,
    prompt: u64,
    most: u64,
    computed: u64,
    /// Tokens of the prompt and of its outputs, those under way included.
    target: u64,
    outputs: u64,
    in_flight: u64,
    cached: Option<u64>,
    events: Vec<(i64, u64)>,
    has_spoken: bool,
    is_over: bool,
}

/// A step as it was made.
#[derive(Clone, Debug, Default)]
struct Made {
    /// When the workers got it.
    start_ns: u64,
    /// Request, tokens, whether its prompt is whole with it.
    members: Vec<(u64, u32, bool)>,
}

struct Model {
    setting: Setting,
    seed: u64,
    now_ns: u64,
    steps: u64,
    slot: u32,
    requests: BTreeMap<u64, Request>,
    running: Vec<u64>,
    waiting: VecDeque<u64>,
    under_way: VecDeque<Made>,
    given_up: Vec<u64>,
    /// By the end of a step: the step.
    truth: BTreeMap<u64, Made>,
    play: Play,
}

const BUDGET: u64 = 48;
const MOST_RUNNING: usize = 4;

fn wire(id: u64) -> String {
    format!("chatcmpl-{id}-{id:08x}")
}

impl Model {
    fn new(setting: Setting, seed: u64) -> Self {
        Self {
            setting,
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            now_ns: ms(0),
            steps: 0,
            slot: 0,
            requests: BTreeMap::new(),
            running: Vec::new(),
            waiting: VecDeque::new(),
            under_way: VecDeque::new(),
            given_up: Vec::new(),
            truth: BTreeMap::new(),
            play: Play::default(),
        }
    }

    /// Below a bound, by chance.
    fn below(&mut self, bound: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 20) % bound
    }

    fn pass(&mut self, most_us: u64) {
        self.now_ns += 2_000 + 1_000 * self.below(most_us);
    }

    fn is_heard(&mut self) -> bool {
        self.steps >= self.setting.heard_from && self.below(1000) >= self.setting.lost
    }

    fn ask(&mut self) {
        let id = self.requests.len() as u64 + 1;
        let (prompt, most) = (1 + self.below(90), 1 + self.below(30));
        let client = self.below(self.setting.clients);
        let request = Request {
            client,
            prompt,
            most,
            computed: 0,
            target: prompt,
            outputs: 0,
            in_flight: 0,
            cached: None,
            events: Vec::new(),
            has_spoken: false,
            is_over: false,
        };
        self.requests.insert(id, request);
        if self.steps >= self.setting.heard_from {
            let asked =
                newest().request_of(&wire(id), None, prompt as usize, Some(most as i64), client as i64);
            self.play.frame(self.now_ns, false, INPUT, true, &[0]);
            self.play.frame(self.now_ns + 100, false, INPUT, false, &asked.bytes());
        }
        self.pass(100);
        let queued_ns = self.now_ns;
        self.requests.get_mut(&id).unwrap().events.push((1, queued_ns));
        self.waiting.push_back(id);
    }

    /// The engine hears of it only when it looks.
    fn give_up(&mut self) {
        let living: Vec<u64> = self.running.iter().chain(&self.waiting).copied().collect();
        // What was given up just before anybody listened, nobody can know.
        if living.is_empty() || self.steps + 1 == self.setting.heard_from {
            return;
        }
        let id = living[self.below(living.len() as u64) as usize];
        if self.steps >= self.setting.heard_from {
            self.play.abort(self.now_ns, &[&wire(id)]);
        }
        self.given_up.push(id);
    }

    fn look(&mut self) {
        for id in std::mem::take(&mut self.given_up) {
            self.leave(id);
        }
    }

    fn leave(&mut self, id: u64) {
        self.running.retain(|other| *other != id);
        self.waiting.retain(|other| *other != id);
        self.requests.get_mut(&id).unwrap().is_over = true;
    }

    /// `Scheduler.schedule`.
    fn schedule(&mut self) -> bool {
        let stamp_ns = self.now_ns;
        self.pass(20);
        if self.setting.preempts && self.running.len() > 1 && self.below(12) == 0 {
            let id = self.running.pop().unwrap();
            let request = self.requests.get_mut(&id).unwrap();
            request.events.push((3, stamp_ns));
            request.computed = 0;
            self.waiting.push_front(id);
        }
        let mut made = Made::default();
        let mut budget = BUDGET;
        for id in self.running.clone() {
            self.plan(id, &mut budget, &mut made);
        }
        while self.running.len() < MOST_RUNNING && budget > 0 {
            let Some(id) = self.waiting.front().copied() else { break };
            let cached_now = self.below(3);
            let request = self.requests.get_mut(&id).unwrap();
            if request.in_flight > 0 {
                break;
            }
            request.target = request.prompt + request.outputs;
            request.computed = (request.target - 1).min(16 * cached_now);
            request.cached.get_or_insert(request.computed);
            request.events.push((2, stamp_ns));
            self.waiting.pop_front();
            self.running.push(id);
            self.plan(id, &mut budget, &mut made);
        }
        self.pass(50);
        made.start_ns = self.now_ns;
        let is_some = !made.members.is_empty();
        self.tell_workers(&made);
        self.under_way.push_back(made);
        is_some
    }

    fn plan(&mut self, id: u64, budget: &mut u64, made: &mut Made) {
        let request = self.requests.get_mut(&id).unwrap();
        let tokens = (request.target - request.computed).min(*budget);
        if tokens == 0 {
            return;
        }
        *budget -= tokens;
        request.computed += tokens;
        request.in_flight += 1;
        let is_whole = request.computed == request.target;
        // The place of the token that comes out; the last one is not computed any more.
        if is_whole && request.target + 1 < request.prompt + request.most {
            request.target += 1;
        }
        made.members.push((id, tokens as u32, is_whole));
    }

    fn tell_workers(&mut self, made: &Made) {
        let members: Vec<_> = made.members.iter().map(|(id, tokens, _)| (wire(*id), *tokens)).collect();
        let members: Vec<_> = members.iter().map(|(id, tokens)| (&**id, *tokens)).collect();
        let is_heard = self.setting.has_ring && self.steps >= self.setting.ring_from;
        for bytes in [chunk(&members), b"\0\0\x01\0\0\0\x05\x80\x05K\x01.".to_vec()] {
            if is_heard && self.is_heard() {
                self.play.ring(self.now_ns, self.slot, &bytes);
            }
            self.slot = (self.slot + 1) % 10;
        }
    }

    /// `Scheduler.update_from_output`, and the messages.
    fn update(&mut self) {
        let made = self.under_way.pop_front().unwrap();
        let last_ns = self.truth.last_key_value().map_or(0, |(end_ns, _)| *end_ns);
        self.now_ns = self.now_ns.max(made.start_ns.max(last_ns) + 300_000);
        self.pass(3000);
        self.look();
        let mut outputs: BTreeMap<u64, Vec<write::Write>> = BTreeMap::new();
        for (id, _, is_whole) in &made.members {
            let stops = self.below(40) == 0;
            let request = self.requests.get_mut(id).unwrap();
            request.in_flight -= 1;
            if request.is_over || !is_whole {
                continue;
            }
            request.outputs += 1;
            let finish = match () {
                () if request.outputs == request.most => Some(1),
                () if stops => Some(0),
                () => None,
            };
            let prefill = (!std::mem::replace(&mut request.has_spoken, true))
                .then(|| (request.prompt as i64, request.cached.unwrap() as i64));
            let events = std::mem::take(&mut request.events);
            let events = if self.setting.has_stats { &events[..] } else { &[] };
            let output = newest().output_of(&wire(*id), 1, finish, events, prefill);
            outputs.entry(request.client).or_default().push(output);
            if finish.is_some() {
                self.leave(*id);
            }
        }
        if self.setting.has_stats && outputs.is_empty() {
            outputs.insert(0, Vec::new());
        }
        let end_ns = self.now_ns;
        // Only where the cache is full is a place lost.
        let usage = if self.setting.preempts { 0.95 } else { 0.5 };
        let (running, waiting) = (self.running.len() as i64, self.waiting.len() as i64);
        let mut stats = self.setting.has_stats.then_some((running, waiting, usage));
        self.pass(100);
        for (number, (client, outputs)) in outputs.into_iter().enumerate() {
            let message = newest().outputs(outputs, stats.take(), end_ns + 2_000 * number as u64);
            if self.is_heard() {
                self.play.frame(
                    self.now_ns + 1000 * number as u64,
                    true,
                    OUTPUT + client,
                    false,
                    &message.bytes(),
                );
            }
        }
        self.truth.insert(end_ns, made);
        self.steps += 1;
    }

    /// `EngineCore.step_with_batch_queue`, until so many steps have ended.
    fn run(mut self, steps: u64) -> Self {
        while self.steps < steps {
            self.pass(60);
            if self.below(6) == 0 && self.waiting.len() < 6 {
                self.ask();
            }
            if self.below(60) == 0 {
                self.give_up();
            }
            if self.running.is_empty() && self.waiting.is_empty() && self.under_way.is_empty() {
                self.look();
                continue;
            }
            let was_made = self.schedule();
            if !(was_made && self.under_way.len() < self.setting.depth) {
                self.update();
            }
        }
        self
    }

    /// How many steps were ended, said, and said to be complete; nothing that was said is wrong.
    fn check(&self) -> (usize, usize, usize) {
        let stories = self.play.stories();
        let number = |inner: &Inner| -> u64 {
            let outer = stories[inner].tie.outer_id.as_deref().unwrap();
            outer.strip_prefix("chatcmpl-").unwrap().parse().unwrap()
        };
        let steps = self.play.steps();
        for step in &steps {
            let (end_ns, made) = self.truth.range(..=step.end_ns + 2).next_back().unwrap();
            assert!(step.end_ns - end_ns < 50_000, "{step:?}");
            let truth: BTreeMap<u64, u32> =
                made.members.iter().map(|(id, tokens, _)| (*id, *tokens)).collect();
            let context = || format!("{:?}\nsaid {step:?}\ntrue {made:?}", self.setting);
            for member in step.members.iter().filter(|member| member.evidence == Evidence::E0) {
                let tokens = truth.get(&number(&member.inner));
                // Without statistics nobody says that a request lost its place.
                let is_right =
                    |tokens: &u32| [0, *tokens].contains(&member.computed) || !self.setting.has_stats;
                assert!(tokens.is_some_and(is_right), "{}", context());
            }
            assert!(step.start_ns.is_none_or(|start_ns| start_ns == made.start_ns), "{}", context());
            if step.is_complete {
                let members: Vec<u64> = step.members.iter().map(|member| number(&member.inner)).collect();
                assert!(
                    members.len() == truth.len() && members.iter().all(|id| truth.contains_key(id)),
                    "{}",
                    context()
                );
                let tokens: u64 = truth.values().copied().map(u64::from).sum();
                assert!(step.tokens.is_none_or(|said| said == tokens), "{}", context());
            }
        }
        let health = self.play.adapter.health();
        assert!(self.setting.lost > 0 || health.failed == 0, "{health:?}");
        let busy = self.truth.values().filter(|made| !made.members.is_empty()).count();
        (busy, steps.len(), steps.iter().filter(|step| step.is_complete).count())
    }
}

const USUAL: Setting = Setting {
    depth: 1,
    has_stats: true,
    has_ring: true,
    clients: 1,
    heard_from: 0,
    ring_from: 0,
    lost: 0,
    preempts: true,
};

/// Shares of steps that were said, and said to be complete, in percent.
fn shares(setting: Setting) -> (usize, usize) {
    let (mut busy, mut said, mut complete) = (0, 0, 0);
    for seed in 1..=40 {
        let counts = Model::new(setting, seed).run(300).check();
        (busy, said, complete) = (busy + counts.0, said + counts.1, complete + counts.2);
    }
    let shares = (100 * said / busy, 100 * complete / busy);
    println!("{setting:?}: {} % said, {} % complete", shares.0, shares.1);
    shares
}

#[test]
fn edge_30_no_step_is_told_with_a_neighbours_schedule() {
    for depth in [1, 2, 4] {
        let setting = Setting { depth, ..USUAL };
        for clients in [1, 2] {
            let (said, complete) = shares(Setting { clients, ..setting });
            assert!(said >= 99 && complete >= 95, "{said} {complete}");
        }
        let (_, complete) = shares(Setting { preempts: false, ..setting });
        assert!(complete >= 95, "{complete}");
    }
}

#[test]
fn edge_30_who_comes_late_says_nothing_wrong() {
    for depth in [1, 2, 4] {
        let setting = Setting { depth, ..USUAL };
        // Pipeline stages come with a ring, which is found as soon as anything is heard.
        let whens: &[_] = if depth > 2 { &[(37, 37), (20, 20)] } else { &[(37, 37), (0, 41), (20, 60)] };
        for (heard_from, ring_from) in whens.iter().copied() {
            let (_, complete) = shares(Setting { heard_from, ring_from, ..setting });
            assert!(complete >= 60, "{complete}");
        }
    }
}

#[test]
fn edge_31_without_statistics_less_is_complete_and_nothing_wrong() {
    for depth in [1, 2, 4] {
        for clients in [1, 2] {
            shares(Setting { depth, clients, has_stats: false, ..USUAL });
        }
    }
}

#[test]
fn edge_31_without_a_ring_less_is_complete_and_nothing_wrong() {
    for depth in [1, 2] {
        for preempts in [false, true] {
            for clients in [1, 2] {
                shares(Setting { depth, preempts, clients, has_ring: false, ..USUAL });
            }
        }
    }
}

#[test]
fn edge_32_what_is_lost_makes_nothing_wrong() {
    for depth in [1, 2] {
        for clients in [1, 2] {
            shares(Setting { depth, clients, lost: 10, ..USUAL });
        }
    }
}
