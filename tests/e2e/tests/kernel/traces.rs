//! Traces as a backend gets them: what is under a request and adds up, which steps it leads to and back, which requests
//! have none and why, and how large one can become.

use std::collections::{BTreeMap, BTreeSet};

use e2e::program::run;
use e2e::{Observation, Span, Stage, or_skip};
use serde_json::Value;
use workload::client::Range;
use workload::{ClientOptions, ServerOptions};

use crate::checks::{Observed, client, nothing_lost, observe, options};
use crate::requests::{chat, no_gpu, post, send};

/// Tempo cuts attributes that are longer.
const MOST_VALUE: usize = 2048;
const MOST_SPANS: usize = 256;
const MOST_BYTES: usize = 256 << 10;

fn is_summary(span: &&Span) -> bool {
    span.bool("aggregation.is_summary") == Some(true)
}

fn children<'a>(observed: &'a Observed, parent: &Span) -> Vec<&'a Span> {
    observed.report.spans.iter().filter(|span| span.parent == parent.span_id).collect()
}

#[test]
fn what_lies_under_a_request_adds_up_to_it() {
    or_skip!();
    // Slowly: kernels have their names half a second after their first launch.
    let client = ClientOptions { rate: Some(12.0), ..client(4, 24) };
    let observed = observe(options(), client, &["--step-sample", "1"]);
    observed.check();
    let mut names = BTreeSet::new();
    for record in &observed.records {
        let server = observed.span_of(record);
        assert_eq!(server.flags, 0x103, "the ids are of our own making: sampled, random, not remote");
        let mut sum = (0, 0);
        for phase in children(&observed, server) {
            let own = (phase.int("gpuspan.gpu.time_ns"), phase.int("gpuspan.launches"));
            let own = (own.0.unwrap_or(0), own.1.unwrap_or(0));
            sum = (sum.0 + own.0, sum.1 + own.1);
            let summaries = children(&observed, phase);
            assert!(summaries.iter().all(is_summary), "{summaries:?}");
            let total = |span: &&Span| span.int("aggregation.duration_total_ns").unwrap_or(0);
            assert_eq!(summaries.iter().map(total).sum::<u64>(), own.0, "{phase:?} {summaries:?}");
            assert!(own.1 == 0 || !summaries.is_empty(), "{phase:?}");
            assert!(
                summaries.iter().all(|span| span.start_ns == phase.start_ns && span.end_ns == phase.end_ns)
            );
            names.extend(summaries.iter().map(|span| span.name.as_str()));
        }
        let all =
            (server.int("gpuspan.gpu.time_ns").unwrap_or(0), server.int("gpuspan.launches").unwrap_or(0));
        assert_eq!(sum, all, "{server:?}");
    }
    let known: BTreeSet<_> =
        observed.report.summary.launches.by_kernel.iter().map(|kernel| kernel.name.as_str()).collect();
    let common = |name: &&str| matches!(*name, "other" | "unnamed kernel") || name.starts_with("cudaMemcpy ");
    let kernels: Vec<_> = names.iter().filter(|name| !common(name)).collect();
    assert!(
        !kernels.is_empty() && kernels.iter().all(|name| known.contains(**name)),
        "{names:?} of {known:?}"
    );
    assert!(names.contains("cudaMemcpy HtoD"), "{names:?}");
    assert_eq!(observed.report.summary.traces.requests, [("sampled".to_owned(), 24)].into());
}

#[test]
fn steps_and_requests_lead_to_each_other() {
    or_skip!();
    let observed = observe(options(), client(4, 24), &["--step-sample", "1"]);
    observed.check();
    let spans = &observed.report.spans;
    let steps: BTreeMap<_, _> = spans
        .iter()
        .filter(|span| span.name == "engine step")
        .map(|step| (step.span_id.as_str(), step))
        .collect();
    let servers: BTreeMap<_, _> =
        spans.iter().filter(|span| span.is_server()).map(|span| (span.span_id.as_str(), span)).collect();
    let (mut there, mut back) = (BTreeSet::new(), BTreeSet::new());
    for step in steps.values() {
        assert_eq!((step.kind, step.parent.as_str(), step.flags), (1, "", 0x103));
        let linked = step.links.len() as u64 + step.dropped_links;
        assert_eq!(step.int("gpuspan.step.members"), Some(linked), "{step:?}");
        for link in &step.links {
            let server = servers[link.span_id.as_str()];
            assert_eq!(link.trace_id, server.trace_id);
            assert!(step.start_ns < server.end_ns && server.start_ns < step.end_ns, "{step:?} {server:?}");
            there.insert((step.span_id.as_str(), link.span_id.as_str()));
        }
    }
    for span in spans.iter().filter(|span| matches!(span.name.as_str(), "prefill" | "decode")) {
        assert_eq!(span.dropped_links, 0);
        for link in &span.links {
            let step = steps[link.span_id.as_str()];
            assert_eq!(link.trace_id, step.trace_id);
            back.insert((step.span_id.as_str(), span.parent.as_str()));
        }
    }
    assert_eq!(there, back);
    let riding: BTreeSet<_> = there.iter().map(|(_, server)| *server).collect();
    assert_eq!(riding.len(), 24, "each request rode in some step");
    let counts = &observed.report.summary.traces.steps;
    assert_eq!((counts["shown"], counts["beyond"]), (steps.len() as u64, 0));
}

