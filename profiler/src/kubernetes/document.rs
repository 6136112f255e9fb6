//! A pod's document, as the API server and the kubelet write it → [`Pod`]. In: JSON. Out: the few fields that are used;
//! the rest is skipped while it is read and is never in memory as a value. Absent: environments, volumes, commands.

use super::pod::{Container, Owner, Pod};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// What is kept of one pod, however long its document is. Kubernetes' own limits on a label: 63 characters, with a prefix
/// of 253.
const MOST_CONTAINERS: usize = 64;
const MOST_LABELS: usize = 64;
const MOST_ANNOTATIONS: usize = 32;
const MOST_BYTES: usize = 1024;

/// By the conventions, attributes are given as annotations with this prefix.
const ANNOTATION: &str = "resource.opentelemetry.io/";
/// What the kubelet calls a static pod by, in the API server's copy of it.
const STATIC: [&str; 2] = ["kubernetes.io/config.mirror", "kubernetes.io/config.hash"];

/// A list of pods.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct List {
    /// Where a watch goes on.
    #[serde(deserialize_with = "or_default")]
    pub metadata: ListMetadata,
    /// The pods.
    #[serde(deserialize_with = "or_default")]
    pub items: Vec<Document>,
}

/// Of a list.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ListMetadata {
    /// Its version.
    pub resource_version: String,
}

/// A pod, as it is written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Document {
    #[serde(deserialize_with = "or_default")]
    metadata: Metadata,
    #[serde(deserialize_with = "or_default")]
    spec: Spec,
    #[serde(deserialize_with = "or_default")]
    status: State,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    resource_version: String,
    #[serde(deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    owner_references: Vec<OwnerReference>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct OwnerReference {
    kind: String,
    name: String,
    controller: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    #[serde(deserialize_with = "or_default")]
    containers: Vec<Named>,
    #[serde(deserialize_with = "or_default")]
    init_containers: Vec<Named>,
    #[serde(deserialize_with = "or_default")]
    ephemeral_containers: Vec<Named>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
    image: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct State {
    #[serde(deserialize_with = "or_default")]
    container_statuses: Vec<ContainerState>,
    #[serde(deserialize_with = "or_default")]
    init_container_statuses: Vec<ContainerState>,
    #[serde(deserialize_with = "or_default")]
    ephemeral_container_statuses: Vec<ContainerState>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContainerState {
    name: String,
    image: String,
    #[serde(rename = "imageID")]
    image_id: String,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    started: Option<bool>,
    ready: bool,
}

/// Go writes `null` for what is empty.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(reader: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(reader)?.unwrap_or_default())
}

impl Document {
    /// Its version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.metadata.resource_version
    }

    /// Its uid.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.metadata.uid
    }

    /// What is kept of it; nothing of a pod without a uid. `labels`: well-known labels name services.
    #[must_use]
    pub fn pod(self, labels: bool) -> Option<Pod> {
        let Self { metadata, spec, status } = self;
        if metadata.uid.is_empty() {
            return None;
        }
        let specs = [spec.containers, spec.init_containers, spec.ephemeral_containers].concat();
        let states =
            [status.container_statuses, status.init_container_statuses, status.ephemeral_container_statuses];
        let containers = states.concat().into_iter().filter_map(|state| container(state, &specs));
        let static_uid = STATIC.iter().find_map(|key| metadata.annotations.get(*key)).cloned();
        let owner = metadata.owner_references.into_iter().find(|owner| owner.controller == Some(true));
        let owner = owner.map(|owner| Owner { kind: owner.kind, name: owner.name });
        let is_short = |(key, value): &(String, String)| key.len() + value.len() <= MOST_BYTES;
        let annotations = metadata.annotations.into_iter();
        let annotations =
            annotations.filter_map(|(key, value)| Some((key.strip_prefix(ANNOTATION)?.to_owned(), value)));
        Some(Pod {
            owners: owner.map(|owner| owner.chain(&metadata.labels)).unwrap_or_default(),
            name: metadata.name,
            namespace: metadata.namespace,
            static_uid: static_uid.filter(|uid| *uid != metadata.uid),
            uid: metadata.uid,
            node: spec.node_name,
            labels: metadata.labels.into_iter().filter(is_short).take(MOST_LABELS).collect(),
            annotations: annotations.filter(is_short).take(MOST_ANNOTATIONS).collect(),
            containers: containers.take(MOST_CONTAINERS).collect(),
            named_by_labels: labels,
        })
    }
}

/// A container that has been started has an id: `containerd://3d1f…`.
fn container(state: ContainerState, specs: &[Named]) -> Option<(String, Container)> {
    let id = state.container_id?;
    let (runtime, id) = id.split_once("://")?;
    // The status has the image by a name of the runtime's, at times only its digest.
    let asked = specs.iter().find(|spec| spec.name == state.name).map(|spec| spec.image.clone());
    let container = Container {
        name: state.name,
        image: asked.filter(|image| !image.is_empty()).unwrap_or(state.image),
        image_id: state.image_id,
        runtime: runtime.to_owned(),
        started: state.started.unwrap_or_default(),
        ready: state.ready,
    };
    (!id.is_empty()).then(|| (id.to_owned(), container))
}
