//! Where a process runs and whose it is, from its place and the node's pods: attributes for its resource, facts for rules.
//!
//! In: a pid. Out: plain data, at once: pods are asked for on a thread of their own.

use super::config;
use crate::discover::PlaceFacts;
use crate::kubernetes::{self, Pods, StartError};
use crate::place;
use crate::span::model::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Knows where processes run.
#[derive(Clone, Debug, Default)]
pub struct Whereabouts {
    pods: Option<Arc<Pods>>,
}

impl Whereabouts {
    /// Pods are asked for where the configuration says so, or where this is a pod itself.
    ///
    /// # Errors
    /// When they must be asked for and cannot be.
    pub fn new(config: &config::Kubernetes) -> Result<Self, StartError> {
        let in_cluster = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        let named = config.api.is_some() || config.kubelet.is_some();
        let pods = match config.enabled {
            config::Enabled::Off => None,
            config::Enabled::Auto if !in_cluster && !named => None,
            config::Enabled::Auto => Pods::start(&settings(config))
                .inspect_err(|error| tracing::warn!(error = %crate::chain(error), "pods will have no names"))
                .ok(),
            config::Enabled::On => Some(Pods::start(&settings(config))?),
        };
        Ok(Self { pods: pods.map(Arc::new) })
    }

    /// Attributes of the place of a process, the strongest last.
    #[must_use]
    pub fn attributes(&self, pid: u32) -> Vec<(String, Value)> {
        let place = place::of(pid);
        let mut attributes = place.attributes();
        if let Some(pod) = self.pods.as_ref().and_then(|pods| pods.pod(&place)) {
            attributes.extend(pod.attributes(&place));
        }
        attributes
    }

    /// What rules may ask for.
    #[must_use]
    pub fn facts(&self, pid: u32) -> PlaceFacts {
        let place = place::of(pid);
        let facts = PlaceFacts::from(&place);
        let Some(pod) = self.pods.as_ref().and_then(|pods| pods.pod(&place)) else { return facts };
        PlaceFacts {
            image: pod.container(&place).map(|container| container.image.clone()).or(facts.image),
            namespace: Some(pod.namespace.clone()),
            labels: pod.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            ..facts
        }
    }

    /// Waits until the pods are known, at most for so long; false if they should be and are not.
    #[must_use]
    pub fn wait(&self, at_most: Duration) -> bool {
        let end = Instant::now() + at_most;
        while self.status().is_some_and(|status| !status.synced) {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// Changes when what is told of places may be another.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.pods.as_ref().map_or(0, |pods| pods.generation())
    }

    /// How asking for pods goes, if they are asked for.
    #[must_use]
    pub fn status(&self) -> Option<kubernetes::Status> {
        self.pods.as_ref().map(|pods| pods.status())
    }
}

fn settings(config: &config::Kubernetes) -> kubernetes::Settings {
    let default = kubernetes::Settings::default();
    kubernetes::Settings {
        node: config.node.clone(),
        api: config.api.clone(),
        kubelet: config.kubelet.clone(),
        token_file: config.token_file.clone().unwrap_or(default.token_file),
        ca_file: config.ca_file.clone().unwrap_or(default.ca_file),
        well_known_labels: config.well_known_labels,
        ..default
    }
}
