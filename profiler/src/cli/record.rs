//! `gpuspan record`: an observation of which nothing is shown, only kept.

use super::args;
use super::attach::{devices, environment, exports, kernel, observe};
use crate::config::{Config, Output};
use crate::export::{Flags, identity};

/// Observes and records.
pub fn run(args: &args::Record) -> anyhow::Result<()> {
    observe(&Config {
        pid: args.pid,
        duration: args.duration,
        output: Output::None,
        summary: args.summary.clone(),
        kernel: kernel(&args.probing),
        export: exports(&Flags::default())?,
        devices: devices(&args.devices),
        traces: crate::span::Settings::default(),
        compat: None,
        given: identity(environment),
        record: Some(args.output_file.clone()),
        ready_file: args.probing.ready_file.clone(),
    })
}
