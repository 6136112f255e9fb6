//! Whom a process's telemetry is of. In: what procfs, the process itself, its place and the operator say. Out: a
//! [`Resource`].

use super::Control;
use crate::server;
use crate::span::model::{Resource, Value, text};
use crate::span::{Subject, resource};
use crate::target;
use std::sync::Arc;

/// Tells attributes of the place where a process runs.
pub type Around = Arc<dyn Fn(u32) -> Vec<(String, Value)> + Send + Sync>;

/// What does not change about a process.
pub(super) struct Fixed {
    created: Option<String>,
    gpus: Vec<(String, String)>,
}

impl Control {
    /// The resource of a process. Its environment is beaten by what its SDK publishes, and both by the operator's word.
    #[must_use]
    pub fn resource(&mut self, pid: u32) -> Arc<Resource> {
        let identity = target::identity(pid);
        let own = |name: &str| match name {
            "OTEL_SERVICE_NAME" => identity.service_name.clone(),
            "OTEL_RESOURCE_ATTRIBUTES" => identity.resource_attributes.clone(),
            _ => None,
        };
        let as_values = |(key, value): (String, String)| (key, text(&value));
        let published = target::process_context(pid).unwrap_or_default();
        let around = self.around.as_ref().map(|around| around(pid)).unwrap_or_default().into_iter();
        let given =
            around.chain(crate::export::identity(own).into_iter().map(as_values)).chain(published.attributes);
        let given = given.chain(self.given.iter().cloned().map(as_values)).collect();
        let line = &identity.command_line;
        let emits = server::own_spans(self.server, line, |name| identity.telemetry(name));
        // Found once: a resource that changed would begin every metric of the process anew.
        let fixed = self.fixed.entry((pid, identity.start_ticks)).or_insert_with(|| Fixed {
            created: target::created(identity.start_ticks),
            gpus: target::gpus(pid).into_iter().map(|gpu| (gpu.uuid, gpu.model)).collect(),
        });
        let host = |file: &str| std::fs::read_to_string(file).unwrap_or_default().trim().to_owned();
        Arc::new(resource(&Subject {
            pid,
            start_ticks: identity.start_ticks,
            executable: identity.executable.to_string_lossy().into_owned(),
            server: self.server,
            host: host("/proc/sys/kernel/hostname"),
            host_id: Some(host("/etc/machine-id")).filter(|id| !id.is_empty()),
            created: fixed.created.clone(),
            container_id: identity.container_id,
            gpus: fixed.gpus.clone(),
            emits_spans: emits.is_some(),
            given,
        }))
    }
}
