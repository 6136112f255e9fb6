//! A pod, and what it says of a process in it. In: a place. Out: attributes by OpenTelemetry's conventions for Kubernetes
//! (non-normative, v1.44: how `service.name` and its like follow from annotations, labels, owners). *Pure.*

use crate::metric::catalog::attribute as name;
use crate::place::{Image, Place};
use crate::span::model::{Value, text};
use std::collections::BTreeMap;

/// Names of owners, the one that names a service best first.
const OWNERS: [(&str, &str); 6] = [
    ("Deployment", name::K8S_DEPLOYMENT_NAME),
    ("ReplicaSet", name::K8S_REPLICASET_NAME),
    ("StatefulSet", name::K8S_STATEFULSET_NAME),
    ("DaemonSet", name::K8S_DAEMONSET_NAME),
    ("CronJob", name::K8S_CRONJOB_NAME),
    ("Job", name::K8S_JOB_NAME),
];

/// Labels that name a service, the best first; a version.
const NAMES: [&str; 2] = ["app.kubernetes.io/instance", "app.kubernetes.io/name"];
const VERSION: &str = "app.kubernetes.io/version";

/// What an annotation does not say: what is seen of the process itself, and what is said of gpuspan.
const NOT_SAID: [&str; 3] = ["gpuspan.", "process.", "telemetry."];

/// What is kept of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// UID, as the API server has it.
    pub uid: String,
    /// What its cgroup has instead, of a static pod.
    pub static_uid: Option<String>,
    /// Node.
    pub node: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations that give attributes, without `resource.opentelemetry.io/`.
    pub annotations: BTreeMap<String, String>,
    /// Who made it, the nearest first, as far as names tell.
    pub owners: Vec<Owner>,
    /// Containers that were started, by id.
    pub containers: BTreeMap<String, Container>,
    /// Well-known labels name services.
    pub(super) named_by_labels: bool,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Name in the pod.
    pub name: String,
    /// Image, as the pod asks for it.
    pub image: String,
    /// Image, as the runtime found it: with its digest.
    pub image_id: String,
    /// `containerd`, `cri-o` or `docker`.
    pub runtime: String,
    /// Its startup probe has succeeded.
    pub started: bool,
    /// Its readiness probe succeeds.
    pub ready: bool,
}

/// Who made something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `ReplicaSet`, `Job`, …
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl Owner {
    /// The owner and its owner. A Deployment's ReplicaSets have its name and the hash that their pods have as a label; a
    /// CronJob's Jobs have its name and the minute they were due at.
    pub(super) fn chain(self, labels: &BTreeMap<String, String>) -> Vec<Self> {
        let above = match self.kind.as_str() {
            "ReplicaSet" => labels
                .get("pod-template-hash")
                .and_then(|hash| self.name.strip_suffix(hash.as_str())?.strip_suffix('-'))
                .map(|name| ("Deployment", name)),
            "Job" => cron_job(&self.name).map(|name| ("CronJob", name)),
            _ => None,
        };
        let above = above.filter(|(_, name)| !name.is_empty());
        let above = above.map(|(kind, name)| Self { kind: kind.to_owned(), name: name.to_owned() });
        [Some(self), above].into_iter().flatten().collect()
    }
}

/// A minute between 2020 and 2100, counted from 1970, has eight digits.
fn cron_job(job: &str) -> Option<&str> {
    let (name, minute) = job.rsplit_once('-')?;
    let is_minute = minute.len() == 8 && minute.bytes().all(|b| b.is_ascii_digit());
    (is_minute && ("26300000".."68400000").contains(&minute)).then_some(name)
}

impl Pod {
    /// The container of a place, by the innermost id that this pod knows.
    #[must_use]
    pub fn container(&self, place: &Place) -> Option<&Container> {
        place.containers.iter().rev().find_map(|container| self.containers.get(&container.id))
    }

    /// What the pod says of a process at `place`, each name once. Before the status has the container's id, what
    /// follows from its name is missing: `k8s.container.name`, the image, `service.instance.id`, a version.
    #[must_use]
    pub fn attributes(&self, place: &Place) -> Vec<(String, Value)> {
        let container = self.container(place);
        let mut found: Vec<(String, Value)> = self.facts(container);
        for (key, value) in self.service(container) {
            found.push((key.to_owned(), text(&value)));
        }
        for (key, value) in &self.annotations {
            let is_new = !found.iter().any(|(known, _)| known == key);
            if is_new && !key.is_empty() && !NOT_SAID.iter().any(|other| key.starts_with(other)) {
                found.push((key.clone(), text(value)));
            }
        }
        found
    }

