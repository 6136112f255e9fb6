//! Our models in OTLP's messages. In: spans, snapshots. Out: `opentelemetry-proto` messages, small enough to send.
//! Absent: bytes and transport.

pub(super) mod metric;
pub(super) mod trace;

use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value as Any,
};
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;

use crate::span::model::{Attribute, Resource, Value};

/// Largest message that we make. gRPC servers in Go refuse 4 MiB by default; the rest is for what wraps it.
const MOST_BYTES: usize = 3 << 20;
/// Instrumentation scope of everything that we export.
const SCOPE: &str = "gpuspan";

fn resource(resource: &Resource) -> ProtoResource {
    let attributes = resource.attributes.iter().map(|(name, value)| key_value(name, value)).collect();
    ProtoResource { attributes, ..ProtoResource::default() }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: SCOPE.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

fn attributes(attributes: &[Attribute]) -> Vec<KeyValue> {
    attributes.iter().map(|(name, value)| key_value(name, value)).collect()
}

fn key_value(name: &str, value: &Value) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(any(value)), ..KeyValue::default() }
}

fn any(value: &Value) -> AnyValue {
    let text = |text: &str| Any::StringValue(text.to_owned());
    let value = match value {
        Value::Str(value) => text(value),
        Value::Int(value) => Any::IntValue(*value),
        Value::Double(value) => Any::DoubleValue(*value),
        Value::Bool(value) => Any::BoolValue(*value),
        Value::Strs(values) => {
            let values = values.iter().map(|value| AnyValue { value: Some(text(value)) }).collect();
            Any::ArrayValue(ArrayValue { values })
        }
    };
    AnyValue { value: Some(value) }
}
