//! Whole traces: requests with made-up rides, iterations with made-up riders.

use super::model::{Kind, Resource, SAMPLED, Span, Value};
use super::*;
use crate::correlate::Sequence;
use crate::correlate::{
    Evidence, GpuWork, Iteration, KernelKey, KernelShare, Outcome, Owner, Request, Rider, Served, Share, Who,
};
use crate::export::encoded_size;
use crate::http::{HttpVersion, Method, RequestHead, TraceParent};
use crate::metric::catalog::attribute as name;
use crate::server::route;
use crate::server::said::{EngineStep, Inner, Part};
use std::sync::Arc;

const MS: u64 = 1_000_000;

fn request(connection: u64) -> Request {
    let mut request = Request::for_test();
    request.connection = connection;
    request.route = route::find("/v1/chat/completions");
    request.opened_ns = 10 * MS;
    request.arrived_ns = Some(11 * MS);
    request.ride.first_step_ns = Some(15 * MS);
    request.first_token_ns = Some(30 * MS);
    request.last_token_ns = Some(90 * MS);
    request.ended_ns = 91 * MS;
    request.outcome = Outcome::Completed;
    request
}

fn share(gpu_ns: u64) -> Share {
    Share { steps: 1, launches: 10, gpu_ns, gpu_lo_ns: gpu_ns, gpu_hi_ns: gpu_ns, ..Share::default() }
}

fn iteration(id: u64, riders: Vec<Rider>) -> Iteration {
    let step =
        EngineStep { start_ns: Some(20 * MS), end_ns: 40 * MS, is_complete: true, ..EngineStep::default() };
    let gpu = GpuWork { start_ns: 21 * MS, end_ns: 40 * MS, whole: share(5 * MS), ..GpuWork::default() };
    let mut told = Iteration::for_test(id, step);
    (told.gpu, told.riders, told.unattributed) = (Some(Box::new(gpu)), riders, share(7));
    told
}

fn rider(who: Who, part: Part) -> Rider {
    Rider { who, part, tokens: 9, share: share(MS), evidence: Evidence::E1 }
}

fn owner(connection: u64) -> Who {
    Who::Request(Owner { connection, exchange: 3 })
}

fn tracer(step_every: u64) -> Tracer {
    let mut tracer = Tracer::new(7);
    tracer.set(Settings { step_every, ..Settings::default() });
    tracer
}

fn int(span: &Span, attribute: &str) -> Option<i64> {
    let (_, value) = span.attributes.iter().find(|(name, _)| *name == attribute)?;
    if let Value::Int(value) = value { Some(*value) } else { None }
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name} in {spans:?}"))
}

#[test]
fn a_request_has_its_phases_with_what_the_gpu_ran_under_them() {
    let mut tracer = tracer(0);
    let mut request = request(1);
    request.ride.prefill.share = share(6 * MS);
    request.ride.queued_behind_ns = 3 * MS;
    let kernel = KernelKey { pid: 1, function: 0x77 };
    let gemm = KernelShare { launches: 40, steps: 2, gpu_ns: 5 * MS, whole_ns: 20 * MS, range_ns: (1, MS) };
    request.ride.prefill.kernels.add(kernel, &gemm);
    request.ride.prefill.copies[0] = (2, 4096);
    tracer.named(kernel, "gemm".into());
    let spans = tracer.request(&request, &Arc::default(), 1_000_000_000);
    let names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
    assert_eq!(
        names,
        ["HTTP /v1/chat/completions", "queue", "prefill", "gemm", "other", "cudaMemcpy HtoD", "decode"]
    );
    assert_eq!((spans[0].kind, spans[0].flags, spans[0].parent), (Kind::Server, 3, None));
    assert!(spans[1..].iter().all(|span| span.kind == Kind::Internal && span.trace_id == spans[0].trace_id));
    let (prefill, gemm) = (named(&spans, "prefill"), named(&spans, "gemm"));
    assert_eq!((prefill.parent, gemm.parent), (Some(spans[0].span_id), Some(prefill.span_id)));
    assert_eq!((prefill.start_ns, prefill.end_ns), (1_015 * MS, 1_030 * MS));
    assert_eq!(int(gemm, name::AGGREGATION_SPAN_COUNT), Some(40));
    assert_eq!(int(gemm, name::AGGREGATION_DURATION_AVG_NS), Some(MS as i64 / 2));
    let total = |span| int(span, name::AGGREGATION_DURATION_TOTAL_NS).unwrap();
    assert_eq!((total(gemm), total(named(&spans, "other"))), (5 * MS as i64, MS as i64));
    assert_eq!(int(named(&spans, "queue"), name::GPUSPAN_QUEUED_BEHIND_NS), Some(3 * MS as i64));
    let ids: std::collections::HashSet<_> = spans.iter().map(|span| span.span_id).collect();
    assert_eq!(ids.len(), spans.len());
}

