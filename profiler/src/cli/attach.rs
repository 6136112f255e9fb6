//! `gpuspan attach`: flags and environment → settings, then the pipeline, then the summary file.

use super::args;
use super::exit::Usage;
use super::signals::{self, Signal};
use crate::account::Summary;
use crate::attach::KernelSettings;
use crate::config::Config;
use crate::export::{Flags, Settings, identity};
use crate::pipeline::{self, Wishes};
use crate::view;
use anyhow::Context as _;
use std::path::Path;

/// Observes and writes what was asked for.
pub fn run(args: &args::Attach) -> anyhow::Result<()> {
    observe(&resolve(args)?)
}

/// Observes by resolved settings.
pub fn observe(config: &Config) -> anyhow::Result<()> {
    leave_no_dump();
    let stop = signals::ends();
    let change_detail = signals::flag(Signal::User1);
    crate::attach::ensure_tracefs();
    let mut view = view::of(config.output);
    let wishes = Wishes { stop, change_detail };
    let observed = pipeline::run(config, wishes, view.as_mut())?;
    write_summary(config.summary.as_deref(), &observed.summary)?;
    Ok(observed.recorded?)
}

/// Writes the summary file, if one was asked for.
pub fn write_summary(path: Option<&Path>, summary: &Summary) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(summary).context("failed to write the summary")?;
    std::fs::write(path, text + "\n").with_context(|| format!("failed to write {}", path.display()))
}

/// Where spans and metrics go, by the flags and the environment.
pub fn exports(flags: &Flags) -> anyhow::Result<Settings> {
    Ok(Settings::resolve(flags, environment).map_err(|error| Usage(crate::chain(&error)))?)
}

/// The kernel side's settings.
pub fn kernel(probing: &args::Probing) -> KernelSettings {
    KernelSettings {
        ring_bytes: probing.ring_bytes,
        links: probing.links,
        hooks_wait: false,
        raw_tracepoint: probing.raw_tracepoint,
        object: probing.ebpf_object.clone(),
        results: probing.results,
        detail: probing.detail,
        adapters: probing.adapters,
        stack_every: probing.stacks,
    }
}

/// How devices are read.
pub fn devices(args: &args::Devices) -> crate::device::Settings {
    let args::Devices { scope, interval, nvml, sys } = args;
    crate::device::Settings { scope: *scope, interval: *interval, nvml: nvml.clone(), sys: sys.clone() }
}

/// A variable of the environment.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn resolve(args: &args::Attach) -> anyhow::Result<Config> {
    let flags = Flags {
        otlp_endpoint: args.otlp_endpoint.clone(),
        otlp_file: args.otlp_file.clone(),
        prometheus_listen: args.prometheus_listen.clone(),
        ..Flags::default()
    };
    Ok(Config {
        pid: args.pid,
        duration: args.duration,
        output: args.output,
        summary: args.summary.clone(),
        kernel: kernel(&args.probing),
        export: exports(&flags)?,
        devices: devices(&args.devices),
        traces: super::traces::settings(&args.traces, environment),
        compat: args.metrics.compat,
        given: identity(environment),
        record: args.record.clone(),
        ready_file: args.probing.ready_file.clone(),
    })
}

/// What targets read and write lies in the ring and in buffers for a moment: no core file may keep it, nor may another
/// process of the same user attach to this one. (A limit of 0 on core files would not stop a handler that is piped to.)
pub fn leave_no_dump() {
    // SAFETY: prctl has no pointers here. A kernel that refuses leaves things as they were.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
}
