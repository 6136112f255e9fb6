//! Namespaces, files that are shared or replaced, processes that come late, and clocks that jump.
//!
//! The numbers in test names are those of the project's list of capture edge cases; `attach.rs` has more of number 37.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use e2e::stage::{device, since};
use e2e::{Calls, Observation, Sockets, calls, or_skip};
use profiler::decode::{Body, Direction, End, Event, Socket};
use profiler::metric::Registry;
use profiler::session::{Input, Session};
use profiler::span::model::Resource;
use profiler::target::{Address, children_of};
use simgpu::{Environment, Runtime, command_env, library_dir};
use tempfile::TempDir;

use crate::attach::{arguments, compare, copies};
use crate::checks::{device_agrees, nothing_lost};
use crate::sockets::{Exchange, Link, client, span_of, whole};

#[test]
fn edge_37_a_server_that_starts_after_the_profiler_as_a_child() {
    or_skip!();
    // The profiler is at a process that has nothing to do with requests yet.
    let mut parent = e2e::Sockets::start().unwrap();
    let observation = Observation::start(parent.pid(), &[]).unwrap();
    let mut child = parent.fork().unwrap();
    child.exec().unwrap();
    let listener = child.call("listen4 0").unwrap();
    let port = child.call(&format!("port {listener}")).unwrap() as u16;
    child.call("title engine-core").unwrap();
    let client = client(port);
    let fd = child.call(&format!("accept4 {listener}")).unwrap();
    let mut link = Link { client, fd };
    let exchanges = [link.exchange(&mut child, 5), link.exchange(&mut child, 200)];
    let report = observation.stop().unwrap();
    assert_eq!(report.summary.requests.total, 2);
    whole(&report, &exchanges);
    for exchange in exchanges {
        assert_eq!(span_of(&report, &exchange).int("server.port"), Some(u64::from(port)));
    }
    nothing_lost(&report.summary);
}

/// An exchange on a unix socket: on its server's descriptor by one read and one write.
fn unix_exchange(server: &mut Sockets, mut client: &UnixStream, fd: u64, tokens: u64) -> Exchange {
    let exchange = Exchange::new(tokens);
    client.write_all(&exchange.request()).unwrap();
    let length = exchange.request().len() as u64;
    assert_eq!(server.call(&format!("read {fd} {length}")).unwrap(), length);
    let answer = exchange.stream().concat();
    server.load(&answer).unwrap();
    assert_eq!(server.call(&format!("write {fd} 0 {}", answer.len())).unwrap(), answer.len() as u64);
    let mut got = vec![0; answer.len()];
    client.read_exact(&mut got).unwrap();
    assert!(got == answer);
    exchange
}

/// As in a container: numbers of its own for processes, and a network of its own, in which its socket is listed.
#[test]
fn edge_37_requests_in_namespaces_of_their_own() {
    or_skip!();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--net"]).arg(simgpu::sockets_program());
    let mut server = Sockets::spawn(&mut command).unwrap();
    assert_eq!(server.pid(), 1, "it calls itself by another number");
    let [outside] = children_of(server.started_pid().unwrap())[..] else { panic!("unshare has one child") };
    let path = server.folder().join("api.sock").display().to_string();
    let listener = server.call(&format!("listen_unix {path}")).unwrap();
    let early = UnixStream::connect(&path).unwrap();
    let early_fd = server.call(&format!("accept4 {listener}")).unwrap();
    let observation = Observation::start(outside, &[]).unwrap();
    let late = UnixStream::connect(&path).unwrap();
    let late_fd = server.call(&format!("accept4 {listener}")).unwrap();
    let mut child = server.fork().unwrap();
    let exchanges = [
        unix_exchange(&mut server, &early, early_fd, 2),
        unix_exchange(&mut server, &late, late_fd, 3),
        unix_exchange(&mut child, &late, late_fd, 4),
    ];
    let report = observation.stop().unwrap();
    assert_eq!(report.summary.requests.total, 3, "{:?}", report.summary.requests);
    whole(&report, &exchanges);
    for exchange in &exchanges {
        assert_eq!(span_of(&report, exchange).text("server.address"), Some(path.as_str()));
    }
    assert_eq!(report.summary.connections.found_open, 1);
    nothing_lost(&report.summary);
}

