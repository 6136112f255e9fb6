//! An API server and a kubelet of a small cluster, over TLS with a token: lists, watches with versions and bookmarks,
//! refusals, and a past that can be forgotten. In: what a test does to the cluster. Out: answers as Kubernetes gives them.
//! Absent: everything but pods.
//!
//! Documents are written after those that Kubernetes 1.34 gives for pods under containerd, CRI-O and Docker, with what
//! must not be kept in its place: environments, volumes, managed fields.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends at its first surprise")]

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;

/// The node whose pods a test asks for.
pub const NODE: &str = "gpu-01";
/// Stands wherever a pod's document may hold a secret.
pub const SECRET: &str = "hf_secretThatNobodyMaySee";

/// A pod of a Deployment, with one container that runs. `container_id` has its runtime in front, as in
/// `containerd://3d1f…`.
#[must_use]
pub fn pod(name: &str, uid: &str, node: &str, image: &str, container_id: &str) -> Value {
    json!({
        "metadata": {
            "name": format!("{name}-7f9c4d5b6-x2x7k", ), "generateName": format!("{name}-7f9c4d5b6-"), "namespace": "serving", "uid": uid,
            "creationTimestamp": "2026-11-20T08:15:02Z",
            "labels": { "app.kubernetes.io/name": name, "pod-template-hash": "7f9c4d5b6" },
            "annotations": { "kubectl.kubernetes.io/restartedAt": SECRET, "resource.opentelemetry.io/deployment.environment.name": "prod" },
            "ownerReferences": [
                { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{name}-7f9c4d5b6"), "uid": "77", "controller": true, "blockOwnerDeletion": true },
            ],
            "managedFields": [{ "manager": "kubelet", "operation": "Update", "fieldsV1": { "f:status": { "f:phase": {} } } }],
        },
        "spec": {
            "nodeName": node, "restartPolicy": "Always", "serviceAccountName": "default",
            "volumes": [{ "name": "models", "hostPath": { "path": "/models", "type": "" } }],
            "containers": [{
                "name": "server", "image": image, "args": ["--model", "llama"], "resources": { "limits": { "nvidia.com/gpu": "1" } },
                "env": [{ "name": "HF_TOKEN", "value": SECRET }], "volumeMounts": [{ "name": "models", "mountPath": "/models" }],
            }],
        },
        "status": {
            "phase": "Running", "qosClass": "Burstable", "podIP": "10.244.1.7", "startTime": "2026-11-20T08:15:02Z",
            "conditions": [{ "type": "Ready", "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-11-20T08:15:33Z" }],
            "containerStatuses": [{
                "name": "server", "image": format!("docker.io/{image}"), "imageID": format!("docker.io/{image}@sha256:0011"),
                "containerID": container_id, "started": true, "ready": true, "restartCount": 0,
                "state": { "running": { "startedAt": "2026-11-20T08:15:30Z" } }, "lastState": {},
            }],
        },
    })
}

/// How a past that is forgotten is refused: API servers do both.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Gone {
    /// As an event, after status 200.
    #[default]
    Event,
    /// As the status.
    Status,
}

