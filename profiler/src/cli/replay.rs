//! `gpuspan replay`: a recording shown, summed up and exported as if it were live.

use super::args;
use super::attach::{environment, exports, write_summary};
use crate::config::Replay;
use crate::export::Flags;
use crate::pipeline;
use crate::view;

/// Replays what can be read. A recording that breaks off fails after all of it was shown.
pub fn run(args: &args::Replay) -> anyhow::Result<()> {
    let flags = Flags {
        otlp_endpoint: args.otlp_endpoint.clone(),
        otlp_file: args.otlp_file.clone(),
        ..Flags::default()
    };
    let config = Replay {
        recording: args.recording.clone(),
        output: args.output,
        export: exports(&flags)?,
        traces: super::traces::settings(&args.traces, environment),
        compat: args.metrics.compat,
    };
    let mut view = view::of_replay(config.output);
    let replayed = pipeline::replay(&config, super::signals::ends(), view.as_mut())?;
    write_summary(args.summary.as_deref(), &replayed.summary)?;
    replayed.broken.map_or(Ok(()), |error| Err(error.into()))
}
