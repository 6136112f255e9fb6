//! Spans that threads publish (OTEP 4947): read however the program gets to the variable, followed as they change, and
//! used for requests, for the work that was sent for them, and for work of jobs.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::otlp::Link;
use e2e::program::run;
use e2e::{Observation, Report, Sockets, Span, or_skip, recording, wait};
use serde_json::Value;
use simgpu::{Environment, Runtime, command_env};
use tempfile::TempDir;

use crate::checks::nothing_lost;
use crate::sockets::{Exchange, Link as Connection, READ, WRITE, client};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const OTHER: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "00f067aa0ba902b7";

/// How the program has the variable.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// In itself.
    Program,
    /// In a library that is there from the start, built with these flags.
    Start(&'static [&'static str]),
    /// In a library that is loaded later.
    Later(&'static [&'static str]),
}

/// The dialect of descriptors, which machines call by different names; aarch64 has no other.
const DESCRIPTORS: &str =
    if cfg!(target_arch = "x86_64") { "-mtls-dialect=gnu2" } else { "-mtls-dialect=desc" };

const WAYS: [Way; 7] = [
    Way::Program,
    Way::Start(&[]),
    Way::Start(&[DESCRIPTORS]),
    Way::Start(&["-ftls-model=initial-exec"]),
    Way::Later(&[]),
    Way::Later(&[DESCRIPTORS]),
    Way::Later(&[DESCRIPTORS, "-DLARGE=100000"]),
];

/// A server whose threads publish, observed.
struct Scene {
    server: Sockets,
    listener: u64,
    port: u16,
    observation: Observation,
    _folder: TempDir,
}

fn build(folder: &Path, name: &str, arguments: &[&str]) -> PathBuf {
    let out = folder.join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernel/contexts/publisher.c");
    let status =
        Command::new("cc").args(["-O1", "-o"]).arg(&out).arg(source).args(arguments).status().unwrap();
    assert!(status.success());
    out
}

impl Scene {
    fn start(way: Way, arguments: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let library = |flags: &[&str]| {
            build(folder.path(), "libpublisher.so", &[&["-shared", "-fPIC"], flags].concat())
        };
        let program = match way {
            Way::Program => {
                let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../programs/sockets");
                let all = std::fs::read_dir(sources).unwrap().map(|entry| entry.unwrap().path());
                let all: Vec<_> = all.filter(|path| path.extension().is_some_and(|end| end == "c")).collect();
                let mut arguments: Vec<&str> = all.iter().map(|path| path.to_str().unwrap()).collect();
                arguments.extend(["-rdynamic", "-ldl", "-lpthread"]);
                build(folder.path(), "publishing", &arguments)
            }
            _ => simgpu::sockets_program(),
        };
        let mut command = Command::new(program);
        command.envs(command_env(Runtime::Cuda12, &Environment::default()));
        if let Way::Start(flags) = way {
            command.env("LD_PRELOAD", library(flags));
        }
        let mut server = Sockets::spawn(&mut command).unwrap();
        server.call("load libcudart.so.12").unwrap();
        server.call("launch 1").unwrap();
        server.call("synchronize").unwrap();
        let pid = server.started_pid().unwrap();
        let observation =
            Observation::start_with(pid, &[&["--step-sample", "1", "-v"], arguments].concat(), &[]).unwrap();
        if let Way::Later(flags) = way {
            server.call(&format!("load {}", library(flags).display())).unwrap();
        }
        wait::until("the variable", || Ok(observation.stderr().contains("published=Some(Ok(").then_some(())))
            .unwrap_or_else(|error| panic!("{way:?}: {error:#} {}", observation.stderr()));
        let listener = server.call("listen4 0").unwrap();
        let port = server.call(&format!("port {listener}")).unwrap() as u16;
        Self { server, listener, port, observation, _folder: folder }
    }

    fn connect(&mut self) -> Connection {
        let client = client(self.port);
        let fd = self.server.call(&format!("accept4 {}", self.listener)).unwrap();
        Connection { client, fd }
    }

    fn publish(&mut self, trace: &str, span: u64, flags: u8) {
        publish(&mut self.server, trace, span, flags);
    }

    /// Work that a wait ends.
    fn work(&mut self, launches: u64) {
        work(&mut self.server, launches);
    }
}

