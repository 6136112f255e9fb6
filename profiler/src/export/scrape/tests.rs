//! Whole documents, and the server over real connections.

mod documents;
mod http;

use std::sync::Arc;

use crate::metric::catalog::attribute::{GEN_AI_REQUEST_MODEL, GPUSPAN_LOSS_REASON};
use crate::metric::catalog::{
    CUDA_KERNEL_LAUNCHES, ENGINE_KV_USAGE, GEN_AI_TIME_TO_FIRST_TOKEN, PROCESS_CPU_TIME, SELF_CPU_TIME,
    SELF_PROBES, SELF_RECORDS_LOST,
};
use crate::metric::{Context, Readers, Registry, Target};
use crate::span::model::{Attribute, Resource, Value, text};

/// When the targets were found, Unix time.
const START_NS: u64 = 1_700_000_000_500_000_000;

fn resource(service: &str, instance: &str) -> Arc<Resource> {
    let attributes = [
        ("host.name", "node \"7\"\\a"),
        ("service.instance.id", instance),
        ("service.name", service),
        ("service.namespace", "prod"),
    ];
    let attributes = attributes.map(|(key, value)| (key.into(), text(value)));
    Arc::new(Resource { attributes: attributes.into() })
}

fn model(name: &str) -> [Attribute; 1] {
    [(GEN_AI_REQUEST_MODEL, text(name))]
}

fn first_token(target: &Target, seconds: f64, trace: u8) {
    let context =
        Context { trace_id: [trace; 16], span_id: [trace; 8], time_ns: START_NS + u64::from(trace) };
    target.record(&GEN_AI_TIME_TO_FIRST_TOKEN, &model("llama \"3\"\n\\"), seconds, Some(context));
}

/// Two targets and gpuspan itself, with a metric of each kind, the first of them twice.
fn registry(readers: Readers) -> Registry {
    let registry = Registry::new(readers);
    for (instance, launches) in [("h.1", 40), ("h.2", 2)] {
        let target = registry.target(&resource("vllm", instance), START_NS);
        target.add(&CUDA_KERNEL_LAUNCHES, &[], launches);
        target.handle(&PROCESS_CPU_TIME, &[]).observe(12.5);
        target.handle(&ENGINE_KV_USAGE, &[]).set(0.1);
        // Never set, so there is nothing to tell.
        target.handle(&ENGINE_KV_USAGE, &model("none"));
        first_token(&target, 0.002, 1);
        first_token(&target, 0.002, 2);
        first_token(&target, 1e9, 3);
    }
    let own = Resource { attributes: vec![("service.name".into(), text("gpuspan"))] };
    let own = registry.target(&Arc::new(own), START_NS);
    own.up_down(&SELF_PROBES, &[], -3);
    own.handle(&SELF_CPU_TIME, &[]).observe(0.25);
    own.add(&SELF_RECORDS_LOST, &[(GPUSPAN_LOSS_REASON, Value::Str("gpu.ring_full".into()))], 1);
    registry
}
