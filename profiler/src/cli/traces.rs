//! Flags and environment → settings of traces.

use super::args;
use crate::span::{Choice, Sampler, Settings};

/// Settings of traces; what makes no sense in the environment is logged, and its default stands.
pub fn settings(args: &args::Traces, environment: impl Fn(&str) -> Option<String>) -> Settings {
    let (name, argument) = (environment("OTEL_TRACES_SAMPLER"), environment("OTEL_TRACES_SAMPLER_ARG"));
    let (sampler, error) = Sampler::parse(name.as_deref(), argument.as_deref());
    if let Some(error) = error {
        tracing::warn!("{error}");
    }
    let keep_slow_ns = args.keep_slow.map(|slow| u64::try_from(slow.as_nanos()).unwrap_or(u64::MAX));
    Settings {
        choice: Choice { sampler, keep_slow_ns, ignore_unsampled: args.ignore_unsampled },
        step_every: args.step_sample,
        server_span: args.server_span,
    }
}