#[test]
fn a_million_launches_of_five_hundred_kernels_are_a_small_trace_and_all_counted() {
    let mut tracer = tracer(1);
    let mut request = request(1);
    request.ride.decode.share = share(400 * MS);
    for step in 0..200 {
        tracer.iteration(&iteration(step + 1, vec![rider(owner(1), Part::Decode)]), &Arc::default(), 0);
        for function in 0..500 {
            let kernel = KernelKey { pid: 1, function };
            tracer.named(kernel, format!("kernel_{function}_{}", "x".repeat(3000)).into());
            let some = KernelShare {
                launches: 10,
                steps: 1,
                gpu_ns: 3000 + function,
                whole_ns: 9000,
                range_ns: (1, 2),
            };
            request.ride.decode.kernels.add(kernel, &some);
        }
    }
    request.finish_reasons = vec!["stop".to_owned(); 100_000];
    let spans = tracer.request(&request, &Arc::default(), 0);
    assert!(spans.len() <= 36, "{}", spans.len());
    assert!(encoded_size(&spans) <= MOST_BYTES, "{} bytes", encoded_size(&spans));
    let counts = spans.iter().filter_map(|span| int(span, name::AGGREGATION_SPAN_COUNT));
    assert_eq!(counts.sum::<i64>(), 1_000_000);
    let totals = spans.iter().filter_map(|span| int(span, name::AGGREGATION_DURATION_TOTAL_NS));
    assert_eq!(totals.sum::<i64>(), 400 * MS as i64);
    let decode = named(&spans, "decode");
    assert_eq!((decode.links.len(), decode.dropped_links), (128, 72));
    assert_eq!(tracer.counts().cut.links, 72);
    assert!(tracer.counts().cut.values >= 11);
}

#[test]
fn a_step_and_its_requests_lead_to_each_other() {
    let mut tracer = tracer(1);
    let mut sequence = Sequence::default();
    sequence.inner = 44;
    let served = Served { adapter: "vllm", schema: None, evidence: Evidence::E2, sequences: vec![sequence] };
    let mut by_engine = request(2);
    by_engine.served = Some(Box::new(served));
    let riders = vec![
        rider(owner(1), Part::Decode),
        rider(Who::Inner(Inner(44)), Part::Prefill),
        rider(owner(3), Part::Decode),
    ];
    tracer.iteration(&iteration(5, riders), &Arc::default(), 0);
    let first = tracer.request(&request(1), &Arc::default(), 0);
    let second = tracer.request(&by_engine, &Arc::default(), 0);
    assert!(tracer.steps().is_empty(), "the third has not finished");
    let mut unsampled = request(3);
    unsampled.head = Some(Box::new(head(0)));
    assert!(tracer.request(&unsampled, &Arc::default(), 0).is_empty());
    let steps = tracer.steps();
    assert_eq!(steps.len(), 1);
    let step = &steps[0];
    assert_eq!((&*step.name, step.kind, step.parent), ("engine step", Kind::Internal, None));
    assert_eq!((step.start_ns, step.end_ns), (20 * MS, 40 * MS));
    assert_ne!(step.trace_id, first[0].trace_id);
    let targets: Vec<_> = step.links.iter().map(|link| (link.trace_id, link.span_id)).collect();
    assert_eq!(targets, [&first, &second].map(|spans| (spans[0].trace_id, spans[0].span_id)));
    assert_eq!((step.dropped_links, int(step, name::GPUSPAN_STEP_MEMBERS)), (1, Some(3)));
    assert_eq!(int(step, name::GPUSPAN_GPU_TIME_NS), Some(5 * MS as i64));
    assert!(step.attributes.contains(&(name::GPUSPAN_STEP_PHASE, Value::Str("mixed".into()))));
    let back = |spans: &[Span], phase| {
        let links: Vec<_> =
            named(spans, phase).links.iter().map(|link| (link.trace_id, link.span_id)).collect();
        links
    };
    assert_eq!(back(&first, "decode"), [(step.trace_id, step.span_id)]);
    assert_eq!(back(&second, "prefill"), [(step.trace_id, step.span_id)]);
    assert!(back(&second, "decode").is_empty());
    let evidence = (name::GPUSPAN_EVIDENCE, Value::Str("E2".into()));
    assert!(named(&second, "prefill").links[0].attributes.contains(&evidence), "no surer than the tie");
    assert_eq!(tracer.counts().steps, StepCounts { shown: 1, ..StepCounts::default() });
    assert_eq!(tracer.counts().requests.get("caller"), Some(&1));
}

