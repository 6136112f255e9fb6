//! How the GPU time of processes passed → metrics.

use super::catalog::{self, attribute as name};
use super::{Registry, seconds};
use crate::correlate::GpuTimes;
use crate::span::model::{Attribute, Resource, Value, text};
use std::sync::Arc;

/// Takes over for how long, and why, a device (its ordinal in its process, where known) did nothing for a process.
pub fn idle(
    registry: &Registry,
    resource: &Arc<Resource>,
    device: Option<u32>,
    times: &GpuTimes,
    now_ns: u64,
) {
    let target = registry.target(resource, now_ns);
    let device = device.map(|device| (name::CUDA_DEVICE_INDEX, Value::Int(i64::from(device))));
    let reasons = [
        ("no_request", times.no_request_ns),
        ("cpu_late", times.cpu_late_ns),
        ("launch_bound", times.launch_bound_ns),
    ];
    for (reason, ns) in reasons {
        let attributes: Vec<Attribute> =
            [(name::GPUSPAN_IDLE_REASON, text(reason))].into_iter().chain(device.clone()).collect();
        target.handle(&catalog::GPU_IDLE, &attributes).observe(seconds(ns));
    }
}
