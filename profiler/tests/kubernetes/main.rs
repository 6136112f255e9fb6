//! Pods of a node, asked of an API server and a kubelet that run here, over TLS with a token. Each test is one thing that
//! happens to a cluster, and what is answered before, meanwhile and afterwards.

#![expect(clippy::unwrap_used, reason = "a test ends at its first surprise")]

use cluster::{Gone, NODE, SECRET, Server, pod};
use profiler::export::Policy;
use profiler::kubernetes::{Pod, Pods, Settings, Status};
use profiler::place::{Cgroup, Place, parse};
use profiler::span::model::{Value as Attribute, text};
use serde_json::{Value, json};
use std::io::Write;
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

const TOKEN: &str = "token-that-nobody-may-see";
const CONTAINERD: &str = "3d1f5e8b0c2a4967d8e1b3f5a7092c4e6d8f1a3b5c7e9f0213456789abcdef01";
const CRIO: &str = "4e2f6f9c1d3b5a78e9f2c4a6b8103d5f7e9a2b4c6d8fa01324567890bcdef012";
const DOCKER: &str = "5f3a7aad2e4c6b89fa03d5b7c9214e608fab3c5d7e90b12435678901cdef0123";
const UID: &str = "0f1e2d3c-4b5a-4697-8877-665544332211";

/// How long a test waits for what should take milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

fn settings(server: &Server) -> Settings {
    let ms = Duration::from_millis;
    Settings {
        node: Some(NODE.to_owned()),
        api: Some(server.url()),
        token_file: server.token_file(),
        ca_file: server.ca_file(),
        retry: Policy { initial: ms(20), longest: ms(100), patience: Duration::MAX },
        ..Settings::default()
    }
}

fn vllm() -> Value {
    pod("vllm", UID, NODE, "vllm/vllm-openai:v0.11.0", &format!("containerd://{CONTAINERD}"))
}

fn place(cgroup: &str) -> Place {
    let Cgroup { containers, pod, unit, slurm } = parse(cgroup);
    Place { containers, pod, unit, slurm, vpid: None }
}

fn of(id: &str) -> Place {
    place(&format!("0::/kubepods/burstable/pod99999999-9999-4999-8999-999999999999/{id}"))
}

