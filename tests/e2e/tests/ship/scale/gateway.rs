//! The shipped gateway before a collector that stands for Tempo and Prometheus. In: ports on loopback. Out: what both
//! have counted, by their own metrics. Absent: anything but the shipped file in the gateway's configuration.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::wait;
use tempfile::TempDir;

/// Both collectors, ended with the value.
#[derive(Debug)]
pub struct Gateway {
    gateway: Child,
    sink: Child,
    folder: TempDir,
    /// Where agents send.
    pub http: u16,
    metrics: u16,
    sink_metrics: u16,
}

/// What became of what the gateway took. What could not be queued is refused to the agent, so it is not in here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub accepted_spans: u64,
    pub passed_on_spans: u64,
    pub failed_spans: u64,
    pub arrived_spans: u64,
    pub accepted_points: u64,
    pub passed_on_points: u64,
    pub failed_points: u64,
    pub arrived_points: u64,
}

const SINK: &str = "
receivers: {otlp: {protocols: {grpc: {endpoint: '127.0.0.1:GRPC', max_recv_msg_size_mib: 4}, http: {endpoint: '127.0.0.1:HTTP'}}}}
exporters: {nop: {}}
service:
  telemetry: {metrics: {readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: METRICS}}}}]}}
  pipelines:
    traces: {receivers: [otlp], exporters: [nop]}
    metrics: {receivers: [otlp], exporters: [nop]}
";

/// Queues and retries may take this long to empty.
const DRAINED_WITHIN: Duration = Duration::from_secs(60);

impl Gateway {
    pub fn start(collector: &Path, config: &Path) -> Self {
        let folder = TempDir::new().unwrap();
        let [grpc, http, metrics, sink_grpc, sink_http, sink_metrics] = free_ports();
        let sink = SINK.replace("GRPC", &sink_grpc.to_string()).replace("HTTP", &sink_http.to_string());
        let sink_file = folder.path().join("sink.yaml");
        std::fs::write(&sink_file, sink.replace("METRICS", &sink_metrics.to_string())).unwrap();
        let sink = start(Command::new(collector).arg("--config").arg(&sink_file), &folder, "sink");
        let mut command = Command::new(collector);
        command.arg("--config").arg(config).env("GATEWAY_HOST", "127.0.0.1");
        for (name, port) in [("GRPC", grpc), ("HTTP", http), ("METRICS", metrics)] {
            command.env(format!("GATEWAY_{name}_PORT"), port.to_string());
        }
        command.env("TEMPO_ENDPOINT", format!("127.0.0.1:{sink_grpc}"));
        command.env("PROMETHEUS_OTLP_ENDPOINT", format!("http://127.0.0.1:{sink_http}"));
        let gateway = start(&mut command, &folder, "gateway");
        let started = Self { gateway, sink, folder, http, metrics, sink_metrics };
        for port in [http, metrics, sink_grpc, sink_http, sink_metrics] {
            let answers =
                wait::until("a collector", || Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()));
            answers.unwrap_or_else(|error| panic!("{error}: {}", started.logs()));
        }
        started
    }

    fn logs(&self) -> String {
        let log = |name: &str| std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        format!("{}\n{}", log("gateway"), log("sink"))
    }

    /// The account once everything that was accepted has left, and all `spans` were accepted.
    pub fn drained(&self, spans: u64) -> Account {
        let end = Instant::now() + DRAINED_WITHIN;
        loop {
            let account = self.account();
            let points_left = account.accepted_points - account.passed_on_points - account.failed_points;
            let spans_left = account.accepted_spans - account.passed_on_spans - account.failed_spans;
            if account.accepted_spans >= spans && points_left == 0 && spans_left == 0 {
                // Its counts of what arrived are older than that of what was passed on: the last batch may be missing.
                return self.account();
            }
            assert!(Instant::now() < end, "{account:?} of {spans} spans\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn account(&self) -> Account {
        // Counters of what leaves are read before those of what comes, so that no difference is below zero.
        let sink = page(self.sink_metrics);
        let gateway = page(self.metrics);
        let sum = |page: &str, names: &[&str]| names.iter().map(|name| sum(page, name)).sum();
        Account {
            accepted_spans: sum(&gateway, &["otelcol_receiver_accepted_spans"]),
            passed_on_spans: sum(&gateway, &["otelcol_exporter_sent_spans"]),
            failed_spans: sum(
                &gateway,
                &["otelcol_exporter_send_failed_spans", "otelcol_exporter_enqueue_failed_spans"],
            ),
            arrived_spans: sum(&sink, &["otelcol_receiver_accepted_spans"]),
            accepted_points: sum(&gateway, &["otelcol_receiver_accepted_metric_points"]),
            passed_on_points: sum(&gateway, &["otelcol_exporter_sent_metric_points"]),
            failed_points: sum(
                &gateway,
                &[
                    "otelcol_exporter_send_failed_metric_points",
                    "otelcol_exporter_enqueue_failed_metric_points",
                ],
            ),
            arrived_points: sum(&sink, &["otelcol_receiver_accepted_metric_points"]),
        }
    }

    /// CPU time of the gateway so far.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.gateway.id())).unwrap();
        // The name in parentheses may have spaces; user and system time are the 14th and 15th field.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        // Always 100 on Linux' interfaces to user space.
        ticks as f64 / 100.0
    }

    /// The most memory that it ever had.
    pub fn most_memory_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.gateway.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        for child in [&mut self.gateway, &mut self.sink] {
            // Both fail only when it has already ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn start(command: &mut Command, folder: &TempDir, name: &str) -> Child {
    let log = std::fs::File::create(folder.path().join(name)).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

/// Ports that nobody listens on; all are held until all are known.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn page(port: u16) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// All series of a counter, whatever unit and ending its name has got. What never counted has none.
fn sum(page: &str, name: &str) -> u64 {
    let lines = page.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}