/// What there is, and how it is answered for.
#[derive(Debug, Default)]
pub struct Cluster {
    pods: BTreeMap<String, Value>,
    /// Version, type, document.
    history: Vec<(u64, &'static str, Value)>,
    version: u64,
    /// Nothing before this is known any more.
    forgotten: u64,
    /// How a past that is forgotten is refused.
    pub gone: Gone,
    /// The account's token.
    pub token: String,
    /// May pods be read?
    pub allowed: bool,
    /// Answers lists with this in place of JSON.
    pub nonsense: Option<&'static str>,
    /// Accepts questions and does not answer.
    pub stalled: bool,
    /// Sends a bookmark to each watch.
    pub bookmarks: u64,
    /// Paths with their queries, and the token of each.
    pub asked: Vec<(String, Option<String>)>,
}

impl Cluster {
    fn happen(&mut self, kind: &'static str, mut pod: Value) {
        self.version += 1;
        pod["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
        if kind == "DELETED" {
            self.pods.remove(&uid);
        } else {
            self.pods.insert(uid, pod.clone());
        }
        self.history.push((self.version, kind, pod));
    }

    /// Pods of a node, as a list.
    fn list(&self, node: Option<&str>) -> Value {
        let items: Vec<&Value> = self.pods.values().filter(|pod| is_on(pod, node)).collect();
        let metadata = json!({ "resourceVersion": self.version.to_string() });
        json!({ "kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items })
    }
}

fn is_on(pod: &Value, node: Option<&str>) -> bool {
    node.is_none_or(|node| pod["spec"]["nodeName"] == node)
}

/// The cluster, and a word that something happened to it.
#[derive(Debug, Default)]
struct Shared {
    cluster: Mutex<Cluster>,
    changes: watch::Sender<()>,
}

/// A server that can be taken away and brought back.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Runtime,
    task: Option<JoinHandle<()>>,
    tls: Arc<ServerConfig>,
    folder: tempfile::TempDir,
}

impl Server {
    /// With the credentials of an account in files.
    #[must_use]
    pub fn start(token: &str) -> Self {
        let (authority, tls) = pki();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut server = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            shared: Arc::default(),
            runtime,
            task: None,
            tls,
            folder: tempfile::tempdir().unwrap(),
        };
        *server.cluster() =
            Cluster { token: token.to_owned(), allowed: true, version: 1000, ..Cluster::default() };
        server.write_token(token);
        std::fs::write(server.ca_file(), authority).unwrap();
        server.come_back();
        server
    }

    /// Where it answers.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Holds the token, as in a pod.
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    /// Holds the authority's certificate.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// Another token in the file; what the server takes is in [`Cluster::token`].
    pub fn write_token(&self, token: &str) {
        std::fs::write(self.token_file(), token).unwrap();
    }

    /// What there is.
    pub fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.shared.cluster.lock().unwrap()
    }

    /// A pod is there, or is another than before.
    pub fn apply(&self, pod: Value) {
        let known = self.cluster().pods.contains_key(pod["metadata"]["uid"].as_str().unwrap());
        self.cluster().happen(if known { "MODIFIED" } else { "ADDED" }, pod);
        self.shared.changes.send_replace(());
    }

    /// A pod is gone.
    pub fn delete(&self, uid: &str) {
        let pod = self.cluster().pods[uid].clone();
        self.cluster().happen("DELETED", pod);
        self.shared.changes.send_replace(());
    }

    /// As etcd does after five minutes. Watches under way go on.
    pub fn forget_the_past(&self) {
        let mut cluster = self.cluster();
        cluster.forgotten = cluster.version;
        cluster.history.clear();
    }

    /// A bookmark to every watch.
    pub fn bookmark(&self) {
        self.cluster().bookmarks += 1;
        self.shared.changes.send_replace(());
    }

    /// Ends every connection and takes no more.
    pub fn go_away(&mut self) {
        let task = self.task.take().unwrap();
        task.abort();
        assert!(self.runtime.block_on(task).unwrap_err().is_cancelled());
    }

