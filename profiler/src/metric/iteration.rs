//! Iterations of engines → metrics: how long, how many, how full, and what the GPU did for whom.
//!
//! In: settled [`Iteration`]s. Out: points under their process's resource. An engine's batch size limit is its command
//! line's; where that says nothing, the fullest iteration so far stands for it, and the point says so.

use super::catalog::{self, attribute as name};
use super::{Compat, Registry, Target};
use crate::correlate::{GpuWork, Iteration};
use crate::server::Limits;
use crate::server::said::Part;
use crate::span::model::{Attribute, Resource, Value, text};
use std::collections::HashMap;
use std::sync::Arc;

/// Engines whose fullest iteration is kept; further ones have no fill. A process has a few.
const MOST_ENGINES: usize = 1024;

/// What is known of the engines of a target group.
#[derive(Debug, Default)]
pub struct Iterations {
    /// What their command lines say.
    pub limits: Limits,
    /// Other names for the same.
    pub compat: Option<Compat>,
    fullest: HashMap<(u32, u64), u64>,
}

/// What an iteration processed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Batch {
    /// Sequences in it.
    pub members: u64,
    /// Tokens of prompts.
    pub prefill: u64,
    /// Tokens of sequences that generate.
    pub decode: u64,
    /// Tokens of all: may be more than both, where not all members are known.
    pub tokens: u64,
    /// Share of the most that it may have, and where that is known from.
    pub fill: Option<(f64, &'static str)>,
}

impl Iterations {
    /// Takes an iteration, under its process's resource.
    pub fn take(
        &mut self,
        registry: &Registry,
        resource: &Arc<Resource>,
        iteration: &Iteration,
        now_ns: u64,
    ) {
        // A failed attempt is made again.
        if iteration.step.failed {
            return;
        }
        let target = registry.target(resource, now_ns);
        if let Some(gpu) = &iteration.gpu {
            busy(&target, iteration, gpu);
        }
        // Work of nobody is no iteration.
        if iteration.step.members.is_empty() && iteration.riders.is_empty() {
            return;
        }
        let batch = self.batch(iteration);
        record(&target, iteration, &batch);
        if let Some(compat) = &self.compat {
            compat.iteration(&target, &batch);
        }
    }

    fn batch(&mut self, iteration: &Iteration) -> Batch {
        let mut batch = Batch::of(iteration);
        let engine = (iteration.pid, iteration.step.engine);
        if batch.tokens == 0 || self.fullest.len() >= MOST_ENGINES && !self.fullest.contains_key(&engine) {
            return batch;
        }
        let fullest = self.fullest.entry(engine).or_default();
        *fullest = batch.tokens.max(*fullest);
        let is_told = !iteration.step.members.is_empty();
        batch.fill = Some(match self.limits.batch_tokens {
            // What is inferred may be too much.
            Some(most) if !is_told => (share(batch.tokens.min(most), most), "command_line"),
            Some(most) if most >= *fullest => (share(batch.tokens, most), "command_line"),
            // A limit that was exceeded is not the one that we think it is.
            _ => (share(batch.tokens, *fullest), "largest_seen"),
        });
        batch
    }

    /// A process is gone; another may get its number.
    pub fn forget(&mut self, pid: u32) {
        self.fullest.retain(|(of, _), _| *of != pid);
    }
}

fn share(tokens: u64, most: u64) -> f64 {
    tokens as f64 / most as f64
}

impl Batch {
    fn of(iteration: &Iteration) -> Self {
        let step = &iteration.step;
        let told = step.members.iter().map(|member| (member.part, u64::from(member.computed.max(1))));
        let seen = iteration.riders.iter().map(|rider| (rider.part, u64::from(rider.tokens)));
        let sum = |part: Part| {
            let of = |found: &(Part, u64)| found.0 == part;
            if step.members.is_empty() {
                seen.clone().filter(of).map(|(_, tokens)| tokens).sum::<u64>()
            } else {
                told.clone().filter(of).map(|(_, tokens)| tokens).sum()
            }
        };
        let (prefill, decode, unknown) = (sum(Part::Prefill), sum(Part::Decode), sum(Part::Unknown));
        Self {
            members: step.members.len().max(iteration.riders.len()) as u64,
            prefill,
            decode,
            tokens: step.tokens.unwrap_or(prefill + decode + unknown),
            fill: None,
        }
    }

    /// Decode tokens a prefill token; none without a prompt.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        (self.prefill > 0).then(|| self.decode as f64 / self.prefill as f64)
    }
}

fn record(target: &Target, iteration: &Iteration, batch: &Batch) {
    let adapter = (name::GPUSPAN_ADAPTER, text(iteration.adapter));
    let by_adapter = std::slice::from_ref(&adapter);
    target.record(&catalog::ENGINE_STEP_MEMBERS, by_adapter, batch.members as f64, None);
    if let Some(tokens) = iteration.step.tokens {
        target.record(&catalog::ENGINE_STEP_TOKENS, by_adapter, tokens as f64, None);
    }
    for (part, tokens) in [(Part::Prefill, batch.prefill), (Part::Decode, batch.decode)] {
        let attributes = [(name::GPUSPAN_PART, text(part.name())), adapter.clone()];
        target.add(&catalog::ENGINE_PROCESSED, &attributes, tokens);
    }
    if let Some(ratio) = batch.ratio() {
        target.handle(&catalog::ENGINE_RATIO, by_adapter).set(ratio);
    }
    if let Some((fill, from)) = batch.fill {
        let attributes = [adapter.clone(), (name::GPUSPAN_CAPACITY, text(from))];
        target.record(&catalog::ENGINE_FILL, &attributes, fill, None);
    }
    if let Some(start_ns) = began_ns(iteration) {
        let phase = match (batch.prefill, batch.decode) {
            (1.., 1..) => "mixed",
            (1.., 0) => "prefill",
            (0, 1..) => "decode",
            (0, 0) => "unknown",
        };
        let attributes = [adapter, (name::GPUSPAN_STEP_PHASE, text(phase))];
        let duration = super::seconds(iteration.step.end_ns.saturating_sub(start_ns));
        target.record(&catalog::ENGINE_STEP_DURATION, &attributes, duration, None);
    }
}

fn began_ns(iteration: &Iteration) -> Option<u64> {
    iteration.step.start_ns.or(iteration.gpu.as_ref().map(|gpu| gpu.start_ns))
}

/// GPU time by what it was for: riders' parts and nobody's are the whole.
fn busy(target: &Target, iteration: &Iteration, gpu: &GpuWork) {
    let device = match gpu.devices().as_slice() {
        [only] => only.device.map(|device| (name::CUDA_DEVICE_INDEX, Value::Int(i64::from(device)))),
        _ => None,
    };
    let mut parts = [("prefill", 0), ("decode", 0), ("unattributed", iteration.unattributed.gpu_ns)];
    for rider in &iteration.riders {
        let part = match rider.part {
            Part::Prefill => 0,
            Part::Decode => 1,
            Part::Unknown => 2,
        };
        if let Some((_, sum)) = parts.get_mut(part) {
            *sum += rider.share.gpu_ns;
        }
    }
    for (part, ns) in parts {
        let attributes: Vec<Attribute> =
            [(name::GPUSPAN_PART, text(part))].into_iter().chain(device.clone()).collect();
        target.handle(&catalog::GPU_BUSY, &attributes).add(super::seconds(ns));
    }
}
