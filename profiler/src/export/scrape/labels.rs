//! Attributes → labels, as the formats write them between braces. In: a resource's and a point's attributes. Out: text,
//! sorted by name. Absent: the bounds of buckets, which their writer puts behind.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::name;
use crate::metric::catalog::attribute::{SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_NAMESPACE};
use crate::span::model::{Attribute, Resource, Value};

/// Labels of one series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Those that say whose series they are: `job` and `instance`.
    pub fn identity(resource: &Resource) -> Self {
        let find = |name: &str| {
            let found = resource.attributes.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| text(value)).filter(|text| !text.is_empty())
        };
        let job = find(SERVICE_NAME).map(|service| match find(SERVICE_NAMESPACE) {
            Some(namespace) => format!("{namespace}/{service}"),
            None => service,
        });
        let pairs = [("job", job), ("instance", find(SERVICE_INSTANCE_ID))];
        Self(pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
    }

    /// Those of each of its series: the identity, and in words that hold for every backend what the boards of `deploy` choose
    /// servers by, as Prometheus has it when these attributes are promoted.
    pub fn of_series(resource: &Resource) -> Self {
        let promoted = resource.attributes.iter().map(|(key, value)| (key.as_ref(), value));
        Self::identity(resource)
            .with(promoted.filter(|(key, _)| [SERVICE_NAME, SERVICE_INSTANCE_ID].contains(key)))
    }

    /// Of `target_info`: everything about the resource that is not in its identity. None where nothing could be joined
    /// with it, or it has nothing to say.
    pub fn target_info(resource: &Resource) -> Option<Self> {
        let identity = Self::identity(resource);
        let is_identifying =
            |key: &str| [SERVICE_NAME, SERVICE_NAMESPACE, SERVICE_INSTANCE_ID].contains(&key);
        let attributes = resource.attributes.iter().map(|(key, value)| (key.as_ref(), value));
        let labels = identity.with(attributes.filter(|(key, _)| !is_identifying(key)));
        (!identity.0.is_empty() && labels.0.len() > identity.0.len()).then_some(labels)
    }

    /// These with a point's attributes.
    pub fn of_point(&self, attributes: &[Attribute]) -> Self {
        self.with(attributes.iter().map(|(key, value)| (*key, value)))
    }

    /// Attributes come sorted. Those whose names come out the same share a label, with their values in that order; what
    /// is there already stands before any of them.
    fn with<'a>(&self, attributes: impl Iterator<Item = (&'a str, &'a Value)>) -> Self {
        let mut labels: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in attributes {
            let (Some(name), value) = (name::label(key), text(value)) else { continue };
            // An empty label is none.
            if name == "__name__" || value.is_empty() {
                continue;
            }
            match labels.get_mut(&name) {
                Some(known) => *known = format!("{known};{value}"),
                None => drop(labels.insert(name, value)),
            }
        }
        labels.extend(self.0.iter().map(|(name, value)| (name.clone(), value.clone())));
        Self(labels)
    }

    /// As they stand between braces. `le` tells buckets apart and is left out where there are some.
    pub fn render(&self, without_le: bool) -> String {
        let mut out = String::new();
        for (name, value) in self.0.iter().filter(|(name, _)| !(without_le && *name == "le")) {
            let comma = if out.is_empty() { "" } else { "," };
            // Writing to a string cannot fail.
            let _ = write!(out, "{comma}{name}=\"{}\"", escape(value));
        }
        out
    }
}

/// A value inside quotes.
pub fn escape(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

/// A value as a label's.
fn text(value: &Value) -> String {
    match value {
        Value::Str(text) => text.clone().into_owned(),
        Value::Int(number) => number.to_string(),
        Value::Double(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Strs(texts) => serde_json::Value::from(texts.as_slice()).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(attributes: &[(&'static str, Value)]) -> Resource {
        Resource {
            attributes: attributes.iter().map(|(key, value)| ((*key).into(), value.clone())).collect(),
        }
    }

    fn str(text: &'static str) -> Value {
        Value::Str(text.into())
    }

    #[test]
    fn whose_series_they_are() {
        let name = (SERVICE_NAME, str("vllm"));
        let cases = [
            (vec![], ""),
            (vec![name.clone()], r#"job="vllm""#),
            (vec![name.clone(), (SERVICE_NAMESPACE, str("prod"))], r#"job="prod/vllm""#),
            (vec![(SERVICE_NAMESPACE, str("prod")), (SERVICE_INSTANCE_ID, str("h.1"))], r#"instance="h.1""#),
            (vec![name, (SERVICE_INSTANCE_ID, str("h.1"))], r#"instance="h.1",job="vllm""#),
        ];
        for (attributes, expected) in cases {
            assert_eq!(Labels::identity(&resource(&attributes)).render(false), expected);
        }
        let named = resource(&[
            (SERVICE_INSTANCE_ID, str("i")),
            (SERVICE_NAME, str("s")),
            (SERVICE_NAMESPACE, str("n")),
        ]);
        assert_eq!(
            Labels::of_series(&named).render(false),
            r#"instance="i",job="n/s",service_instance_id="i",service_name="s""#
        );
    }

    #[test]
    fn target_info_has_the_rest() {
        let full = resource(&[
            ("gpuspan.gpu.uuids", Value::Strs(vec!["GPU-1".to_owned(), "GPU-2".to_owned()])),
            ("host.name", str("h")),
            ("process.pid", Value::Int(7)),
            (SERVICE_INSTANCE_ID, str("i")),
            (SERVICE_NAME, str("s")),
        ]);
        assert_eq!(
            Labels::target_info(&full).unwrap().render(false),
            r#"gpuspan_gpu_uuids="[\"GPU-1\",\"GPU-2\"]",host_name="h",instance="i",job="s",process_pid="7""#
        );
        assert_eq!(Labels::target_info(&resource(&[(SERVICE_NAME, str("s"))])), None);
        assert_eq!(Labels::target_info(&resource(&[("host.name", str("h"))])), None);
    }

    #[test]
    fn names_that_come_out_the_same_share_a_label() {
        let whose = Labels::identity(&resource(&[(SERVICE_NAME, str("s"))]));
        let labels = whose.of_point(&[
            ("a.b", str("1")),
            ("a/b", str("2")),
            ("a_b", str("")),
            ("job", str("theirs")),
            ("__name__", str("x")),
            ("le", str("y")),
            ("nan", Value::Double(f64::NAN)),
            ("overflow", Value::Bool(true)),
        ]);
        assert_eq!(labels.render(true), r#"a_b="1;2",job="s",nan="NaN",overflow="true""#);
        assert_eq!(labels.render(false), r#"a_b="1;2",job="s",le="y",nan="NaN",overflow="true""#);
    }

    #[test]
    fn values_are_escaped() {
        let labels = Labels::default().of_point(&[("a", str("C:\\n \"x\"\nü"))]);
        assert_eq!(labels.render(false), r#"a="C:\\n \"x\"\nü""#);
    }
}
