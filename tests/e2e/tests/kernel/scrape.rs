//! `--prometheus-listen`: what a scrape says of a loaded server is what the summary says at the end.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use e2e::{Observation, Stage, or_skip, program, wait};
use workload::{ClientOptions, load};

use crate::checks::{client, nothing_lost, options};

/// A document of metrics, in OpenMetrics.
struct Scrape(String);

impl Scrape {
    fn of(address: &str) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(wait::PATIENCE)).unwrap();
        let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        write!(stream, "GET /metrics HTTP/1.1\r\nhost: {address}\r\naccept: {accept}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(body.ends_with("# EOF\n"), "{body}");
        Self(body.to_owned())
    }

    /// The samples of that name whose labels contain a text: labels and value.
    fn samples<'a>(&'a self, name: &'a str, label: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with('{'))?;
            let (labels, value) = rest.split_once("} ")?;
            labels.contains(label).then(|| (labels, value.split(' ').next().unwrap().parse().unwrap()))
        })
    }

    fn sum(&self, name: &str, label: &str) -> f64 {
        self.samples(name, label).map(|(_, value)| value).sum()
    }

    fn requests(&self) -> f64 {
        self.sum("gen_ai_server_request_duration_seconds_count", "")
    }
}

#[test]
fn a_scrape_says_now_what_the_summary_says_at_the_end() {
    or_skip!();
    let stage = Stage::start(&options()).unwrap();
    // The exporters' interval is a minute: nothing here waits for it.
    let arguments = ["--prometheus-listen", "127.0.0.1:0"];
    let observation = Observation::start(stage.server.pid(), &arguments).unwrap();
    let address = observation.scraped_at().unwrap();
    load(&ClientOptions { url: stage.server.url(), ..client(4, 24) }).unwrap();
    let mut former = f64::NAN;
    let scrape = wait::until("a scrape with everything in it", || {
        std::thread::sleep(Duration::from_millis(500));
        let scrape = Scrape::of(&address);
        let launches = scrape.sum("gpu_cuda_kernel_launch_calls_total", "");
        let is_quiet = launches == std::mem::replace(&mut former, launches);
        Ok((scrape.requests() == 24.0 && is_quiet).then_some(scrape))
    });
    let scrape = scrape.unwrap();
    let report = observation.stop().unwrap();
    let summary = &report.summary;
    nothing_lost(summary);

    assert_eq!(scrape.requests(), summary.requests.total as f64);
    assert_eq!(scrape.sum("gpu_cuda_kernel_launch_calls_total", ""), summary.launches.total as f64);
    for direction in ["HtoD", "DtoH"] {
        let label = format!("cuda_memcpy_kind=\"{direction}\"");
        let copied = scrape.sum("gpuspan_memory_copied_bytes_total", &label);
        assert_eq!(copied, summary.copies[direction].bytes as f64, "{direction}");
    }
    // Each series says whose it is, and the target's exemplars are its requests' spans.
    let instance = format!(".{}.", stage.server.pid());
    let (labels, _) = scrape.samples("gen_ai_server_request_duration_seconds_count", "").next().unwrap();
    assert!(
        labels.contains("instance=\"") && labels.contains(&instance) && labels.contains("job=\""),
        "{labels}"
    );
    assert_eq!(scrape.samples("target_info", &instance).count(), 1);
    let buckets =
        scrape.0.lines().filter(|line| line.starts_with("gen_ai_server_request_duration_seconds_bucket"));
    let traces: Vec<&str> = buckets
        .filter_map(|line| line.split_once("# {trace_id=\"")?.1.split_once('"'))
        .map(|(id, _)| id)
        .collect();
    assert!(!traces.is_empty());
    for trace in traces {
        assert!(report.spans.iter().any(|span| span.is_server() && span.trace_id == trace), "{trace}");
    }
    // gpuspan's own account is of now, too.
    assert!(scrape.sum("gpuspan_self_cpu_time_seconds_total", "job=\"gpuspan\"") > 0.0);
    assert!(scrape.sum("gpuspan_self_probes", "attached") > 0.0);
}

#[test]
fn an_address_that_is_taken_is_said_before_anything_is_attached() {
    or_skip!();
    let stage = Stage::start(&options()).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let pid = stage.server.pid().to_string();
    let ended = program::run(&["attach", "--pid", &pid, "--prometheus-listen", &address]).unwrap();
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(
        ended.stderr.contains(&address) && ended.stderr.contains("--prometheus-listen"),
        "{}",
        ended.stderr
    );
    let ended = program::run(&["attach", "--pid", &pid, "--prometheus-listen", "9464"]).unwrap();
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("such as 127.0.0.1:9464"), "{}", ended.stderr);
}
