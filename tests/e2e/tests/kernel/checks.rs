//! What several tests do: observe a loaded server, and compare the four accounts of what happened.

use std::collections::{BTreeMap, BTreeSet};

use e2e::stage::since;
use e2e::{Observation, Report, Span, Stage, Summary};
use profiler::probe::CATALOG;
use simgpu::Totals;
use workload::client::Api;
use workload::options::{Graphs, Runtime};
use workload::{ClientOptions, ClientRecord, ServerOptions, load};

/// A loaded server, as everybody saw it.
pub struct Observed {
    pub options: ServerOptions,
    pub client: ClientOptions,
    pub records: Vec<ClientRecord>,
    pub report: Report,
    /// Of the stand-ins, in the window alone.
    pub device: Totals,
    pub stage: Stage,
}

/// Kernels are short: the counts are of interest, not the times.
pub fn options() -> ServerOptions {
    ServerOptions { layers: 2, kernel_ns: 2_000, ..ServerOptions::default() }
}

/// Observes a server while `client` loads it.
pub fn observe(options: ServerOptions, client: ClientOptions, arguments: &[&str]) -> Observed {
    let stage = Stage::start(&options).unwrap();
    let client = ClientOptions { url: stage.server.url(), ..client };
    let observation = Observation::start(stage.server.pid(), arguments).unwrap();
    let before = stage.device().unwrap();
    let records = load(&client).unwrap();
    let device = since(&before, &stage.device().unwrap());
    let report = observation.stop().unwrap();
    Observed { options, client, records, report, device, stage }
}

/// A client; its URL comes with the server.
pub fn client(concurrency: usize, requests: usize) -> ClientOptions {
    ClientOptions { concurrency, requests, ..ClientOptions::new("http://unknown") }
}

impl Observed {
    /// Every account agrees.
    pub fn check(&self) {
        device_agrees(&self.report.summary, &self.device);
        self.graphs_agree();
        self.requests_agree();
        self.spans_agree();
        nothing_lost(&self.report.summary);
    }

    /// A graph captured before the attach has unknown nodes; every other one has exactly its nodes.
    fn graphs_agree(&self) {
        let launches = &self.report.summary.launches;
        assert_eq!(launches.graph_launches, self.device.fact("graph_launches"));
        if self.options.graphs == Graphs::StartUp {
            assert_eq!((launches.unknown_graphs, launches.graph_nodes), (launches.graph_launches, 0));
            return;
        }
        assert_eq!(launches.unknown_graphs, 0);
        assert_eq!(launches.graph_nodes, self.device.fact("graph_kernel_nodes"));
        assert_eq!(launches.captured, self.device.fact("captured_launches"));
        // With CUDA 12 a launch names its host function, which has the kernel's name.
        if self.options.runtime == Runtime::Cuda12 && !self.options.driver_launches {
            assert_eq!(launches.unnamed, 0);
        }
        kernels_agree(&self.report.summary, &self.device);
    }

    fn requests_agree(&self) {
        let requests = &self.report.summary.requests;
        let mut by_status: BTreeMap<String, u64> = BTreeMap::new();
        for record in &self.records {
            assert!(record.is_ok(), "{record:?}");
            *by_status.entry(record.status.to_string()).or_default() += 1;
        }
        assert_eq!(requests.total, self.records.len() as u64);
        assert_eq!(requests.by_status, by_status);
        assert_eq!(requests.by_outcome, [("completed".to_owned(), requests.total)].into());
        assert_eq!(requests.streaming, self.records.iter().filter(|record| record.stream).count() as u64);
        assert_eq!((requests.partial, requests.in_flight), (0, 0));
        let sum = |of: fn(&workload::client::Usage) -> u64| {
            self.records.iter().filter_map(|record| record.usage.as_ref()).map(of).sum::<u64>()
        };
        assert_eq!(requests.input_tokens, sum(|usage| usage.prompt_tokens));
        assert_eq!(requests.output_tokens, sum(|usage| usage.completion_tokens));
    }

    fn spans_agree(&self) {
        let servers: Vec<_> = self.report.spans.iter().filter(|span| span.is_server()).collect();
        assert_eq!(servers.len(), self.records.len(), "one SERVER span a request");
        let ids: BTreeSet<_> = self.report.spans.iter().map(|span| &span.span_id).collect();
        assert_eq!(ids.len(), self.report.spans.len(), "span ids are unique");
        for record in &self.records {
            let span = self.span_of(record);
            request_agrees(self.client.api, &self.client.model, record, span);
            self.children_lie_inside(record, span);
        }
        self.shares_add_up(&servers);
    }