    /// Answers again, at the same address.
    pub fn come_back(&mut self) {
        let listener = self.runtime.block_on(TcpListener::bind(self.address)).unwrap();
        self.address = listener.local_addr().unwrap();
        let (shared, acceptor) = (Arc::clone(&self.shared), TlsAcceptor::from(Arc::clone(&self.tls)));
        self.task = Some(self.runtime.spawn(async move {
            // Dropped with this task, and the connections with it.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, acceptor) = (Arc::clone(&shared), acceptor.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = hyper::service::service_fn(|request| answer(Arc::clone(&shared), request));
                    let server = hyper::server::conn::http1::Builder::new();
                    // A client that hangs up is no concern of the server's.
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        }));
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let reply = {
        let mut cluster = shared.cluster.lock().unwrap();
        let token =
            request.headers().get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
        cluster.asked.push((request.uri().to_string(), token));
        if cluster.stalled { None } else { Some(reply(&shared, &cluster, request.uri())) }
    };
    match reply {
        Some(reply) => Ok(reply),
        None => std::future::pending().await,
    }
}

fn reply(shared: &Arc<Shared>, cluster: &Cluster, uri: &Uri) -> Response<Body> {
    let query: HashMap<_, _> =
        uri.query().unwrap_or_default().split('&').filter_map(|p| p.split_once('=')).collect();
    // The `=` in the selector's value comes percent-encoded.
    let node = query.get("fieldSelector").map(|field| field.strip_prefix("spec.nodeName%3D").unwrap());
    let (_, token) = cluster.asked.last().unwrap();
    if token.as_ref() != Some(&format!("Bearer {}", cluster.token)) {
        return status(401, "Unauthorized");
    }
    if !cluster.allowed {
        return status(403, "pods is forbidden: User \"agent\" cannot list resource \"pods\"");
    }
    match (uri.path(), query.contains_key("watch")) {
        ("/api/v1/pods", true) => {
            let from: u64 = query["resourceVersion"].parse().unwrap();
            let forgotten = from < cluster.forgotten;
            if forgotten && cluster.gone == Gone::Status {
                return status(410, "too old resource version");
            }
            let node = node.map(str::to_owned);
            events(Arc::clone(shared), from, cluster.bookmarks, node, forgotten)
        }
        ("/api/v1/pods" | "/pods", false) => match cluster.nonsense {
            Some(nonsense) => whole(200, nonsense.to_owned()),
            None => whole(200, cluster.list(node).to_string()),
        },
        _ => status(404, "the server could not find the requested resource"),
    }
}

/// Events from a version on, until the client has gone.
fn events(
    shared: Arc<Shared>,
    from: u64,
    bookmarks: u64,
    node: Option<String>,
    forgotten: bool,
) -> Response<Body> {
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (mut from, mut bookmarks) = (from, bookmarks);
        let mut changes = shared.changes.subscribe();
        if forgotten {
            let _ =
                sender.send(json!({ "type": "ERROR", "object": failure(410, "too old resource version") }));
            return;
        }
        loop {
            changes.borrow_and_update();
            let lines: Vec<Value> = {
                let cluster = shared.cluster.lock().unwrap();
                let news = cluster.history.iter().filter(|(version, _, _)| *version > from);
                let news = news.filter(|(_, _, pod)| is_on(pod, node.as_deref()));
                let news = news.map(|(_, kind, pod)| json!({ "type": kind, "object": pod }));
                let metadata =
                    json!({ "resourceVersion": cluster.version.to_string(), "creationTimestamp": null });
                let object = json!({ "kind": "Pod", "apiVersion": "v1", "metadata": metadata });
                let bookmark =
                    (cluster.bookmarks > bookmarks).then(|| json!({ "type": "BOOKMARK", "object": object }));
                let lines = news.chain(bookmark).collect();
                (bookmarks, from) = (cluster.bookmarks, cluster.version);
                lines
            };
            if lines.into_iter().any(|line| sender.send(line).is_err()) || changes.changed().await.is_err() {
                return;
            }
        }
    });
    let lines = UnboundedReceiverStream::new(receiver);
    let frames = lines.map(|line| Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{line}\n")))));
    Response::new(StreamBody::new(frames).boxed_unsync())
}

fn failure(code: u16, message: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": "x", "code": code })
}

fn status(code: u16, message: &str) -> Response<Body> {
    whole(code, failure(code, message).to_string())
}

fn whole(code: u16, text: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

/// An authority, and a server with a certificate of its for loopback.
fn pki() -> (String, Arc<ServerConfig>) {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let certificate = CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    (authority.pem(), Arc::new(config))
}
