//! The same figures under the names of Hugging Face transformers' own metrics, for dashboards that people have. In: what
//! the other metrics are made of. Out: points of [`catalog::compat`].

use super::Target;
use super::catalog::compat;
use super::iteration::Batch;
use super::load::Held;
use crate::correlate::{Outcome, Request};

/// Records under other names, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Compat {
    /// The instruments of transformers' continuous batching.
    Transformers,
}

impl Compat {
    /// Takes a finished request.
    pub fn request(self, target: &Target, request: &Request) {
        if !request.is_inference() {
            return;
        }
        let ms = |ns: u64| ns as f64 / 1e6;
        if let Some(ttft) = request.time_to_first_token_ns() {
            target.record(&compat::TTFT_MS, &[], ms(ttft), None);
        }
        // Requests that the engine never had are none of its.
        if !matches!(request.outcome, Outcome::Rejected | Outcome::Partial | Outcome::Lost) {
            let latency = request.ended_ns.saturating_sub(request.opened_ns);
            target.record(&compat::LATENCY_MS, &[], ms(latency), None);
        }
    }

    /// Takes an iteration.
    pub fn iteration(self, target: &Target, batch: &Batch) {
        target.add(&compat::PREFILL_TOKENS, &[], batch.prefill);
        target.add(&compat::DECODE_TOKENS, &[], batch.decode);
        if let Some(ratio) = batch.ratio() {
            target.handle(&compat::RATIO, &[]).set(ratio);
        }
        if let Some((fill, _)) = batch.fill {
            target.record(&compat::FILL_PERCENT, &[], 100.0 * fill, None);
        }
    }

    /// Takes how many requests run and wait, and what they hold of the KV cache.
    pub fn load(self, target: &Target, (running, waiting): (u64, u64), held: Option<&Held>) {
        target.handle(&compat::ACTIVE, &[]).set(running as f64);
        target.handle(&compat::WAITING, &[]).set(waiting as f64);
        let Some(held) = held else { return };
        target.handle(&compat::KV_USED, &[]).set(held.used_bytes as f64);
        if let Some(free) = held.free_bytes {
            target.handle(&compat::KV_FREE, &[]).set(free as f64);
        }
    }
}
