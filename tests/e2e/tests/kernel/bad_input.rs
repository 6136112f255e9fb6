//! What is wrong with the target, the machine or the network: a clear error, or a visible degradation. Nothing
//! panics, nothing hangs, nothing is lost silently.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::program::{self, Ended, run};
use e2e::{Observation, Stage, or_skip};
use tempfile::TempDir;
use workload::{ClientOptions, load};

use crate::attach::{compile, with_library};
use crate::checks::{client, equations_hold, nothing_lost};
use crate::requests::{chat, no_gpu, post, send};

/// What the exporters may still take to deliver at the end (`export::settings::FLUSH_TIMEOUT`), and to be scheduled.
const FLUSH: Duration = Duration::from_secs(5 + 3);

/// The machine or the target cannot be profiled, and the message says all of `words`.
fn unable(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, Some(3), "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "`{word}` in {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

#[test]
fn no_such_process() {
    unable(&run(&["attach", "--pid", "2147483647"]).unwrap(), &["no process 2147483647", "check the pid"]);
    let ended = run(&["check", "--pid", "2147483647"]).unwrap();
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stdout.contains("no process 2147483647"), "{}", ended.stdout);
}

#[test]
fn a_thread_instead_of_its_process() {
    // SAFETY: gettid has no arguments and always succeeds.
    let tid = unsafe { libc::gettid() }.to_string();
    let process = std::process::id().to_string();
    assert_ne!(tid, process, "tests run in threads of their own");
    let ended = run(&["attach", "--pid", &tid]).unwrap();
    unable(&ended, &[&format!("{tid} is a thread of process {process}"), &format!("give --pid {process}")]);
}

#[test]
fn without_privileges_it_says_what_to_do() {
    or_skip!();
    const NOBODY: &str = "65534";
    // The target folder may be closed to others.
    let folder = TempDir::new().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let binary = folder.path().join("gpuspan");
    std::fs::copy(program::gpuspan().unwrap(), &binary).unwrap();
    let as_nobody = || {
        let mut command = Command::new("setpriv");
        program::clean(&mut command);
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
        command
    };
    let attach = |pid: u32| {
        let mut command = as_nobody();
        command.arg(&binary).args(["attach", "--output", "none", "--pid", &pid.to_string()]);
        program::run_command(&mut command).unwrap()
    };
    // Somebody else's process may not even be looked at; our own may, but probes need privileges.
    unable(&attach(std::process::id()), &["may not be inspected", "run as root"]);
    let mut own = as_nobody().args(["sleep", "60"]).stdin(Stdio::null()).spawn().unwrap();
    e2e::wait::until("another user's process", || {
        let command = std::fs::read_to_string(format!("/proc/{}/comm", own.id()))?;
        Ok((command.trim() == "sleep").then_some(()))
    })
    .unwrap();
    let ended = attach(own.id());
    own.kill().unwrap();
    own.wait().unwrap();
    unable(&ended, &["run as root", "CAP_BPF"]);
}

#[test]
fn a_process_without_cuda_has_requests_all_the_same() {
    or_skip!();
    let stage = Stage::start(&no_gpu()).unwrap();
    let observation = Observation::start(stage.server.pid(), &[]).unwrap();
    let records = load(&ClientOptions { url: stage.server.url(), ..client(4, 16) }).unwrap();
    let report = observation.stop().unwrap();
    assert_eq!(report.summary.requests.by_outcome["completed"], records.len() as u64);
    assert!(report.summary.calls.is_empty() && report.summary.coverage.is_empty());
    assert!(report.summary.target.processes.iter().all(|process| !process.gpu));
    nothing_lost(&report.summary);
}

#[test]
fn a_library_without_the_functions_is_named_in_the_coverage() {
    or_skip!();
    let folder = TempDir::new().unwrap();
    let library = compile(folder.path(), "int unrelated(void) { return 0; }");
    let mut program = with_library(&library, &["--wait-stdin"]);
    let pid = program.waits_before("start").unwrap();
    let observation = Observation::start(pid, &[]).unwrap();
    program.make().unwrap();
    let report = observation.stop().unwrap();
    let [coverage] = &report.summary.coverage[..] else { panic!("{:?}", report.summary.coverage) };
    assert_eq!((coverage.attached, coverage.library.as_str()), (0, library.to_str().unwrap()));
    assert!(coverage.missing.iter().any(|missing| missing.symbol == "cudaLaunchKernel"));
    assert!(!report.summary.target.processes[0].gpu);
    let check = run(&["check", "--pid", &pid.to_string()]).unwrap();
    assert_eq!(check.code, Some(3), "{check:?}");
    assert!(check.stdout.contains("0 functions can be probed"), "{}", check.stdout);
    program.end().unwrap();
}

#[test]
fn a_file_that_is_no_library_is_named_in_the_coverage() {
    or_skip!();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("libcudart.so.12");
    std::fs::write(&file, [0x90; 8192]).unwrap();
    // Mapped executable, as a loader would, but by hand: no loader takes it.
    let script = "import mmap,os,sys\nf=os.open(sys.argv[1],os.O_RDONLY)\n\
                  m=mmap.mmap(f,4096,flags=mmap.MAP_PRIVATE,prot=mmap.PROT_READ|mmap.PROT_EXEC)\n\
                  print('mapped',flush=True)\nsys.stdin.read()";
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(&file).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut python = command.spawn().unwrap();
    python.stdout.take().unwrap().read_exact(&mut [0; 7]).unwrap();
    let report = Observation::start(python.id(), &[]).unwrap().stop().unwrap();
    python.kill().unwrap();
    python.wait().unwrap();
    assert_eq!(report.summary.coverage.iter().map(|library| library.attached).collect::<Vec<_>>(), [0]);
    assert!(report.stderr.contains("it is no ELF file"), "{}", report.stderr);
}

/// Observes a few requests while telemetry goes to `url`; everything sent there is dropped, and counted.
fn exports_to(url: &str) {
    let stage = Stage::start(&no_gpu()).unwrap();
    let observation = Observation::start(stage.server.pid(), &["--otlp-endpoint", url]).unwrap();
    let records = load(&ClientOptions { url: stage.server.url(), ..client(4, 16) }).unwrap();
    assert!(records.iter().all(workload::ClientRecord::is_ok), "the target is not disturbed");
    let report = observation.stop().unwrap();
    assert!(report.ending < FLUSH, "{url}: ended after {:?}", report.ending);
    assert_eq!(report.summary.requests.total, 16);
    equations_hold(&report.summary);
    let mut dropped = 0;
    for (destination, terms) in &report.summary.loss.export {
        if !destination.starts_with("file") {
            assert_eq!((terms.exported, terms.queued), (0, 0), "{url}: {destination}: {terms:?}");
            dropped += terms.dropped.values().sum::<u64>();
        }
    }
    assert!(dropped >= 16, "{url}: every span is counted as dropped: {:?}", report.summary.loss.export);
    assert!(!report.stderr.is_empty(), "{url}: an endpoint that takes nothing is worth a line in the log");
}

#[test]
fn an_endpoint_where_nobody_listens() {
    or_skip!();
    // Bound and not listened on: the port stays ours, and connections to it are refused.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    exports_to(&format!("http://{closed}"));
}

#[test]
fn an_endpoint_that_refuses() {
    or_skip!();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || refuse(stream));
        }
    });
    exports_to(&format!("http://{address}"));
}

