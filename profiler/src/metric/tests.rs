//! What iterations and idle time become. Loads and requests are tested on a real server.

use super::catalog::attribute as name;
use super::*;
use crate::correlate::{Evidence, GpuTimes, GpuWork, Iteration, Rider, Share, Who};
use crate::server::Limits;
use crate::server::said::{EngineStep, Inner, Member, Part};
use crate::span::model::{Resource, Value, text};
use std::sync::Arc;

fn member(part: Part, computed: u32) -> Member {
    Member { inner: Inner(1), part, computed, generated: 1, evidence: Evidence::E0 }
}

fn iteration(id: u64, members: Vec<Member>) -> Iteration {
    let step = EngineStep { start_ns: Some(1_000_000), end_ns: 3_000_000, members, ..EngineStep::default() };
    Iteration::for_test(id, step)
}

/// The values of a metric's points, those of histograms as their sums.
fn values(registry: &Registry, metric: &str, having: &[(&str, &str)]) -> Vec<f64> {
    let snapshot = registry.snapshot(9);
    let has = |point: &&Point| {
        having
            .iter()
            .all(|(name, value)| point.attributes.iter().any(|(of, v)| of == name && *v == text(value)))
    };
    let value = |point: &Point| match &point.value {
        PointValue::Int(value) => *value as f64,
        PointValue::Double(value) => *value,
        PointValue::Distribution(distribution) => distribution.sum,
    };
    snapshot.find(metric).filter(has).map(value).collect()
}

#[test]
fn iterations_are_told_by_what_they_processed() {
    let (registry, resource) = (Registry::default(), Arc::new(Resource::default()));
    let mut iterations = Iterations::default();
    let mixed = vec![member(Part::Prefill, 60), member(Part::Decode, 0), member(Part::Decode, 1)];
    iterations.take(&registry, &resource, &iteration(1, mixed), 1);
    iterations.take(&registry, &resource, &iteration(2, vec![member(Part::Decode, 1)]), 2);
    let failed = EngineStep { failed: true, members: vec![member(Part::Decode, 9)], ..EngineStep::default() };
    iterations.take(&registry, &resource, &Iteration::for_test(3, failed), 3);
    let of = |part| values(&registry, "gpuspan.engine.tokens.processed", &[(name::GPUSPAN_PART, part)]);
    assert_eq!((of("prefill"), of("decode")), (vec![60.0], vec![3.0]));
    assert_eq!(
        values(&registry, "gpuspan.engine.decode_prefill_ratio", &[]),
        [2.0 / 60.0],
        "of the newest with a prompt"
    );
    let lasted =
        |phase| values(&registry, "gpuspan.engine.step.duration", &[(name::GPUSPAN_STEP_PHASE, phase)]);
    assert_eq!((lasted("mixed"), lasted("decode"), lasted("prefill")), (vec![0.002], vec![0.002], vec![]));
    let fill = values(&registry, "gpuspan.engine.batch.fill", &[(name::GPUSPAN_CAPACITY, "largest_seen")]);
    assert_eq!(fill, [1.0 + 1.0 / 62.0]);
}

#[test]
fn batches_are_full_by_the_limit_until_one_exceeds_it() {
    let (registry, resource) = (Registry::default(), Arc::new(Resource::default()));
    let limits = Limits { batch_tokens: Some(100), ..Limits::default() };
    let mut iterations = Iterations::default();
    (iterations.limits, iterations.compat) = (limits, Some(Compat::Transformers));
    let mut take = |tokens| {
        iterations.take(&registry, &resource, &iteration(1, vec![member(Part::Prefill, tokens)]), 1);
        let of = |from| values(&registry, "gpuspan.engine.batch.fill", &[(name::GPUSPAN_CAPACITY, from)]);
        (of("command_line"), of("largest_seen"))
    };
    assert_eq!(take(25), (vec![0.25], vec![]));
    assert_eq!(take(200), (vec![0.25], vec![1.0]));
    assert_eq!(take(50), (vec![0.25], vec![1.25]));
    assert_eq!(values(&registry, "batch_fill_percentage", &[]), [150.0]);
    assert_eq!(values(&registry, "prefill_tokens_processed", &[]), [275.0]);
}

#[test]
fn what_is_inferred_exceeds_no_limit() {
    let (registry, resource) = (Registry::default(), Arc::new(Resource::default()));
    let mut iterations = Iterations::default();
    iterations.limits.batch_tokens = Some(100);
    for tokens in [400, 50] {
        let mut guessed = iteration(1, Vec::new());
        let who = Who::Inner(Inner(1));
        let (part, share, evidence) = (Part::Prefill, Share::default(), Evidence::E3);
        guessed.riders.push(Rider { who, part, tokens, share, evidence });
        iterations.take(&registry, &resource, &guessed, 1);
    }
    let of = |from| values(&registry, "gpuspan.engine.batch.fill", &[(name::GPUSPAN_CAPACITY, from)]);
    assert_eq!((of("command_line"), of("largest_seen")), (vec![1.5], vec![]));
}

#[test]
fn gpu_time_is_somebodys_or_nobodys() {
    let (registry, resource) = (Registry::default(), Arc::new(Resource::default()));
    let share = |gpu_ns| Share { gpu_ns, ..Share::default() };
    let mut work = iteration(1, Vec::new());
    work.gpu = Some(Box::new(GpuWork { whole: share(10), ..GpuWork::default() }));
    work.unattributed = share(4_000_000_000);
    Iterations::default().take(&registry, &resource, &work, 1);
    let busy = |part| values(&registry, "gpuspan.gpu.busy.time", &[(name::GPUSPAN_PART, part)]);
    assert_eq!((busy("unattributed"), busy("prefill")), (vec![4.0], vec![0.0]));
    assert!(values(&registry, "gpuspan.engine.step.members", &[]).is_empty(), "it is no iteration");
}

#[test]
fn idle_time_is_told_by_reason_and_device() {
    let (registry, resource) = (Registry::default(), Arc::new(Resource::default()));
    let times = GpuTimes { cpu_late_ns: 2_000_000_000, no_request_ns: 500_000_000, ..GpuTimes::default() };
    idle(&registry, &resource, Some(3), &times, 1);
    idle(&registry, &resource, None, &times, 1);
    let late = [(name::GPUSPAN_IDLE_REASON, "cpu_late")];
    assert_eq!(values(&registry, "gpuspan.gpu.idle.time", &late), [2.0, 2.0]);
    let snapshot = registry.snapshot(2);
    let device = |point: &Point| point.attributes.iter().any(|(name, _)| *name == name::CUDA_DEVICE_INDEX);
    assert_eq!(snapshot.find("gpuspan.gpu.idle.time").filter(|point| device(point)).count(), 3);
    let first = snapshot.find("gpuspan.gpu.idle.time").find(|point| device(point)).unwrap();
    assert!(first.attributes.contains(&(name::CUDA_DEVICE_INDEX, Value::Int(3))));
}
