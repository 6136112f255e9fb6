//! One agent beside containers of three runtimes: real servers and a program that only maps the runtime, each in
//! namespaces and a cgroup of its own, and the API server that knows whose pods two of them are.

mod container;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use cluster::{NODE, Server as Cluster, pod};
use container::Container;
use e2e::{Agent, Span, or_skip, wait};
use serde_json::Value;
use simgpu::Environment;
use tempfile::TempDir;
use workload::options::Runtime;
use workload::{ClientRecord, ServerOptions, server_binary};
use xtask::server::{self, Name, Options, Prepared, Spec};

/// From the moment when a process is a server, or is none any more.
const FOUND: Duration = Duration::from_secs(2);
const REQUESTS: usize = 8;

/// A container and what should be told of it.
struct Case {
    prepared: Prepared,
    cgroup: String,
    /// What it is to be called.
    service: &'static str,
    container: String,
    /// Further attributes of its resource.
    expected: Vec<(&'static str, String)>,
}

#[test]
fn fleet_of_containers_is_told_apart() {
    if std::env::var_os("GPUSPAN_SERVERS").is_none() {
        println!("skipped: real servers in containers are big; `cargo xtask test servers fleet` runs them");
        return;
    }
    or_skip!();
    let folder = TempDir::new().unwrap();
    let cluster = Cluster::start("token");
    let agent = Agent::start(&format!(
        "budget: {{ target: 400%, node: 800% }}\nkubernetes: {{ enabled: on, node: {NODE}, api: '{}', token_file: {}, ca_file: {} }}\n",
        cluster.url(),
        cluster.token_file().display(),
        cluster.ca_file().display()
    ))
    .unwrap();
    wait::until("the list of pods", || Ok((agent.page("/readyz")?.0 == 200).then_some(()))).unwrap();
    let before = links(&agent);

    let idle = Container::start(&idle(&folder), &format!("/docker/{}", id(0))).unwrap();
    let mut servers = Vec::new();
    for case in [transformers(), llama(&cluster), workload(&cluster, &folder)] {
        let mut container = Container::start(&case.prepared, &case.cgroup).unwrap();
        let name = case.prepared.spec.name;
        // What is known by its command line is found at once, other programs when they listen.
        if name == "workload" {
            container.inside(server::Running::ready).unwrap();
        }
        let start = Instant::now();
        agent.wait_for(FOUND, container.pid, |target| target.is_some()).unwrap();
        println!("{name} found in {:?}", start.elapsed());
        let service = case.service;
        let is_named = |target: Option<&Value>| target.is_some_and(|target| target["name"] == service);
        agent.wait_for(FOUND, container.pid, is_named).unwrap();
        servers.push((case, container, Vec::new()));
    }
    for (case, container, records) in &mut servers {
        *records = container
            .inside(|running| {
                running.ready()?;
                Ok(crate::ask(running, REQUESTS, 7))
            })
            .unwrap();
        assert!(records.iter().all(crate::answered), "{}: {records:#?}", case.prepared.spec.name);
    }
    // An answer that came whole is told once its steps are.
    std::thread::sleep(4 * crate::SETTLE);

    let told = agent.targets().unwrap();
    assert_eq!(told["targets"].as_array().unwrap().len(), servers.len(), "{told}");
    let passed = told["passed"].to_string();
    assert!(passed.contains("neither it nor another of its group listens"), "the idle one: {told}");
    let counted =
        told["targets"].as_array().unwrap().iter().map(|target| target["requests"].as_u64().unwrap());
    assert!(counted.min() >= Some(REQUESTS as u64), "{told}");

    let records: Vec<(Case, Vec<ClientRecord>)> = servers
        .into_iter()
        .map(|(case, container, records)| {
            let pid = container.pid;
            drop(container);
            agent.wait_for(FOUND, pid, |target| target.is_none()).unwrap();
            (case, records)
        })
        .collect();
    drop(idle);
    let gone = || Ok((links(&agent) <= before).then_some(()));
    wait::until("the end of all links", gone)
        .unwrap_or_else(|_| panic!("{before} links, then {}", links(&agent)));
    let spans = agent.stop().unwrap();
    for (case, records) in &records {
        requests_are_of_it(case, records, &spans);
    }
}

/// What the agent has attached.
fn links(agent: &Agent) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap();
    let links = entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    links
        .filter(|link| {
            link.to_string_lossy().contains("perf_event") || link.to_string_lossy().contains("bpf_link")
        })
        .count()
}

