//! A process → the resource its spans and metrics speak about.

use super::model::{Resource, Value, text};
use crate::metric::catalog::attribute as name;
use std::borrow::Cow;

/// What is known of an observed process.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot: with the pid and the host it names the process for good.
    pub start_ticks: u64,
    /// Path of the executable.
    pub executable: String,
    /// The server it was recognised as, or `generic`.
    pub server: &'static str,
    /// Machine's name.
    pub host: String,
    /// Machine's id, if it has one.
    pub host_id: Option<String>,
    /// When the process began (RFC 3339).
    pub created: Option<String>,
    /// Container id.
    pub container_id: Option<String>,
    /// UUID and model of each GPU that it has open.
    pub gpus: Vec<(String, String)>,
    /// The server emits spans of its requests itself.
    pub emits_spans: bool,
    /// Names and values that the target's environment, its SDK and the operator give, strongest last.
    pub given: Vec<(String, Value)>,
}

/// The resource of a subject. The name is the operator's word, else the target's own, else the server's, else the
/// executable's.
#[must_use]
pub fn resource(subject: &Subject) -> Resource {
    let executable = subject.executable.rsplit('/').next().unwrap_or_default();
    let service = if subject.server == "generic" { executable } else { subject.server };
    let instance = format!("{}.{}.{}", subject.host, subject.pid, subject.start_ticks);
    let mut attributes: Vec<(Cow<'static, str>, Value)> = vec![
        (name::SERVICE_NAME.into(), text(service)),
        (name::SERVICE_INSTANCE_ID.into(), text(&instance)),
        (name::PROCESS_PID.into(), Value::Int(i64::from(subject.pid))),
        (name::PROCESS_EXECUTABLE_NAME.into(), text(executable)),
        (name::PROCESS_EXECUTABLE_PATH.into(), text(&subject.executable)),
        (name::HOST_NAME.into(), text(&subject.host)),
        (name::TELEMETRY_DISTRO_NAME.into(), text("gpuspan")),
        (name::TELEMETRY_DISTRO_VERSION.into(), text(env!("CARGO_PKG_VERSION"))),
        (name::GPUSPAN_SERVER.into(), text(subject.server)),
    ];
    let known = [
        (name::CONTAINER_ID, &subject.container_id),
        (name::HOST_ID, &subject.host_id),
        (name::PROCESS_CREATION_TIME, &subject.created),
    ];
    attributes.extend(known.into_iter().filter_map(|(key, value)| Some((key.into(), text(value.as_ref()?)))));
    if !subject.gpus.is_empty() {
        let (uuids, models) = subject.gpus.iter().cloned().unzip();
        attributes.push((name::GPUSPAN_GPU_UUIDS.into(), Value::Strs(uuids)));
        attributes.push((name::GPUSPAN_GPU_MODELS.into(), Value::Strs(models)));
    }
    if subject.emits_spans {
        attributes.push((name::GPUSPAN_EMITS_SPANS.into(), Value::Bool(true)));
    }
    for (key, value) in &subject.given {
        attributes.retain(|(known, _)| known != key);
        attributes.push((key.clone().into(), value.clone()));
    }
    attributes.sort_by(|left, right| left.0.cmp(&right.0));
    Resource { attributes }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(subject: &Subject) -> Value {
        let resource = resource(subject);
        resource.attributes.iter().find(|(key, _)| key == "service.name").unwrap().1.clone()
    }

    #[test]
    fn the_strongest_name_wins() {
        let mut subject =
            Subject { executable: "/usr/bin/python3.12".into(), server: "generic", ..Subject::default() };
        assert_eq!(service(&subject), text("python3.12"));
        subject.server = "vllm";
        assert_eq!(service(&subject), text("vllm"));
        subject.given = vec![("service.name".into(), text("own")), ("service.name".into(), text("operator"))];
        assert_eq!(service(&subject), text("operator"));
    }

    #[test]
    fn two_replicas_on_one_host_differ() {
        let one = Subject { pid: 1, start_ticks: 5, ..Subject::default() };
        let other = Subject { pid: 1, start_ticks: 6, ..Subject::default() };
        assert_ne!(resource(&one), resource(&other));
    }
}
