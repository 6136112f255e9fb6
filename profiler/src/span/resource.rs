//! A process → the resource its spans and metrics speak about.

use super::model::{Resource, Value};
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
    /// Container id.
    pub container_id: Option<String>,
    /// Names and values that the operator or the target's own environment gives, strongest last.
    pub given: Vec<(String, String)>,
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
    if let Some(id) = &subject.container_id {
        attributes.push((name::CONTAINER_ID.into(), text(id)));
    }
    for (key, value) in &subject.given {
        attributes.retain(|(known, _)| known != key);
        attributes.push((key.clone().into(), text(value)));
    }
    attributes.sort_by(|left, right| left.0.cmp(&right.0));
    Resource { attributes }
}

fn text(value: &str) -> Value {
    Value::Str(value.to_owned().into())
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
        subject.given =
            vec![("service.name".into(), "own".into()), ("service.name".into(), "operator".into())];
        assert_eq!(service(&subject), text("operator"));
    }

    #[test]
    fn two_replicas_on_one_host_differ() {
        let one = Subject { pid: 1, start_ticks: 5, ..Subject::default() };
        let other = Subject { pid: 1, start_ticks: 6, ..Subject::default() };
        assert_ne!(resource(&one), resource(&other));
    }
}