    /// The SERVER span of a request: by the answer's id, or by the trace where the dialect has no ids.
    pub fn span_of(&self, record: &ClientRecord) -> &Span {
        let is_it = |span: &&Span| match &record.id {
            Some(id) => span.text("gen_ai.response.id") == Some(id),
            None => Some(&span.trace_id) == record.trace_id.as_ref(),
        };
        let mut found = self.report.spans.iter().filter(|span| span.is_server()).filter(is_it);
        let span = found.next().unwrap_or_else(|| panic!("no SERVER span for {record:?}"));
        assert!(found.next().is_none(), "two SERVER spans for {record:?}");
        span
    }

    /// Queue, prefill and decode follow each other inside their request. Steps tell when the queue was over, first
    /// tokens when prefill was.
    fn children_lie_inside(&self, record: &ClientRecord, span: &Span) {
        let children: Vec<_> =
            self.report.spans.iter().filter(|child| child.parent == span.span_id).collect();
        let names: Vec<_> = children.iter().map(|child| child.name.as_str()).collect();
        let queue = (self.options.runtime != Runtime::None).then_some("queue");
        let phases = if record.stream { &["prefill", "decode"][..] } else { &[] };
        assert_eq!(names, queue.iter().chain(phases).copied().collect::<Vec<_>>(), "{span:?}");
        let mut at = span.start_ns;
        for child in children {
            assert_eq!((&child.trace_id, child.kind), (&span.trace_id, 1));
            assert!(at <= child.start_ns && child.start_ns <= child.end_ns, "{child:?}");
            at = child.end_ns;
        }
        assert!(at <= span.end_ns, "{span:?}");
    }

    /// No launch is given to two requests, and none vanishes.
    fn shares_add_up(&self, servers: &[&Span]) {
        let summary = &self.report.summary;
        let shares: u64 = servers.iter().filter_map(|span| span.int("gpuspan.launches")).sum();
        let all = summary.launches.total + summary.launches.graph_launches;
        assert_eq!(shares + summary.steps.unattributed_launches, all);
    }
}

/// Counts per function, launches, copies, bytes and memory are the stand-ins' own.
pub fn device_agrees(summary: &Summary, device: &Totals) {
    assert_eq!(device.unsupported(), Vec::<&str>::new());
    let probed: BTreeSet<_> = CATALOG.iter().map(|api| api.symbol).collect();
    let mut made = device.calls.clone();
    made.retain(|name, count| *count > 0 && probed.contains(name.as_str()));
    assert_eq!(summary.calls, made);
    assert_eq!(summary.launches.total, device.launches());
    for (direction, name) in [("HtoD", "htod"), ("DtoH", "dtoh"), ("DtoD", "dtod"), ("HtoH", "htoh")] {
        let (seen, ran) = (summary.copies(direction), device.copies(name));
        assert_eq!((seen.count, seen.bytes), (ran.count, ran.bytes), "{direction}");
    }
    let memory = summary.device_memory();
    assert_eq!(memory.allocated_bytes, device.fact("allocated_bytes"));
    assert_eq!(memory.freed_bytes, device.fact("freed_bytes"));
    assert_eq!(memory.live_bytes, memory.allocated_bytes - memory.freed_bytes);
    assert!((memory.live_bytes..=memory.allocated_bytes).contains(&memory.peak_bytes), "{memory:?}");
}

/// Runs of every kernel that has a name, which is the device's own; those launched by a driver handle have none.
fn kernels_agree(summary: &Summary, device: &Totals) {
    let mut seen: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for kernel in &summary.launches.by_kernel {
        let Some(symbol) = kernel.symbol.clone() else { continue };
        let counts = seen.entry(symbol).or_default();
        *counts = (counts.0 + kernel.count, counts.1 + kernel.graph_count);
    }
    let mut unnamed = 0;
    for (name, kernel) in &device.kernels {
        let runs = (kernel.launched, kernel.graph_runs);
        match seen.remove(name) {
            Some(counts) => assert_eq!(counts, runs, "{name}"),
            None => unnamed += runs.0 + runs.1,
        }
    }
    assert_eq!(seen, BTreeMap::new(), "kernels that never ran");
    assert_eq!(summary.launches.unnamed, unnamed);
}