fn head(flags: u8) -> RequestHead {
    RequestHead {
        method: Method::Post,
        version: HttpVersion::Http11,
        path: String::new(),
        host: None,
        user_agent: None,
        traceparent: Some(TraceParent { trace_id: [5; 16], parent: [6; 8], flags }),
        tracestate: Some("a=b".to_owned()),
        request_id: None,
        content_length: None,
    }
}

#[test]
fn the_callers_trace_goes_on_with_its_flags_and_state() {
    let mut request = request(1);
    request.head = Some(Box::new(head(SAMPLED)));
    let spans = tracer(0).request(&request, &Arc::default(), 0);
    let server = &spans[0];
    assert_eq!((server.trace_id, server.parent, server.parent_is_remote), ([5; 16], Some([6; 8]), true));
    assert!(spans.iter().all(|span| span.flags == 1 && span.trace_state == "a=b"));
}

#[test]
fn a_step_does_not_wait_for_ever() {
    let mut tracer = tracer(1);
    tracer.iteration(&iteration(5, vec![rider(owner(1), Part::Decode)]), &Arc::default(), 0);
    tracer.tick(40 * MS + 20_000 * MS);
    assert!(tracer.steps().is_empty());
    tracer.tick(41 * MS + 25_000 * MS);
    let steps = tracer.steps();
    assert_eq!((steps[0].links.len(), steps[0].dropped_links), (0, 1));
    assert_eq!(tracer.counts().steps, StepCounts { shown: 1, let_go: 1, beyond: 0 });
    let late = tracer.request(&request(1), &Arc::default(), 0);
    let link = &named(&late, "decode").links[0];
    assert_eq!((link.trace_id, link.span_id), (steps[0].trace_id, steps[0].span_id), "it still leads there");
    // A step that is told after its member has finished has its link at once.
    tracer.iteration(&iteration(6, vec![rider(owner(1), Part::Decode)]), &Arc::default(), 0);
    assert_eq!(tracer.steps()[0].links[0].span_id, late[0].span_id);
}

#[test]
fn the_tables_of_steps_are_bounded() {
    let mut tracer = tracer(1);
    for id in 1..=3000 {
        let riders = (0..40).map(|n| rider(owner(id * 100 + n), Part::Decode)).collect();
        tracer.iteration(&iteration(id, riders), &Arc::default(), 0);
    }
    assert_eq!(tracer.steps().len(), 3000 - 1024);
    let counts = tracer.counts().steps;
    assert_eq!((counts.let_go, counts.beyond), (3000 - 1024, 3000 * 40 - 65_536));
    tracer.tick(u64::MAX);
    assert_eq!(tracer.steps().len(), 1024);
}

#[test]
fn a_server_with_spans_of_its_own_has_no_second_one() {
    let emits = vec![(name::GPUSPAN_EMITS_SPANS.into(), Value::Bool(true))];
    let emits = Arc::new(Resource { attributes: emits });
    for (setting, resource, kind) in [
        (ServerSpan::Auto, &Arc::default(), Kind::Server),
        (ServerSpan::Auto, &emits, Kind::Internal),
        (ServerSpan::Always, &emits, Kind::Server),
        (ServerSpan::Never, &Arc::default(), Kind::Internal),
    ] {
        let mut tracer = Tracer::new(1);
        tracer.set(Settings { server_span: setting, ..Settings::default() });
        assert_eq!(tracer.request(&request(1), resource, 0)[0].kind, kind, "{setting:?}");
    }
}
