//! What engines have in hand → metrics: requests that run and wait, and the KV cache that they fill.
//!
//! In: requests under way, finished ones, iterations, and models' shapes. Out: points of the whole target group. Where an
//! engine reports how many it runs, its word stands (`inside.rs`) and nothing is inferred. The tokens of a prompt are
//! known once its answer is there; until then they are estimated by those of earlier prompts of the model.

use super::catalog::{self, attribute as name};
use super::{Compat, Target, level};
use crate::correlate::{Engine, Evidence, Iteration, Request};
use crate::server::Limits;
use crate::span::model::text;
use std::collections::HashMap;

/// Models that are told apart; callers may invent names.
const MOST_MODELS: usize = 64;
/// Engines that are told of; a process has a few.
const MOST_ENGINES: usize = 1024;
/// An engine that is told of and had no iteration for so long runs nothing.
const IDLE_NS: u64 = 1_000_000_000;

/// Requests in hand.
#[derive(Debug, Default)]
pub struct Load {
    models: HashMap<String, Model>,
    /// End and members of the newest iteration of each engine that is told of.
    newest: HashMap<(u32, u64), (u64, u64)>,
    /// Numbers were inferred, and are told as long as nobody says them.
    inferred: bool,
}

/// What is known of a model.
#[derive(Clone, Copy, Debug, Default)]
struct Model {
    /// Bytes of requests, and the tokens of their prompts.
    prompts: (u64, u64),
    /// Its shape has been looked for.
    asked: bool,
    /// Bytes of KV cache that a token takes.
    kv_bytes: Option<u64>,
}

/// Memory of the KV cache, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Filled.
    pub used_bytes: u64,
    /// Not filled, where the size of the cache is known.
    pub free_bytes: Option<u64>,
}

impl Load {
    /// Learns from a finished request.
    pub fn finished(&mut self, request: &Request) {
        let tokens = request.request_bytes.zip(request.usage.input);
        if let Some(((bytes, tokens), model)) = tokens.zip(self.model(request)) {
            model.prompts.0 += bytes;
            model.prompts.1 += tokens;
        }
    }

    /// Models under way that are named for the first time, and the process that serves each: their shape should be looked
    /// for.
    pub fn new_models(&mut self, engine: &Engine) -> Vec<(u32, String)> {
        engine.connections().under_way().filter_map(|request| self.new_model(request)).collect()
    }

    /// The same of one request: it may have come and gone between two looks.
    pub fn new_model(&mut self, request: &Request) -> Option<(u32, String)> {
        let is_new = !std::mem::replace(&mut self.model(request)?.asked, true);
        let name = request.facts.model.as_ref().filter(|_| is_new)?;
        Some((request.pid, name.clone()))
    }

    fn model(&mut self, request: &Request) -> Option<&mut Model> {
        let name = request.facts.model.as_ref().filter(|_| request.is_inference())?;
        if !self.models.contains_key(name) && self.models.len() < MOST_MODELS {
            self.models.insert(name.clone(), Model::default());
        }
        self.models.get_mut(name)
    }

    /// Bytes of KV cache that a token of a model takes.
    pub fn shape(&mut self, model: &str, kv_bytes: u64) {
        if let Some(model) = self.models.get_mut(model) {
            model.kv_bytes = Some(kv_bytes);
        }
    }

    /// Takes an iteration that an engine told.
    pub fn iteration(&mut self, iteration: &Iteration) {
        let members = iteration.step.members.len() as u64;
        let engine = (iteration.pid, iteration.step.engine);
        let has_room = self.newest.len() < MOST_ENGINES || self.newest.contains_key(&engine);
        if members > 0 && has_room && !iteration.step.failed {
            self.newest.insert(engine, (iteration.step.end_ns, members));
        }
    }

    /// A process is gone.
    pub fn forget(&mut self, pid: u32) {
        self.newest.retain(|(of, _), _| *of != pid);
    }

