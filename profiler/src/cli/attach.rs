//! `gpuspan attach`: flags and environment → settings, then the pipeline, then the summary file.

use super::args;
use super::exit::Usage;
use crate::attach::KernelSettings;
use crate::config::Config;
use crate::export::{Flags, Settings, identity};
use crate::pipeline::{self, Wishes};
use crate::view;
use anyhow::Context as _;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set by SIGINT and SIGTERM.
static STOP: AtomicBool = AtomicBool::new(false);
/// Set by SIGUSR1.
static CHANGE_DETAIL: AtomicBool = AtomicBool::new(false);

/// Observes and writes what was asked for.
pub fn run(args: &args::Attach) -> anyhow::Result<()> {
    let config = resolve(args)?;
    leave_no_dump();
    stop_on_signals();
    crate::attach::ensure_tracefs();
    let mut view = view::of(config.output);
    let wishes = Wishes { stop: &STOP, change_detail: &CHANGE_DETAIL };
    let summary = pipeline::run(&config, wishes, view.as_mut())?;
    if let Some(path) = &config.summary {
        let text = serde_json::to_string_pretty(&summary).context("failed to write the summary")?;
        std::fs::write(path, text + "\n").with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}

fn resolve(args: &args::Attach) -> anyhow::Result<Config> {
    let environment = |name: &str| std::env::var(name).ok();
    let flags = Flags {
        otlp_endpoint: args.otlp_endpoint.clone(),
        otlp_file: args.otlp_file.clone(),
        ..Flags::default()
    };
    let export = Settings::resolve(&flags, environment).map_err(|error| Usage(crate::chain(&error)))?;
    Ok(Config {
        pid: args.pid,
        duration: args.duration,
        output: args.output,
        summary: args.summary.clone(),
        kernel: KernelSettings {
            ring_bytes: args.ring_bytes,
            links: args.links,
            raw_tracepoint: args.raw_tracepoint,
            object: args.ebpf_object.clone(),
            results: args.results,
            detail: args.detail,
            stack_every: args.stacks,
        },
        export,
        given: identity(environment),
        ready_file: args.ready_file.clone(),
    })
}

/// What targets read and write lies in the ring and in buffers for a moment: no core file may keep it, nor may another
/// process of the same user attach to this one. (A limit of 0 on core files would not stop a handler that is piped to.)
fn leave_no_dump() {
    // SAFETY: prctl has no pointers here. A kernel that refuses leaves things as they were.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
}

/// The first signal ends the observation in order; the second one ends the program. SIGUSR1 changes the detail level.
fn stop_on_signals() {
    extern "C" fn change(_: libc::c_int) {
        CHANGE_DETAIL.store(true, Ordering::Release);
    }
    // SAFETY: as below; no SA_RESETHAND, since the level may be changed any number of times.
    unsafe {
        let mut action = std::mem::zeroed::<libc::sigaction>();
        action.sa_sigaction = change as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut());
    }
    extern "C" fn handler(_: libc::c_int) {
        STOP.store(true, Ordering::Release);
    }
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: an all-zero sigaction is valid; the handler only stores to an atomic, which is
        // async-signal-safe; SA_RESETHAND restores the default action for a second signal.
        unsafe {
            let mut action = std::mem::zeroed::<libc::sigaction>();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_RESETHAND | libc::SA_RESTART;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}