#[test]
fn requests_are_chosen_by_the_sampler_and_kept_when_they_are_slow_or_fail() {
    or_skip!();
    let stage = Stage::start(&no_gpu()).unwrap();
    let variables = [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0")];
    let arguments = ["--keep-slow", "1s", "--step-sample", "0"];
    let observation = Observation::start_with(stage.server.pid(), &arguments, &variables).unwrap();
    let close = "connection: close\r\n";
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    send(stage.server.port(), post(&chat(3, true), close).as_bytes());
    for flags in ["00", "01"] {
        let headers = format!("{close}traceparent: 00-{trace}-00f067aa0ba902b7-{flags}\r\n");
        send(stage.server.port(), post(&chat(3, true), &headers).as_bytes());
    }
    let report = observation.stop().unwrap();
    let expected =
        [("caller", 1), ("ratio", 1), ("sampled", 1)].map(|(name, count)| (name.to_owned(), count));
    assert_eq!(report.summary.traces.requests, expected.into());
    let servers: Vec<_> = report.spans.iter().filter(|span| span.is_server()).collect();
    assert_eq!(servers.len(), 1);
    assert_eq!((servers[0].trace_id.as_str(), servers[0].flags), (trace, 0x301));
    assert_eq!(report.summary.requests.total, 3, "metrics have all of them");

    let arguments =
        ["--keep-slow", "1ms", "--step-sample", "0", "--ignore-unsampled", "--server-span", "never"];
    let observation = Observation::start_with(stage.server.pid(), &arguments, &variables).unwrap();
    let headers = format!("{close}traceparent: 00-{trace}-00f067aa0ba902b7-00\r\n");
    send(stage.server.port(), post(&chat(50, true), &headers).as_bytes());
    let report = observation.stop().unwrap();
    assert_eq!(report.summary.traces.requests, [("slow".to_owned(), 1)].into());
    let root = report.spans.iter().find(|span| span.parent == "00f067aa0ba902b7").unwrap();
    assert_eq!((root.kind, root.text("gpuspan.sampling")), (1, Some("slow")));
}

#[test]
fn a_million_launches_in_one_request_are_a_small_trace() {
    or_skip!();
    const TOKENS: usize = 1450;
    // 7 kernels a layer and 3 around them make 703 a step.
    let options = ServerOptions { layers: 100, kernel_ns: 0, ..ServerOptions::default() };
    let client = ClientOptions { max_tokens: Range { min: TOKENS, max: TOKENS }, ..client(1, 1) };
    let observed = observe(options, client, &["--step-sample", "1", "--ring-bytes", "134217728"]);
    observed.check();
    let launches = observed.device.launches();
    assert!(launches > 1_000_000, "{launches}");
    let server = observed.span_of(&observed.records[0]);
    let trace: Vec<_> =
        observed.report.spans.iter().filter(|span| span.trace_id == server.trace_id).collect();
    assert!(trace.len() <= MOST_SPANS, "{} spans", trace.len());
    let bytes: usize = trace.iter().map(|span| span.json_bytes).sum();
    assert!(bytes <= MOST_BYTES, "{bytes} bytes");
    let longest = |value: &Value| value["stringValue"].as_str().map_or(0, str::len);
    assert!(trace.iter().flat_map(|span| span.attributes.values()).all(|value| longest(value) <= MOST_VALUE));
    let counted = trace.iter().filter(|span| is_summary(span) && !span.name.starts_with("cudaMemcpy"));
    assert_eq!(counted.filter_map(|span| span.int("aggregation.span_count")).sum::<u64>(), launches);
    assert_eq!(server.int("gpuspan.launches"), Some(launches));
    let decode = trace.iter().find(|span| span.name == "decode").unwrap();
    assert_eq!(decode.links.len(), 128);
    assert_eq!(decode.dropped_links, observed.report.summary.traces.cut["links"]);
}

#[test]
fn what_a_process_publishes_of_itself_is_found() {
    or_skip!();
    let published = Published::new(b"\x0a\x22\x0a\x20\x0a\x0cservice.name\x12\x10\x0a\x0epublished-name");
    let ended = run(&["check", "--json", "--pid", &std::process::id().to_string()]).unwrap();
    let sections: Value = serde_json::from_str(&ended.stdout).unwrap();
    let findings =
        sections.as_array().unwrap().iter().flat_map(|section| section["findings"].as_array().unwrap());
    let found = findings.filter(|finding| finding["subject"] == "process context").count();
    assert_eq!(found, 1, "{}", ended.stdout);
    let observation = Observation::start(std::process::id(), &["--duration", "100ms"]).unwrap();
    let report = observation.finish().unwrap();
    nothing_lost(&report.summary);
    drop(published);
}

/// A process context (OTEP 4719) of this process.
struct Published(*mut libc::c_void);

impl Published {
    fn new(payload: &[u8]) -> Self {
        // SAFETY: a new mapping of a page, written within its bounds; the name is a C string.
        unsafe {
            let fd = libc::memfd_create(c"OTEL_CTX".as_ptr(), libc::MFD_CLOEXEC);
            assert_eq!(libc::ftruncate(fd, 4096), 0);
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let start = libc::mmap(std::ptr::null_mut(), 4096, protection, libc::MAP_SHARED, fd, 0);
            assert_ne!(start, libc::MAP_FAILED);
            libc::close(fd);
            let mut bytes = b"OTEL_CTX\x02\0\0\0".to_vec();
            bytes.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
            bytes.extend(7u64.to_le_bytes());
            bytes.extend((start as u64 + 32).to_le_bytes());
            bytes.extend(payload);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), start.cast(), bytes.len());
            Self(start)
        }
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // SAFETY: nothing else knows the mapping.
        unsafe { libc::munmap(self.0, 4096) };
    }
}