    /// What is in hand at `now_ns` (`CLOCK_MONOTONIC`).
    pub fn tell(
        &mut self,
        target: &Target,
        engine: &Engine,
        limits: Limits,
        compat: Option<Compat>,
        now_ns: u64,
    ) {
        let of = |gauge: fn(&crate::server::said::Gauges) -> Option<u64>| -> Option<u64> {
            engine.inside().gauges().filter_map(|(_, gauges)| gauge(gauges)).reduce(|sum, more| sum + more)
        };
        let told = of(|gauges| gauges.running).zip(of(|gauges| gauges.waiting));
        let counts = told.unwrap_or_else(|| self.infer(engine, now_ns));
        self.show_inferred(target, if told.is_some() { (0, 0) } else { counts });
        let held = self.held(engine, limits);
        if let Some(held) = held {
            for (state, bytes) in [("used", Some(held.used_bytes)), ("free", held.free_bytes)] {
                let evidence = (name::GPUSPAN_EVIDENCE, text(Evidence::E3.name()));
                let attributes = [(name::GPUSPAN_KV_CACHE_STATE, text(state)), evidence];
                if let Some(bytes) = bytes {
                    target.handle(&catalog::ENGINE_KV_MEMORY, &attributes).set(level(bytes));
                }
            }
        }
        if let Some(compat) = compat {
            compat.load(target, counts, held.as_ref());
        }
    }

    /// How many requests run and wait, where no engine says it.
    fn infer(&self, engine: &Engine, now_ns: u64) -> (u64, u64) {
        let under_way = || engine.connections().under_way().filter(|request| is_in_hand(request));
        let running = if self.newest.is_empty() {
            under_way().filter(|request| runs(request)).count() as u64
        } else {
            let fresh = self.newest.values().filter(|(end_ns, _)| now_ns.saturating_sub(*end_ns) < IDLE_NS);
            fresh.map(|(_, members)| members).sum()
        };
        (running, (under_way().count() as u64).saturating_sub(running))
    }

    /// Nothing, until there is something: an engine that reports these has said so by then, and none of them is left.
    fn show_inferred(&mut self, target: &Target, (running, waiting): (u64, u64)) {
        self.inferred |= running + waiting > 0;
        if !self.inferred {
            return;
        }
        let evidence = [(name::GPUSPAN_EVIDENCE, text(Evidence::E2.name()))];
        target.handle(&catalog::ENGINE_RUNNING, &evidence).set(level(running));
        target.handle(&catalog::ENGINE_WAITING, &evidence).set(level(waiting));
    }

    /// What running requests hold of the KV cache, where a model's shape is known.
    fn held(&self, engine: &Engine, limits: Limits) -> Option<Held> {
        let each = self.models.values().find_map(|model| model.kv_bytes)?;
        let running = engine.connections().under_way().filter(|request| is_in_hand(request) && runs(request));
        let used_bytes = running.map(|request| self.held_by(request, limits)).sum();
        let size = limits.cache_tokens.map(|tokens| tokens.saturating_mul(each));
        Some(Held { used_bytes, free_bytes: size.map(|size| size.saturating_sub(used_bytes)) })
    }

    fn held_by(&self, request: &Request, limits: Limits) -> u64 {
        let Some(model) = request.facts.model.as_ref().and_then(|model| self.models.get(model)) else {
            return 0;
        };
        let (bytes, tokens) = model.prompts;
        let guess = request.request_bytes.map_or(0, |asked| asked.saturating_mul(tokens) / bytes.max(1));
        let tokens = request.usage.input.unwrap_or(guess) + request.deltas;
        let block = limits.block_tokens.unwrap_or(1).max(1);
        tokens.div_ceil(block).saturating_mul(block).saturating_mul(model.kv_bytes.unwrap_or(0))
    }
}

/// It has arrived and asks for a model's work.
fn is_in_hand(request: &Request) -> bool {
    request.is_inference() && request.arrived_ns.is_some()
}

fn runs(request: &Request) -> bool {
    request.first_token_ns.is_some() || request.ride.first_step_ns.is_some()
}