fn publish(server: &mut Sockets, trace: &str, span: u64, flags: u8) {
    server.call(&format!("publish {trace} {span:016x} {flags} 1")).unwrap();
}

fn work(server: &mut Sockets, launches: u64) {
    server.call(&format!("launch {launches}")).unwrap();
    server.call("synchronize").unwrap();
}

/// Steps by what they launched.
fn step(report: &Report, launches: u64) -> &Span {
    let is_it = |span: &&Span| span.name == "engine step" && span.int("gpuspan.launches") == Some(launches);
    report.spans.iter().find(is_it).unwrap_or_else(|| panic!("no step of {launches}: {:?}", report.spans))
}

/// Where a step leads: trace, span, evidence.
fn leads<'a>(step: &'a Span) -> Vec<(&'a str, &'a str, &'a str)> {
    let lead = |link: &'a Link| {
        let evidence = link.attributes["gpuspan.evidence"]["stringValue"].as_str();
        (link.trace_id.as_str(), link.span_id.as_str(), evidence.unwrap())
    };
    step.links.iter().map(lead).collect()
}

fn request<'a>(report: &'a Report, exchange: &Exchange) -> &'a Span {
    let is_it = |span: &&Span| span.int("gen_ai.request.max_tokens") == Some(exchange.tokens);
    report.spans.iter().find(is_it).unwrap()
}

fn hex(span: u64) -> String {
    format!("{span:016x}")
}

#[test]
fn spans_of_threads_are_found_however_the_program_gets_to_them() {
    or_skip!();
    for way in WAYS {
        let mut scene = Scene::start(way, &[]);
        let mut helper = scene.server.thread().unwrap();
        // Nobody says anything, one job, another, none again, a record under way; and a thread of its own meanwhile.
        scene.work(3);
        scene.publish(TRACE, 0xa1, 1);
        scene.work(5);
        work(&mut helper, 7);
        scene.publish(OTHER, 0xa2, 1);
        publish(&mut helper, TRACE, 0xa3, 3);
        scene.work(11);
        work(&mut helper, 13);
        scene.server.call("unpublish").unwrap();
        scene.work(17);
        scene.server.call(&format!("publish {TRACE} {SPAN} 1 0")).unwrap();
        scene.work(19);
        scene.publish(TRACE, 0xa4, 0);
        scene.work(23);
        let report = scene.observation.stop().unwrap();
        let expected: [(u64, &[(&str, u64)]); 8] = [
            (3, &[]),
            (5, &[(TRACE, 0xa1)]),
            (7, &[]),
            (11, &[(OTHER, 0xa2)]),
            (13, &[(TRACE, 0xa3)]),
            (17, &[]),
            (19, &[]),
            // Its trace is not recorded: there is nothing to lead to.
            (23, &[]),
        ];
        for (launches, spans) in expected {
            let spans: Vec<_> = spans.iter().map(|(trace, span)| (*trace, hex(*span), "E1")).collect();
            let found = leads(step(&report, launches));
            let found: Vec<_> =
                found.into_iter().map(|(trace, span, how)| (trace, span.to_owned(), how)).collect();
            assert_eq!(found, spans, "{way:?} {launches}");
        }
        // A change each: main 1, 2, none, 4; the helper 3.
        assert_eq!(report.summary.loss.kernel["context"].submitted, 5, "{way:?}");
        nothing_lost(&report.summary);
    }
}