/// A program whose stand-in libraries lie in `folder` of a mount namespace of its own, where the same files are.
fn in_container(folder: &Path, log: &Path) -> Calls {
    let script = format!(
        "mount --bind {} {1} && exec env LD_LIBRARY_PATH={1} \"$@\"",
        library_dir(Runtime::Cuda12).display(),
        folder.display(),
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]).arg(simgpu::calls_program());
    let settings = Environment { log_dir: Some(log.to_owned()), ..Environment::default() };
    command.envs(command_env(Runtime::Cuda12, &settings));
    Calls::start(command, &arguments(&[])).unwrap()
}

/// Two containers of one image have the same files under different paths: each profiler counts its own process.
#[test]
fn edge_37_one_library_in_two_containers() {
    or_skip!();
    let folders: Vec<TempDir> = (0..4).map(|_| TempDir::new().unwrap()).collect();
    let (first_log, second_log) = (folders[2].path(), folders[3].path());
    let mut first = in_container(folders[0].path(), first_log);
    let mut second = in_container(folders[1].path(), second_log);
    let pids = [first.waits_before("start").unwrap(), second.waits_before("start").unwrap()];
    let observations = pids.map(|pid| Observation::start(pid, &[]).unwrap());
    let befores = [device(first_log, pids[0]).unwrap(), device(second_log, pids[1]).unwrap()];
    first.make().unwrap();
    // The second one makes its calls while only it and nobody else does, and is seen by its own profiler alone.
    let [one, two] = observations;
    let one = one.stop().unwrap();
    second.make().unwrap();
    let two = two.stop().unwrap();
    let made = [
        since(&befores[0], &device(first_log, pids[0]).unwrap()),
        since(&befores[1], &device(second_log, pids[1]).unwrap()),
    ];
    for (report, (made, folder)) in [&one, &two].into_iter().zip(made.iter().zip(&folders)) {
        device_agrees(&report.summary, made);
        let here = folder.path().to_str().unwrap();
        assert!(report.summary.coverage.iter().all(|library| library.library.starts_with(here)));
        nothing_lost(&report.summary);
    }
    first.end().unwrap();
    second.end().unwrap();
}

/// An upgrade under a running server: the old file is mapped, another one has its name.
#[test]
fn edge_37_a_library_that_was_replaced_on_disk() {
    or_skip!();
    let (log, own) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    copies(own.path());
    let start = || {
        let mut command = calls::command(Runtime::Cuda12, log.path());
        command.env("LD_LIBRARY_PATH", own.path());
        Calls::start(command, &arguments(&[])).unwrap()
    };
    let old = start();
    let old_pid = old.waits_before("start").unwrap();
    for entry in std::fs::read_dir(own.path()).unwrap() {
        let path = entry.unwrap().path();
        let new = path.with_extension("new");
        std::fs::copy(&path, &new).unwrap();
        std::fs::rename(new, path).unwrap();
    }
    let new = start();
    let new_pid = new.waits_before("start").unwrap();
    compare(old, old_pid, log.path(), Observation::start(old_pid, &[]).unwrap());
    compare(new, new_pid, log.path(), Observation::start(new_pid, &[]).unwrap());
}

#[test]
fn edge_37_a_process_that_names_itself() {
    or_skip!();
    let mut server = Sockets::start().unwrap();
    server.call("title engine-core").unwrap();
    let listener = server.call("listen4 0").unwrap();
    let port = server.call(&format!("port {listener}")).unwrap() as u16;
    let observation = Observation::start(server.pid(), &[]).unwrap();
    // And again while it is observed.
    server.call("title VLLM::worker").unwrap();
    let client = client(port);
    let fd = server.call(&format!("accept4 {listener}")).unwrap();
    let exchange = Link { client, fd }.exchange(&mut server, 3);
    let report = observation.stop().unwrap();
    whole(&report, &[exchange]);
    let names: Vec<_> = report.summary.target.processes.iter().map(|p| (p.pid, p.comm.as_str())).collect();
    assert_eq!(names, [(server.pid(), "engine-core")]);
}

