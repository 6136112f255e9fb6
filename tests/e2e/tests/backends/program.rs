//! The backends as processes, each with a folder of its own, on loopback, ended with the test.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use e2e::wait;
use tempfile::TempDir;
use xtask::backend::{self, Name};

use crate::ask;

/// The program, or nothing and why on standard output.
pub fn backend(name: Name) -> Option<PathBuf> {
    backend::path(name).inspect_err(|error| println!("skipped: {error:#}")).ok()
}

/// The collector that `cargo xtask collector` built, likewise.
pub fn collector() -> Option<PathBuf> {
    xtask::collector::path().inspect_err(|error| println!("skipped: {error:#}")).ok()
}

pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A process that ends with its value.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pub folder: TempDir,
}

impl Process {
    /// Starts it with its output in a log beside its data.
    pub fn start(command: &mut Command, folder: TempDir) -> Self {
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self { child: command.spawn().unwrap(), folder }
    }

    /// Waits until it answers with 200.
    fn answers(&self, port: u16, path: &str) {
        let answered = wait::until("a backend's answer", || {
            Ok(ask::get(port, path).is_ok_and(|(status, _)| status == 200).then_some(()))
        });
        let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        answered.unwrap_or_else(|error| panic!("{error}: {}", log()));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// VictoriaMetrics with Prometheus's names.
#[derive(Debug)]
pub struct VictoriaMetrics {
    pub port: u16,
    _process: Process,
}

impl VictoriaMetrics {
    pub fn start(binary: &Path) -> Self {
        let (port, folder) = (free_port(), TempDir::new().unwrap());
        let mut command = Command::new(binary);
        command.arg(format!("-httpListenAddr=127.0.0.1:{port}"));
        command.arg(format!("-storageDataPath={}", folder.path().join("data").display()));
        command.args([
            "-opentelemetry.usePrometheusNaming",
            "-search.latencyOffset=1ms",
            "-memory.allowedBytes=256MB",
        ]);
        let process = Process::start(&mut command, folder);
        process.answers(port, "/health");
        Self { port, _process: process }
    }

    /// Where it takes metrics.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/opentelemetry/v1/metrics", self.port)
    }
}

/// Prometheus with the shipped configuration and rules, scraping each second.
#[derive(Debug)]
pub struct Prometheus {
    pub port: u16,
    _process: Process,
}

impl Prometheus {
    pub fn start(binary: &Path, scraped: &[String]) -> Self {
        let (port, folder) = (free_port(), TempDir::new().unwrap());
        let shipped = xtask::dashboards::root().join("deploy/prometheus");
        let config = std::fs::read_to_string(shipped.join("prometheus.yml")).unwrap();
        // Only times differ: the run is short.
        let config =
            config.replace("_interval: 15s", "_interval: 1s").replace("_interval: 10s", "_interval: 1s");
        std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        std::os::unix::fs::symlink(
            shipped.join("rules").canonicalize().unwrap(),
            folder.path().join("rules"),
        )
        .unwrap();
        std::fs::create_dir(folder.path().join("targets")).unwrap();
        let targets = serde_json::json!([{ "targets": scraped }]).to_string();
        std::fs::write(folder.path().join("targets/gpuspan.json"), targets).unwrap();
        let mut command = Command::new(binary);
        command.arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.arg("--enable-feature=exemplar-storage");
        let process = Process::start(&mut command, folder);
        process.answers(port, "/-/ready");
        Self { port, _process: process }
    }
}
