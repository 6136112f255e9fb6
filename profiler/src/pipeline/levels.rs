//! What is looked up for metrics: whom those of gpuspan itself are of, what it uses, and what the target's processes use.

use crate::account::Own;
use crate::control::Control;
use crate::export;
use crate::metric::{self, Registry, Target, catalog};
use crate::session::Session;
use crate::span::model::Resource;
use crate::target;
use std::sync::{Arc, Mutex};

/// Whom gpuspan's metrics about itself are of: this process, told apart from others on this machine and elsewhere.
pub fn own_resource() -> Arc<Resource> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let environment = |name: &str| std::env::var(name).ok();
    Arc::new(export::own_resource(environment, host.trim(), std::process::id()))
}

/// What gpuspan has cost so far.
pub fn cost(control: &Control) -> Own {
    let (bpf_run_ns, bpf_run_count) = control.attacher.kernel().run_statistics();
    Own { bpf_run_ns, bpf_run_count, ..Own::usage() }
}

/// CPU time of gpuspan so far, seconds, and what it has resident, bytes.
pub fn own_use() -> (f64, u64) {
    let resident = target::usage(std::process::id()).map_or(0, |used| used.resident_bytes);
    (Own::usage().cpu_s, resident)
}

/// What gpuspan uses of the machine.
pub fn itself(own: &Target) {
    if let Some(used) = target::usage(std::process::id()) {
        own.handle(&catalog::SELF_MEMORY, &[]).set(i64::try_from(used.resident_bytes).unwrap_or(i64::MAX));
    }
}

/// Brings the metrics of the target's processes up to date, each under its own resource.
pub fn processes(registry: &Registry, control: &Control, session: &Mutex<Session>, now_ns: u64) {
    for pid in control.attacher.pids() {
        let Some(used) = target::usage(pid) else { continue };
        let Some(resource) = super::lock(session).resource(pid).cloned() else { continue };
        metric::process(&registry.target(&resource, now_ns), &used);
    }
}
