//! Counts: per function, per kernel, per direction, per status. All of them exact, at 4 and at 32 streams, whichever
//! way the server launches.

use e2e::or_skip;
use workload::client::{Api, Range, StreamMode};
use workload::options::{Graphs, Runtime};
use workload::{ClientOptions, ServerOptions};

use crate::checks::{client, observe, options};

fn server(runtime: Runtime) -> ServerOptions {
    ServerOptions { runtime, ..options() }
}

/// Streams and whole answers in turn, with prompts long enough to be prefilled in chunks.
fn mixed(concurrency: usize) -> ClientOptions {
    ClientOptions {
        stream: StreamMode::Mix,
        prompt_words: Range { min: 1, max: 300 },
        max_tokens: Range { min: 1, max: 24 },
        ..client(concurrency, concurrency * 4)
    }
}

#[test]
fn four_streams_on_each_runtime() {
    or_skip!();
    for runtime in [Runtime::Cuda12, Runtime::Cuda13] {
        observe(server(runtime), mixed(4), &[]).check();
    }
}

#[test]
fn thirty_two_streams_on_each_runtime() {
    or_skip!();
    for runtime in [Runtime::Cuda12, Runtime::Cuda13] {
        observe(server(runtime), mixed(32), &[]).check();
    }
}

#[test]
fn launches_by_the_driver_count_once() {
    or_skip!();
    for runtime in [Runtime::Cuda12, Runtime::Cuda13] {
        let observed = observe(ServerOptions { driver_launches: true, ..server(runtime) }, mixed(8), &[]);
        observed.check();
        // Of 2 * 7 + 3 kernels, each layer's three GEMMs and its activation go through the driver alone.
        let summary = &observed.report.summary;
        assert_eq!(summary.call("cuLaunchKernel"), summary.launches.total);
        assert_eq!(summary.call("cudaLaunchKernel") * 17, summary.launches.total * 9);
    }
}

#[test]
fn graphs_made_under_observation_have_their_nodes() {
    or_skip!();
    for (runtime, driver_launches) in [(Runtime::Cuda12, false), (Runtime::Cuda13, true)] {
        let options = ServerOptions { graphs: Graphs::Lazy, driver_launches, ..server(runtime) };
        let observed = observe(options, mixed(8), &[]);
        observed.check();
        let launches = &observed.report.summary.launches;
        assert!(launches.graph_launches > 0 && launches.graph_nodes == launches.graph_launches * 17);
    }
}

#[test]
fn graphs_made_before_the_attach_count_with_unknown_nodes() {
    or_skip!();
    for runtime in [Runtime::Cuda12, Runtime::Cuda13] {
        let options = ServerOptions { graphs: Graphs::StartUp, max_batch: 8, ..server(runtime) };
        let observed = observe(options, mixed(8), &[]);
        observed.check();
        assert!(observed.report.summary.launches.unknown_graphs > 0);
    }
}

#[test]
fn every_dialect() {
    or_skip!();
    for api in [Api::Chat, Api::Completions, Api::Ollama] {
        // Ollama's answers have no id: only the trace tells which span is whose.
        let client = ClientOptions { api, traceparent: true, ..mixed(4) };
        observe(server(Runtime::Cuda12), client, &[]).check();
    }
}

#[test]
fn the_fallback_hook_sees_the_same_requests() {
    or_skip!();
    observe(server(Runtime::None), mixed(8), &["--raw-tracepoint"]).check();
}

#[test]
fn every_way_to_write() {
    or_skip!();
    for style in ["split", "joined", "vector", "utf8split"] {
        let client = ClientOptions { writes: Some(style.to_owned()), ..mixed(4) };
        let observed = observe(server(Runtime::None), client, &[]);
        let requests = &observed.report.summary.requests;
        assert_eq!((requests.total, requests.by_outcome["completed"]), (16, 16), "{style}");
        assert_eq!(observed.report.summary.loss.lost, 0);
    }
}