/// Each request once, under the right resource.
fn requests_are_of_it(case: &Case, records: &[ClientRecord], spans: &[Span]) {
    let name = case.prepared.spec.name;
    let text = |span: &Span, key: &str| span.resource.get(key)?["stringValue"].as_str().map(str::to_owned);
    let of_it: Vec<&Span> = spans
        .iter()
        .filter(|span| span.is_server() && text(span, "container.id") == Some(case.container.clone()))
        .collect();
    let told: Vec<&str> = of_it.iter().filter_map(|span| span.text("gen_ai.response.id")).collect();
    let asked: BTreeSet<&str> = records.iter().filter_map(|record| record.id.as_deref()).collect();
    assert_eq!(told.len(), REQUESTS, "{name}: {told:?}");
    assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), asked, "{name}");
    for span in of_it {
        assert_eq!(text(span, "service.name").as_deref(), Some(case.service), "{:?}", span.resource);
        for (key, value) in &case.expected {
            assert_eq!(text(span, key).as_ref(), Some(value), "{name}: {key} in {:?}", span.resource);
        }
    }
}

fn id(number: u8) -> String {
    format!("{number:02x}").repeat(32)
}

/// Plain Docker, named by its environment.
fn transformers() -> Case {
    let mut prepared = server::prepare(Name::Transformers, &Options::default()).unwrap();
    prepared.command.env("OTEL_SERVICE_NAME", "summaries");
    Case {
        prepared,
        cgroup: format!("/docker/{}", id(1)),
        service: "summaries",
        container: id(1),
        expected: vec![
            ("container.runtime.name", "docker".to_owned()),
            ("gpuspan.server", "transformers".to_owned()),
        ],
    }
}

/// A pod under containerd and systemd's names.
fn llama(cluster: &Cluster) -> Case {
    let uid = "0f1e2d3c-4b5a-4697-8877-665544332211";
    cluster.apply(pod(
        "chat",
        uid,
        NODE,
        "ghcr.io/ggml-org/llama.cpp:server",
        &format!("containerd://{}", id(2)),
    ));
    let slice = format!("kubepods-burstable-pod{}.slice", uid.replace('-', "_"));
    let cgroup = format!("/kubepods.slice/kubepods-burstable.slice/{slice}/cri-containerd-{}.scope", id(2));
    let prepared = server::prepare(Name::Llama, &Options::default()).unwrap();
    Case { prepared, cgroup, service: "chat", container: id(2), expected: in_pod("chat", uid) }
}

/// A pod under CRI-O and cgroupfs's names: a server that nobody knows by its name.
fn workload(cluster: &Cluster, folder: &TempDir) -> Case {
    let uid = "1f1e2d3c-4b5a-4697-8877-665544332211";
    cluster.apply(pod("own-engine", uid, NODE, "registry.example/own:1", &format!("cri-o://{}", id(3))));
    let prepared = workload_server(folder);
    Case {
        prepared,
        cgroup: format!("/kubepods/besteffort/pod{uid}/{}", id(3)),
        service: "own-engine",
        container: id(3),
        expected: in_pod("own-engine", uid),
    }
}

fn in_pod(name: &str, uid: &str) -> Vec<(&'static str, String)> {
    vec![
        ("k8s.pod.uid", uid.to_owned()),
        ("k8s.pod.name", format!("{name}-7f9c4d5b6-x2x7k")),
        ("k8s.deployment.name", name.to_owned()),
        ("k8s.namespace.name", "serving".to_owned()),
        ("k8s.node.name", NODE.to_owned()),
    ]
}

fn workload_server(folder: &TempDir) -> Prepared {
    // Any port is free in a network of one's own.
    let port = 8000;
    let runtime = Runtime::Cuda13;
    let options =
        ServerOptions { listen: ([127, 0, 0, 1], port).into(), runtime, ..ServerOptions::default() };
    let mut command = Command::new(server_binary().unwrap());
    command.args(options.to_args()).envs(simgpu::command_env(simgpu::Runtime::Cuda13, &logging(folder)));
    Prepared { command, spec: spec("workload", port) }
}

/// Maps the runtime and waits.
fn idle(folder: &TempDir) -> Prepared {
    let mut command = Command::new("sh");
    let script = r#"sleep 600 | "$0" --wait-stdin --times 1 --api cudaLaunchKernel"#;
    command.args(["-c", script]).arg(simgpu::calls_program());
    command.envs(simgpu::command_env(simgpu::Runtime::Cuda12, &logging(folder)));
    Prepared { command, spec: spec("idle", 0) }
}

fn logging(folder: &TempDir) -> Environment {
    Environment { log_dir: Some(folder.path().to_owned()), ..Environment::default() }
}

fn spec(name: &'static str, port: u16) -> Spec {
    let model = ServerOptions::default().model;
    Spec { name, port, model, truth_dir: None, patience: wait::PATIENCE, held: false }
}
