//! `cargo xtask scale`: the shipped gateway under many simulated agents, at length. The figures of docs/scale.md are its.

use crate::demo::root;
use anyhow::{Context as _, Result, ensure};

/// Loads the gateway.
#[derive(clap::Args)]
pub struct Args {
    /// How many agents send.
    #[arg(long, default_value_t = 200)]
    agents: u32,
    /// For how long, in seconds.
    #[arg(long, default_value_t = 300)]
    seconds: u32,
}

/// Runs the load; fails when something was lost and not counted.
pub fn run(args: &Args) -> Result<()> {
    let mut cargo = workload::cargo();
    cargo.args(["test", "--package", "e2e", "--test", "ship", "--", "scale::", "--nocapture"]);
    cargo.env("GPUSPAN_SCALE_AGENTS", args.agents.to_string());
    cargo.env("GPUSPAN_SCALE_SECONDS", args.seconds.to_string());
    let status = cargo.current_dir(root()).status().context("failed to start cargo test")?;
    ensure!(status.success(), "the load test failed");
    Ok(())
}