const SECOND: i64 = 1_000_000_000;
/// What Unix time is ahead of the monotonic clock at first.
const OFFSET: i64 = 1_700_000_000 * SECOND;

/// A session that knows a connection on port 8000, and what it finished.
struct Replay {
    session: Session,
    spans: Vec<profiler::span::model::Span>,
    positions: [u64; 2],
}

impl Replay {
    fn new() -> Self {
        let resource = Arc::new(Resource::default());
        let session =
            Session::new(Arc::new(Registry::default()), resource, 7, OFFSET.cast_unsigned(), OFFSET);
        let mut replay = Self { session, spans: Vec::new(), positions: [0; 2] };
        replay.take(Input::Listener { pid: 1, fd: 3, address: Address::Tcp(8000) });
        replay.socket(0, Socket::Opened { connection: 9, fd: 4, listener_fd: 3 });
        replay
    }

    fn take(&mut self, input: Input) {
        self.spans.extend(self.session.take(input, &mut |_| {}));
    }

    fn socket(&mut self, at_s: i64, socket: Socket) {
        let time_ns = (at_s * SECOND).cast_unsigned();
        self.take(Input::Events(vec![Event { pid: 1, tid: 1, time_ns, body: Body::Socket(socket) }]));
    }

    fn data(&mut self, at_s: i64, direction: Direction, bytes: Vec<u8>) {
        let position = &mut self.positions[usize::from(direction == Direction::Sent)];
        let at = *position;
        *position += bytes.len() as u64;
        self.socket(at_s, Socket::Data { connection: 9, direction, position: at, bytes, lost_after: 0 });
    }

    fn tick(&mut self, at_s: i64, unix_offset_ns: i64) {
        self.take(Input::Tick { now_ns: (at_s * SECOND).cast_unsigned(), unix_offset_ns });
    }

    /// An exchange from one moment to another, and a look at the wall clock in between.
    fn exchange(&mut self, from_s: i64, to_s: i64, offset_between: i64) {
        let exchange = Exchange::new(2);
        self.data(from_s, Direction::Received, exchange.request());
        self.tick(from_s.midpoint(to_s), offset_between);
        self.data(to_s, Direction::Sent, exchange.answer(""));
    }
}

/// The wall clock is set back by an hour while a request runs, and forward by a day while another does; then the machine
/// sleeps for an hour, in which the monotonic clock stands.
#[test]
fn edge_38_spans_keep_their_length_when_the_wall_clock_jumps() {
    let mut replay = Replay::new();
    let (back, forward) = (OFFSET - 3600 * SECOND, OFFSET + 86_400 * SECOND);
    let after_sleep = forward + 3600 * SECOND;
    for (from_s, offset) in [(10, OFFSET), (20, back), (30, forward), (40, after_sleep)] {
        replay.exchange(from_s, from_s + 4, offset);
    }
    replay.socket(60, Socket::Ended { connection: 9, fd: 4, end: End::Closed, received: 0, sent: 0 });
    let servers: Vec<_> =
        replay.spans.iter().filter(|span| span.kind == profiler::span::model::Kind::Server).collect();
    let seen: Vec<_> = servers.iter().map(|span| (span.start_ns, span.end_ns)).collect();
    let expected = [(10, OFFSET), (20, back), (30, forward), (40, after_sleep)].map(|(from_s, offset)| {
        let start = (from_s * SECOND + offset).cast_unsigned();
        (start, start + (4 * SECOND).cast_unsigned())
    });
    assert_eq!(seen, expected, "as long as the monotonic clock says, at the newest time of day");
    // Children lie inside their request, whatever the clock did meanwhile.
    for span in &replay.spans {
        let parent = servers.iter().find(|server| server.trace_id == span.trace_id).unwrap();
        assert!(parent.start_ns <= span.start_ns && span.end_ns <= parent.end_ns, "{span:?}");
    }
}