    /// What Kubernetes itself says. An annotation does not overrule it.
    fn facts(&self, container: Option<&Container>) -> Vec<(String, Value)> {
        let owner = |kind: &str| self.owners.iter().find(|owner| owner.kind == kind);
        let owners = OWNERS.iter().filter_map(|(kind, key)| Some((*key, owner(kind)?.name.as_str())));
        let known = [
            (name::K8S_NAMESPACE_NAME, Some(self.namespace.as_str())),
            (name::K8S_POD_NAME, Some(self.name.as_str())),
            (name::K8S_POD_UID, Some(self.uid.as_str())),
            (name::K8S_NODE_NAME, self.node.as_deref()),
            (name::K8S_CONTAINER_NAME, container.map(|container| container.name.as_str())),
            (name::CONTAINER_RUNTIME_NAME, container.map(|container| container.runtime.as_str())),
        ];
        let known = known.into_iter().filter_map(|(key, value)| Some((key, value?))).chain(owners);
        let known = known.map(|(key, value)| (key.to_owned(), text(value)));
        known.chain(container.into_iter().flat_map(Container::attributes)).collect()
    }

    /// `service.*`, by the first source that has a value.
    fn service(&self, container: Option<&Container>) -> Vec<(&'static str, String)> {
        let said = |key: &str| self.annotations.get(key).filter(|value| !value.is_empty()).cloned();
        let label = |key: &str| {
            let value = self.labels.get(key).filter(|value| !value.is_empty());
            value.filter(|_| self.named_by_labels).cloned()
        };
        let owner = |kind: &str| self.owners.iter().find(|owner| owner.kind == kind);
        let owned = || OWNERS.iter().find_map(|(kind, _)| Some(owner(kind)?.name.clone()));
        let version = || container.and_then(|container| Image::parse(&container.image)?.version());
        let instance =
            || container.map(|container| format!("{}.{}.{}", self.namespace, self.name, container.name));
        let service = said(name::SERVICE_NAME).or_else(|| NAMES.iter().find_map(|key| label(key)));
        let pairs = [
            (name::SERVICE_NAME, service.or_else(owned).or_else(|| Some(self.name.clone()))),
            (name::SERVICE_NAMESPACE, said(name::SERVICE_NAMESPACE).or_else(|| Some(self.namespace.clone()))),
            (name::SERVICE_VERSION, said(name::SERVICE_VERSION).or_else(|| label(VERSION)).or_else(version)),
            (name::SERVICE_INSTANCE_ID, said(name::SERVICE_INSTANCE_ID).or_else(instance)),
        ];
        pairs
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.filter(|value| !value.is_empty())?)))
            .collect()
    }
}