#[test]
fn requests_are_within_the_servers_own_spans_and_have_the_work_that_was_sent_for_them() {
    or_skip!();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("recording");
    let record = ["--record", path.to_str().unwrap(), "--output", "json"];
    let mut scene = Scene::start(Way::Later(&[DESCRIPTORS, "-DLARGE=100000"]), &record);
    let mut helper = scene.server.thread().unwrap();
    let caller = format!("traceparent: 00-{TRACE}-{SPAN}-01\r\n");
    // Two at once, of which one has a trace from its caller, each with work of a thread of its own.
    let (first, second) = (Exchange::new(101), Exchange::new(102));
    let (mut one, mut two) = (scene.connect(), scene.connect());
    one.ask(&mut scene.server, &first.request_with(&caller, ""), READ);
    two.ask(&mut scene.server, &second.request(), READ);
    for (round, (launches, others)) in [(29, 31), (37, 41)].into_iter().enumerate() {
        scene.publish(TRACE, 0xb0 + round as u64, 1);
        publish(&mut helper, OTHER, 0xc0, 3);
        scene.work(launches);
        work(&mut helper, others);
    }
    two.answer(&mut helper, &second.answer("x"), WRITE);
    scene.publish(TRACE, 0xb0, 1);
    one.answer(&mut scene.server, &first.answer("x"), WRITE);
    // One whose trace the server does not record.
    let third = Exchange::new(103);
    scene.server.call("unpublish").unwrap();
    one.ask(&mut scene.server, &third.request(), READ);
    scene.publish(OTHER, 0xd0, 0);
    one.answer(&mut scene.server, &third.answer("x"), WRITE);
    // One that is answered under another trace than its caller's, and one under none.
    let (fourth, fifth) = (Exchange::new(104), Exchange::new(105));
    scene.server.call("unpublish").unwrap();
    one.ask(&mut scene.server, &fourth.request_with(&caller, ""), READ);
    scene.publish(OTHER, 0xd1, 1);
    one.answer(&mut scene.server, &fourth.answer("x"), WRITE);
    scene.server.call("unpublish").unwrap();
    one.ask(&mut scene.server, &fifth.request_with(&caller, ""), READ);
    one.answer(&mut scene.server, &fifth.answer("x"), WRITE);
    let report = scene.observation.stop().unwrap();
    nothing_lost(&report.summary);
    let stands = |exchange: &Exchange| {
        let span = request(&report, exchange);
        (span.trace_id.as_str(), span.parent.clone(), span.kind, span.flags)
    };
    assert_eq!(stands(&first), (TRACE, hex(0xb0), 1, 0x101));
    assert_eq!(stands(&second), (OTHER, hex(0xc0), 1, 0x103));
    assert_eq!(stands(&fourth), (TRACE, SPAN.to_owned(), 2, 0x301));
    assert_eq!(stands(&fifth), (TRACE, SPAN.to_owned(), 2, 0x301));
    let expected = [("caller", 1), ("sampled", 4)].map(|(name, count)| (name.to_owned(), count));
    assert_eq!(report.summary.traces.requests, expected.into());
    for (exchange, steps) in [(&first, [29, 37]), (&second, [31, 41])] {
        let span = request(&report, exchange);
        for launches in steps {
            let own = (span.trace_id.as_str(), span.span_id.as_str(), "E0");
            assert_eq!(leads(step(&report, launches)), [own], "{launches}");
        }
        assert_eq!(span.int("gpuspan.launches"), Some(steps.iter().sum()), "{span:?}");
        assert_eq!(span.text("gpuspan.evidence"), Some("E0"), "{span:?}");
    }
    assert_eq!(report.summary.steps.iterations.stated, 4);
    let replays = ["first", "second"].map(|name| {
        let otlp = folder.path().join(name);
        let shown = ["--otlp-file", otlp.to_str().unwrap(), "--step-sample", "1", "--output", "none"];
        let ended = run(&[&["replay", path.to_str().unwrap()], &shown[..]].concat()).unwrap();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        std::fs::read_to_string(otlp).unwrap()
    });
    assert_eq!(replays[0], replays[1], "byte by byte");
    assert!(recording::spans(&replays[0]) == recording::spans(&report.otlp), "a replay tells other spans");
}

/// What a check says of threads' spans in a process.
fn checked(pid: u32) -> Vec<(String, String)> {
    let ended = run(&["check", "--json", "--pid", &pid.to_string()]).unwrap();
    let sections: Value = serde_json::from_str(&ended.stdout).unwrap();
    let findings =
        sections.as_array().unwrap().iter().flat_map(|section| section["findings"].as_array().unwrap());
    let found = findings.filter(|finding| finding["subject"] == "thread context");
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    found.map(|finding| (text(finding, "grade"), text(finding, "detail"))).collect()
}

#[test]
fn a_check_says_whether_spans_of_threads_are_read() {
    or_skip!();
    let scene = Scene::start(Way::Later(&[]), &[]);
    let found = checked(scene.server.started_pid().unwrap());
    assert!(matches!(found.as_slice(), [(_, detail)] if detail.contains("libpublisher.so")), "{found:?}");
    let server = Sockets::start().unwrap();
    assert_eq!(checked(server.started_pid().unwrap()), []);
}