/// Answers every request with 403 until the client leaves.
fn refuse(mut stream: std::net::TcpStream) {
    let mut buffer = [0; 65536];
    while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
        let answer = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        if stream.write_all(answer).is_err() {
            return;
        }
    }
}

#[test]
fn an_endpoint_that_never_answers() {
    or_skip!();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    exports_to(&format!("http://{}", listener.local_addr().unwrap()));
    drop(listener);
}

#[test]
fn what_is_not_http_is_counted_and_the_next_connection_is_read() {
    or_skip!();
    let stage = Stage::start(&no_gpu()).unwrap();
    let port = stage.server.port();
    let observation = Observation::start(stage.server.pid(), &[]).unwrap();
    send(port, b"\x00\x01\x02\xff\xfenonsense\r\n\r\n\r\n\r\n");
    // The first bytes of a TLS 1.3 ClientHello, then nothing of use to an HTTP server.
    send(port, b"\x16\x03\x01\x00\xc4\x01\x00\x00\xc0\x03\x03\r\n\r\n\r\n\r\n");
    send(port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\r\n\r\n");
    let close = "connection: close\r\n";
    assert!(send(port, post(&chat(5, true), close).as_bytes()).contains("[DONE]"));
    let report = observation.stop().unwrap();
    let connections = report.summary.connections;
    assert_eq!((connections.other, connections.tls, connections.http2), (1, 1, 1), "{connections:?}");
    assert_eq!(connections.total, 4, "{connections:?}");
    let requests = &report.summary.requests;
    assert_eq!((requests.total, requests.by_outcome["completed"], requests.output_tokens), (1, 1, 5));
    nothing_lost(&report.summary);
}