impl Container {
    /// `container.image.*`: the name and tag that were asked for, the digest that was found.
    fn attributes(&self) -> Vec<(String, Value)> {
        let asked = Image::parse(&self.image);
        let found = Image::parse(self.image_id.rsplit("://").next().unwrap_or_default());
        let asked = asked
            .iter()
            .flat_map(Image::attributes)
            .filter(|(key, _)| key != name::CONTAINER_IMAGE_REPO_DIGESTS);
        let found = found
            .iter()
            .flat_map(Image::attributes)
            .filter(|(key, _)| key == name::CONTAINER_IMAGE_REPO_DIGESTS);
        asked.chain(found).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::Document;
    use crate::place;
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    fn kept(document: Json, labels: bool) -> Pod {
        serde_json::from_value::<Document>(document).unwrap().pod(labels).unwrap()
    }

    fn document(owner: &Json) -> Json {
        json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u", "labels": {}, "annotations": {}, "ownerReferences": [owner] },
            "spec": { "nodeName": "gpu-01", "containers": [{ "name": "c", "image": "vllm/vllm-openai:v0.11.0" }] },
            "status": { "containerStatuses": [{
                "name": "c", "image": "sha256:77", "imageID": "docker.io/vllm/vllm-openai@sha256:88",
                "containerID": "containerd://ab", "started": true, "ready": true,
            }] },
        })
    }

    fn place() -> Place {
        let container = place::Container { id: "ab".to_owned(), ..place::Container::default() };
        Place { containers: vec![container], ..Place::default() }
    }

    fn found(pod: &Pod, key: &str) -> Option<Value> {
        let attributes = pod.attributes(&place());
        let mut found = attributes.iter().filter(|(known, _)| known == key);
        let value = found.next().map(|(_, value)| value.clone());
        assert!(found.next().is_none(), "{key} stands twice in {attributes:?}");
        value
    }

    #[test]
    fn the_service_is_named_by_the_first_that_names_it() {
        let mut document = document(&json!({ "kind": "ReplicaSet", "name": "web-5d4f", "controller": true }));
        // Each line adds to those above it.
        for (part, key, value, by_labels, expected) in [
            ("labels", "team", "nlp", true, "web-5d4f"),
            ("labels", "pod-template-hash", "5d4f", true, "web"),
            ("labels", "app.kubernetes.io/name", "vllm", false, "web"),
            ("labels", "app.kubernetes.io/name", "vllm", true, "vllm"),
            ("labels", "app.kubernetes.io/instance", "llama-70b", true, "llama-70b"),
            ("annotations", "resource.opentelemetry.io/service.name", "", true, "llama-70b"),
            ("annotations", "resource.opentelemetry.io/service.name", "chat", true, "chat"),
        ] {
            document["metadata"][part][key] = json!(value);
            let pod = kept(document.clone(), by_labels);
            assert_eq!(found(&pod, "service.name"), Some(text(expected)), "{key}: {value}");
        }
    }

    #[test]
    fn owners_are_told_as_far_as_names_tell() {
        for (kind, name, controller, attribute, expected) in [
            ("ReplicaSet", "web-5d4f", true, "k8s.deployment.name", Some("web")),
            ("ReplicaSet", "web-5d4f", true, "k8s.replicaset.name", Some("web-5d4f")),
            // A ReplicaSet of nobody's.
            ("ReplicaSet", "web", true, "k8s.deployment.name", None),
            ("ReplicaSet", "-5d4f", true, "k8s.deployment.name", None),
            ("StatefulSet", "llama", true, "k8s.statefulset.name", Some("llama")),
            ("DaemonSet", "embed", true, "k8s.daemonset.name", Some("embed")),
            ("Job", "batch-29390400", true, "k8s.cronjob.name", Some("batch")),
            ("Job", "batch-29390400", true, "k8s.job.name", Some("batch-29390400")),
            ("Job", "batch-2024", true, "k8s.cronjob.name", None),
            ("Job", "run-99999999", true, "k8s.cronjob.name", None),
            ("RayCluster", "ray", true, "service.name", Some("p")),
            ("StatefulSet", "llama", false, "k8s.statefulset.name", None),
        ] {
            let mut document = document(&json!({ "kind": kind, "name": name, "controller": controller }));
            document["metadata"]["labels"]["pod-template-hash"] = json!("5d4f");
            assert_eq!(found(&kept(document, true), attribute), expected.map(text), "{kind} {name}");
        }
    }

    #[test]
    fn version_and_instance_follow_from_the_container() {
        let mut document = document(&json!({}));
        let pod = kept(document.clone(), true);
        let list = |value: &str| Some(Value::Strs(vec![value.to_owned()]));
        assert_eq!(found(&pod, "service.version"), Some(text("v0.11.0")));
        assert_eq!(found(&pod, "service.instance.id"), Some(text("n.p.c")));
        assert_eq!(found(&pod, "service.namespace"), Some(text("n")));
        assert_eq!(found(&pod, "container.image.name"), Some(text("vllm/vllm-openai")));
        assert_eq!(found(&pod, "container.image.tags"), list("v0.11.0"));
        assert_eq!(found(&pod, "container.image.repo_digests"), list("docker.io/vllm/vllm-openai@sha256:88"));
        let elsewhere = pod.attributes(&Place::default());
        assert!(
            !elsewhere.iter().any(|(key, _)| key == "service.instance.id" || key.starts_with("container."))
        );
        document["metadata"]["labels"] = json!({ "app.kubernetes.io/version": "2" });
        assert_eq!(found(&kept(document.clone(), true), "service.version"), Some(text("2")));
        document["metadata"]["annotations"] = json!({
            "resource.opentelemetry.io/service.version": "3",
            "resource.opentelemetry.io/service.namespace": "shop",
            "resource.opentelemetry.io/service.instance.id": "i",
        });
        let pod = kept(document, true);
        for (key, expected) in [("version", "3"), ("namespace", "shop"), ("instance.id", "i")] {
            assert_eq!(found(&pod, &format!("service.{key}")), Some(text(expected)), "{key}");
        }
    }

    #[test]
    fn annotations_add_and_do_not_overrule() {
        let mut document = document(&json!({}));
        document["metadata"]["annotations"] = json!({
            "resource.opentelemetry.io/team": "nlp",
            "resource.opentelemetry.io/k8s.namespace.name": "kube-system",
            "resource.opentelemetry.io/process.pid": "1",
            "resource.opentelemetry.io/gpuspan.emits_spans": "true",
            "resource.opentelemetry.io/": "nothing",
            "team": "other",
        });
        let pod = kept(document, true);
        assert_eq!(found(&pod, "team"), Some(text("nlp")));
        assert_eq!(found(&pod, "k8s.namespace.name"), Some(text("n")));
        assert_eq!(
            (found(&pod, "process.pid"), found(&pod, "gpuspan.emits_spans"), found(&pod, "")),
            (None, None, None)
        );
    }

    #[test]
    fn little_is_kept_of_a_long_document() {
        let many = |n: usize, key: &dyn Fn(usize) -> String, value: &str| -> Json {
            (0..n).map(|n| (key(n), json!(value))).collect::<serde_json::Map<_, _>>().into()
        };
        let mut document = document(&json!({}));
        document["metadata"]["labels"] = many(1000, &|n| format!("l{n}"), "x");
        document["metadata"]["annotations"] = many(1000, &|n| format!("resource.opentelemetry.io/a{n}"), "y");
        document["metadata"]["annotations"]["resource.opentelemetry.io/0"] = json!("z".repeat(100_000));
        document["status"]["containerStatuses"] =
            (0..1000).map(|n| json!({ "name": "c", "containerID": format!("containerd://{n}") })).collect();
        let pod = kept(document, true);
        assert_eq!((pod.labels.len(), pod.annotations.len(), pod.containers.len()), (64, 32, 64));
        assert!(pod.annotations.values().all(|value| value == "y"));
    }

    #[test]
    fn what_go_writes_for_nothing_is_nothing() {
        let text = r#"{"metadata":{"name":"p","namespace":"n","uid":"u","creationTimestamp":null,"labels":null,"annotations":null,
            "ownerReferences":null},"spec":{"containers":null,"nodeName":"a"},"status":{"containerStatuses":null}}"#;
        let pod = serde_json::from_str::<Document>(text).unwrap().pod(true).unwrap();
        assert_eq!((pod.name.as_str(), pod.containers.len(), pod.owners.len()), ("p", 0, 0));
        assert_eq!(serde_json::from_str::<Document>("{}").unwrap().pod(true), None);
    }

    proptest! {
        /// Names are those of tenants.
        #[test]
        fn no_name_stops_the_reader(words in prop::collection::vec(any::<String>(), 8), kind in 0_usize..6) {
            let [name, uid, owner, hash, key, value, image, id] = <[String; 8]>::try_from(words).unwrap();
            let owner = json!({ "kind": OWNERS[kind].0, "name": owner, "controller": true });
            let mut document = document(&owner);
            document["metadata"]["name"] = json!(name);
            document["metadata"]["uid"] = json!(format!("u{uid}"));
            document["metadata"]["labels"]["pod-template-hash"] = json!(hash);
            document["metadata"]["annotations"][format!("resource.opentelemetry.io/{key}")] = json!(value);
            document["spec"]["containers"][0]["image"] = json!(image);
            document["status"]["containerStatuses"][0]["containerID"] = json!(id);
            let attributes = kept(document, true).attributes(&place());
            let keys: std::collections::BTreeSet<_> = attributes.iter().map(|(key, _)| key).collect();
            prop_assert_eq!(keys.len(), attributes.len());
        }
    }
}