/// The loss equations, each worked out anew, hold, and there is no loss.
pub fn nothing_lost(summary: &Summary) {
    equations_hold(summary);
    assert_eq!(summary.loss.lost, 0, "{:?}", summary.loss);
    for table in ["batches_cut", "names_dropped", "looks_dropped"] {
        assert_eq!(summary.beyond[table], 0, "{table}");
    }
    for (destination, terms) in &summary.loss.export {
        assert_eq!((terms.exported, terms.queued), (terms.produced, 0), "{destination}: {terms:?}");
    }
}

/// The loss equations hold, whatever was lost.
pub fn equations_hold(summary: &Summary) {
    let loss = &summary.loss;
    for (family, terms) in &loss.kernel {
        assert_eq!(terms.seen, terms.submitted + terms.lost(), "{family}: {terms:?}");
    }
    let submitted: u64 = loss.kernel.values().map(|terms| terms.submitted).sum();
    assert_eq!((loss.receive.submitted, loss.receive.received), (submitted, submitted), "{loss:?}");
    let sum = |terms: &BTreeMap<String, u64>| terms.values().sum::<u64>();
    assert_eq!(loss.decode.received, submitted, "{loss:?}");
    assert_eq!(submitted, loss.decode.decoded + sum(&loss.decode.rejected), "{loss:?}");
    let correlate = &loss.correlate;
    assert_eq!(correlate.decoded, loss.decode.decoded, "{loss:?}");
    let settled = correlate.joined + correlate.pending + sum(&correlate.expired) + sum(&correlate.ignored);
    assert_eq!(correlate.decoded, settled, "{loss:?}");
    for (destination, terms) in &loss.export {
        let accounted = terms.exported + sum(&terms.dropped) + terms.queued;
        assert_eq!(terms.produced, accounted, "{destination}: {terms:?}");
    }
    assert!(loss.balanced, "{loss:?}");
}

fn request_agrees(api: Api, model: &str, record: &ClientRecord, span: &Span) {
    let (route, operation) = match api {
        Api::Chat => ("/v1/chat/completions", "chat"),
        Api::Completions => ("/v1/completions", "text_completion"),
        Api::Ollama => ("/api/generate", "text_completion"),
    };
    let usage = record.usage.unwrap();
    assert_eq!(span.name, format!("POST {route}"));
    for (name, value) in [
        ("http.request.method", "POST"),
        ("http.route", route),
        ("gen_ai.operation.name", operation),
        ("gen_ai.request.model", model),
        ("gpuspan.outcome", "completed"),
    ] {
        assert_eq!(span.text(name), Some(value), "{name} of {span:?}");
    }
    assert_eq!(span.text("gen_ai.response.model"), record.model.as_deref());
    for (name, value) in [
        ("http.response.status_code", u64::from(record.status)),
        ("gen_ai.usage.input_tokens", usage.prompt_tokens),
        ("gen_ai.usage.output_tokens", usage.completion_tokens),
        ("gen_ai.request.max_tokens", record.max_tokens as u64),
    ] {
        assert_eq!(span.int(name), Some(value), "{name} of {span:?}");
    }
    assert_eq!(span.bool("gen_ai.request.stream"), Some(record.stream));
    // Without streaming the client sees no first token, and nor does an observer of the socket.
    assert_eq!(span.double("gpuspan.time_to_first_token").is_some(), record.stream, "{span:?}");
    assert_eq!(span.text("error.type"), None);
    if let (Some(trace), Some(parent)) = (&record.trace_id, &record.parent_id) {
        assert_eq!((&span.trace_id, &span.parent), (trace, parent), "the caller's trace goes on");
    } else {
        assert_eq!(span.parent, "");
    }
    breakdown_adds_up(span);
}

/// The parts of the breakdown are the whole duration, to the nanosecond.
fn breakdown_adds_up(span: &Span) {
    let parts = span.attributes.keys().filter(|name| name.starts_with("gpuspan.breakdown."));
    let sum: u64 = parts.map(|name| span.int(name).unwrap()).sum();
    assert_eq!(sum, span.duration_ns(), "{span:?}");
}