/// Waits until `is_so`, or fails with what the status was.
fn until(pods: &Pods, what: &str, is_so: impl Fn(&Status) -> bool) {
    let begin = Instant::now();
    while !is_so(&pods.status()) {
        assert!(begin.elapsed() < PATIENCE, "{what} did not come: {:?}", pods.status());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn synced(settings: &Settings) -> Pods {
    let pods = Pods::start(settings).unwrap();
    until(&pods, "a list", |status| status.synced && status.error.is_none());
    pods
}

fn name(pods: &Pods, id: &str) -> Option<String> {
    pods.pod(&of(id)).map(|pod| pod.name.clone())
}

fn value(pod: &Pod, place: &Place, key: &str) -> Option<Attribute> {
    pod.attributes(place).into_iter().find(|(known, _)| known == key).map(|(_, value)| value)
}

#[test]
fn pods_are_found_under_every_runtime() {
    let server = Server::start(TOKEN);
    server.apply(vllm());
    server.apply(pod("sglang", "u-crio", NODE, "lmsysorg/sglang:v0.5", &format!("cri-o://{CRIO}")));
    server.apply(pod("tgi", "u-docker", NODE, "ghcr.io/tgi:3", &format!("docker://{DOCKER}")));
    server.apply(pod("other", "u-other", "gpu-02", "x", &format!("containerd://{}", "ab".repeat(32))));
    let pods = synced(&settings(&server));
    let slice = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod99999999_9999_4999_8999_999999999999.slice";
    for (cgroup, service, runtime) in [
        (format!("0::/{slice}/cri-containerd-{CONTAINERD}.scope"), "vllm", "containerd"),
        (
            format!(
                "11:memory:/kubepods/burstable/pod{UID}/{CONTAINERD}\n1:name=systemd:/kubepods/burstable/pod{UID}/{CONTAINERD}"
            ),
            "vllm",
            "containerd",
        ),
        (format!("0::/../../pod{UID}/{CONTAINERD}"), "vllm", "containerd"),
        (format!("0::/{slice}/crio-{CRIO}.scope/container"), "sglang", "cri-o"),
        (format!("9:cpu:/kubepods/besteffort/podu/crio-{CRIO}"), "sglang", "cri-o"),
        (format!("0::/{slice}/docker-{DOCKER}.scope"), "tgi", "docker"),
        (format!("4:pids:/kubepods/burstable/pod{UID}/{DOCKER}"), "tgi", "docker"),
    ] {
        let place = place(&cgroup);
        let pod = pods.pod(&place).unwrap_or_else(|| panic!("no pod for {cgroup}"));
        for (key, expected) in [
            ("service.name", service.to_owned()),
            ("service.namespace", "serving".to_owned()),
            ("service.instance.id", format!("serving.{service}-7f9c4d5b6-x2x7k.server")),
            ("k8s.deployment.name", service.to_owned()),
            ("k8s.replicaset.name", format!("{service}-7f9c4d5b6")),
            ("k8s.pod.name", format!("{service}-7f9c4d5b6-x2x7k")),
            ("k8s.container.name", "server".to_owned()),
            ("k8s.node.name", NODE.to_owned()),
            ("container.runtime.name", runtime.to_owned()),
            ("deployment.environment.name", "prod".to_owned()),
        ] {
            assert_eq!(value(&pod, &place, key), Some(text(&expected)), "{key} of {cgroup}");
        }
    }
    assert_eq!(pods.pod(&of(&"ab".repeat(32))), None, "a pod of another node");
    assert_eq!(pods.status().pods, 3);
    let (asked, _) = server.cluster().asked[0].clone();
    assert!(
        asked.contains("fieldSelector=spec.nodeName%3Dgpu-01") && asked.contains("resourceVersion=0"),
        "{asked}"
    );
}

#[test]
fn a_pod_is_found_by_its_uid_until_its_status_has_the_container() {
    let server = Server::start(TOKEN);
    let mut young = vllm();
    young["status"]["containerStatuses"][0].as_object_mut().unwrap().remove("containerID");
    server.apply(young);
    let pods = synced(&settings(&server));
    let place = place(&format!("0::/kubepods/burstable/pod{UID}/{CONTAINERD}"));
    let pod = pods.pod(&place).unwrap();
    assert_eq!(
        (value(&pod, &place, "service.name"), value(&pod, &place, "k8s.container.name")),
        (Some(text("vllm")), None)
    );
    let generation = pods.generation();
    server.apply(vllm());
    until(&pods, "the container", |_| pods.pod(&place).is_some_and(|pod| pod.container(&place).is_some()));
    assert!(pods.generation() > generation);
}

#[test]
fn changes_follow_and_what_is_not_kept_is_none() {
    let server = Server::start(TOKEN);
    let pods = synced(&settings(&server));
    assert_eq!(pods.status().pods, 0);
    server.apply(vllm());
    until(&pods, "the pod", |_| name(&pods, CONTAINERD).is_some());
    let generation = pods.generation();
    // Neither a condition nor a bookmark changes an answer; both are signs of life.
    let mut changed = vllm();
    changed["status"]["conditions"][0]["lastTransitionTime"] = json!("2026-11-20T09:00:00Z");
    server.apply(changed);
    server.bookmark();
    server.apply(pod("sglang", "u-2", NODE, "x", &format!("cri-o://{CRIO}")));
    until(&pods, "the second pod", |_| name(&pods, CRIO).is_some());
    assert_eq!(pods.generation(), generation + 1);
    server.delete(UID);
    until(&pods, "the end of the pod", |_| name(&pods, CONTAINERD).is_none());
    assert_eq!((pods.generation(), pods.status().pods), (generation + 2, 1));
    assert!(pods.status().since_contact.unwrap() < PATIENCE);
    // One list, one watch.
    assert_eq!(server.cluster().asked.len(), 2, "{:?}", server.cluster().asked);
}

#[test]
fn a_wrong_token_is_refused_and_said_and_a_right_one_is_taken_up() {
    let server = Server::start(TOKEN);
    server.apply(vllm());
    server.write_token("wrong");
    let pods = Pods::start(&settings(&server)).unwrap();
    until(&pods, "a refusal", |status| status.error.is_some());
    let status = pods.status();
    let error = status.error.unwrap();
    assert!(error.contains("(401)") && error.contains(server.token_file().to_str().unwrap()), "{error}");
    assert!(!status.synced && status.since_contact.is_none() && !error.contains("wrong"));
    assert_eq!(name(&pods, CONTAINERD), None);
    server.write_token(TOKEN);
    until(&pods, "the list", |status| status.synced && status.error.is_none());
    assert!(name(&pods, CONTAINERD).is_some());
}

#[test]
fn a_token_that_rotates_is_read_anew() {
    let mut server = Server::start(TOKEN);
    server.apply(vllm());
    let pods = synced(&settings(&server));
    server.cluster().token = "rotated".to_owned();
    server.write_token("rotated");
    // The watch outlives its token; the next one needs the new one.
    server.go_away();
    server.come_back();
    server.apply(pod("sglang", "u-2", NODE, "x", &format!("cri-o://{CRIO}")));
    until(&pods, "the second pod", |_| name(&pods, CRIO).is_some());
    assert_eq!(server.cluster().asked.last().unwrap().1.as_deref(), Some("Bearer rotated"));
}

#[test]
fn missing_rights_are_said() {
    let server = Server::start(TOKEN);
    server.cluster().allowed = false;
    let pods = Pods::start(&settings(&server)).unwrap();
    until(&pods, "a refusal", |status| status.error.is_some());
    let error = pods.status().error.unwrap();
    assert!(error.contains("(403)") && error.contains("get, list and watch on pods"), "{error}");
}

#[test]
fn a_server_of_another_authority_is_not_told_the_token() {
    let (server, other) = (Server::start(TOKEN), Server::start(TOKEN));
    let pods = Pods::start(&Settings { ca_file: other.ca_file(), ..settings(&server) }).unwrap();
    until(&pods, "a refusal", |status| status.error.is_some());
    let error = pods.status().error.unwrap();
    assert!(error.contains("certificate"), "{error}");
    assert!(server.cluster().asked.is_empty());
}

#[test]
fn a_forgotten_past_is_listed_anew() {
    for gone in [Gone::Event, Gone::Status] {
        let mut server = Server::start(TOKEN);
        server.cluster().gone = gone;
        server.apply(vllm());
        let pods = synced(&settings(&server));
        let generation = pods.generation();
        server.go_away();
        // Nobody is told that the one went and the other came.
        server.delete(UID);
        server.apply(pod("sglang", "u-2", NODE, "x", &format!("cri-o://{CRIO}")));
        server.forget_the_past();
        server.come_back();
        until(&pods, "the second pod", |_| name(&pods, CRIO).is_some());
        assert_eq!((name(&pods, CONTAINERD), pods.generation()), (None, generation + 1), "{gone:?}");
        until(&pods, "peace", |status| status.error.is_none());
        // And it is watched from there.
        server.apply(vllm());
        until(&pods, "the first pod again", |_| name(&pods, CONTAINERD).is_some());
    }
}

/// `GPUSPAN_OUTAGE_S=60` makes it the minute that a control plane may take to restart.
#[test]
fn while_the_server_is_away_what_is_known_is_answered() {
    let seconds = std::env::var("GPUSPAN_OUTAGE_S").ok().and_then(|value| value.parse().ok()).unwrap_or(2);
    let mut server = Server::start(TOKEN);
    server.apply(vllm());
    let mut settings = settings(&server);
    if seconds >= 60 {
        settings.retry = Settings::default().retry;
    }
    let pods = synced(&settings);
    let lists =
        |server: &Server| server.cluster().asked.iter().filter(|(path, _)| !path.contains("watch")).count();
    server.go_away();
    let begin = Instant::now();
    let mut slowest = Duration::ZERO;
    while begin.elapsed() < Duration::from_secs(seconds) {
        let asked = Instant::now();
        assert!(name(&pods, CONTAINERD).is_some());
        slowest = slowest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    let status = pods.status();
    assert!(
        status.synced && status.error.is_some_and(|error| error.contains("refused")),
        "{:?}",
        pods.status()
    );
    server.apply(pod("sglang", "u-2", NODE, "x", &format!("cri-o://{CRIO}")));
    server.come_back();
    let back = Instant::now();
    until(&pods, "the new pod", |_| name(&pods, CRIO).is_some());
    println!(
        "away for {seconds} s: slowest answer {slowest:?}, new pod {:?} after the return",
        back.elapsed()
    );
    assert!(slowest < Duration::from_millis(100), "{slowest:?}");
    assert_eq!(lists(&server), 1, "the watch goes on where it was");
}

#[test]
fn a_server_that_does_not_answer_holds_nobody_up() {
    let server = Server::start(TOKEN);
    server.cluster().stalled = true;
    let pods = Pods::start(&settings(&server)).unwrap();
    let begin = Instant::now();
    while server.cluster().asked.is_empty() {
        assert!(begin.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    let begin = Instant::now();
    assert_eq!(name(&pods, CONTAINERD), None);
    pods.finish();
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}

#[test]
fn a_kubelet_is_asked_where_it_is_named() {
    // Alone.
    let kubelet = Server::start(TOKEN);
    let mut fixed = vllm();
    fixed["metadata"]["uid"] = json!("6a1b2c3d4e5f60718293a4b5c6d7e8f9");
    kubelet.apply(fixed.clone());
    let alone = Settings { api: None, kubelet: Some(kubelet.url()), ..settings(&kubelet) };
    let pods = synced(&alone);
    let place = place("0::/kubepods/burstable/pod6a1b2c3d4e5f60718293a4b5c6d7e8f9/none");
    assert!(pods.pod(&place).is_some() && name(&pods, CONTAINERD).is_some());
    // Instead of an API server that is away. That has a copy of the static pod, with a uid of its own.
    let mut api = Server::start(TOKEN);
    let mut copy = vllm();
    copy["metadata"]["annotations"]["kubernetes.io/config.mirror"] = fixed["metadata"]["uid"].clone();
    api.apply(copy);
    std::fs::write(
        api.ca_file(),
        [api.ca_file(), kubelet.ca_file()].map(|file| std::fs::read(file).unwrap()).concat(),
    )
    .unwrap();
    let pods = synced(&Settings { kubelet: Some(kubelet.url()), ..settings(&api) });
    assert_eq!(pods.pod(&place).unwrap().uid, UID);
    let asked = kubelet.cluster().asked.len();
    assert_eq!(asked, 1, "as long as the API server answers, the kubelet is left alone");
    api.go_away();
    kubelet.apply(pod("sglang", "u-2", NODE, "x", &format!("cri-o://{CRIO}")));
    until(&pods, "the new pod", |_| name(&pods, CRIO).is_some());
    assert!(pods.status().error.is_some(), "the API server's absence is said all the same");
    api.come_back();
    until(&pods, "the API server's word", |status| status.error.is_none() && name(&pods, CRIO).is_none());
    assert_eq!(pods.pod(&place).unwrap().uid, UID);
}

/// Everything that is logged in this process.
fn log() -> Arc<Mutex<Vec<u8>>> {
    static LOG: Mutex<Option<Arc<Mutex<Vec<u8>>>>> = Mutex::new(None);
    static ONCE: Once = Once::new();
    struct Writer(Arc<Mutex<Vec<u8>>>);
    impl Write for Writer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Arc::clone(LOG.lock().unwrap().get_or_insert_default());
    let for_writer = Arc::clone(&log);
    ONCE.call_once(|| {
        let all = tracing_subscriber::fmt().with_env_filter("trace").with_ansi(false);
        all.with_writer(move || Writer(Arc::clone(&for_writer))).init();
    });
    log
}

#[test]
fn no_secret_is_logged_or_kept() {
    let log = log();
    let server = Server::start(TOKEN);
    server.apply(vllm());
    // Answers that cannot be read hold secrets like any other.
    server.cluster().nonsense =
        Some("{\"items\":[{\"metadata\":{\"name\":[\"hf_secretThatNobodyMaySee\"]}}]}");
    let pods = Pods::start(&settings(&server)).unwrap();
    until(&pods, "an answer that cannot be read", |status| status.error.is_some());
    assert!(pods.status().error.unwrap().contains("cannot be read"));
    server.cluster().nonsense = None;
    until(&pods, "the list", |status| status.synced && status.error.is_none());
    let mut changed = vllm();
    changed["metadata"]["name"] = json!([SECRET]);
    server.apply(changed);
    until(&pods, "an event that cannot be read", |status| status.error.is_some());
    let kept = format!("{:?} {:?}", pods, pods.status());
    let said = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    assert!(said.contains("pods are told as they were"), "the log is not captured");
    for text in [kept, said] {
        assert!(!text.contains(TOKEN) && !text.contains(SECRET), "{text}");
    }
}
