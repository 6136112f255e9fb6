//! What the kernel side copies of libzmq's frames, byte by byte: each kind of frame, sent and received, up to the
//! largest record and beyond; and what it counts of receives that find nothing.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use profiler::attach::{Attacher, Kernel, KernelSettings};
use profiler::decode::{self, Body, ServerData, Way};
use tempfile::TempDir;

use super::sglang::environment;

/// As in `frames.py`.
const SIZES: [usize; 17] =
    [0, 1, 32, 33, 34, 207, 208, 209, 976, 977, 4048, 4049, 16336, 16337, 65488, 65489, 200_000];
/// The most that a record carries.
const MOST: usize = 65_488;

struct Program {
    child: Child,
    lines: BufReader<ChildStdout>,
    _folder: TempDir,
}

impl Program {
    fn start() -> Option<Self> {
        let python = environment::interpreter("sglang-wire", super::sglang::PACKAGES)?;
        let folder = TempDir::new().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../servers/frames.py");
        let mut command = Command::new(python);
        command.arg(script).arg(folder.path().join("socket")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut program = Self { child, lines, _folder: folder };
        program.expect("ready");
        Some(program)
    }

    fn run(&mut self, what: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{what}").unwrap();
        self.expect("done");
    }

    fn expect(&mut self, word: &str) {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), word);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[derive(Debug, PartialEq)]
struct Seen {
    way: Way,
    more: bool,
    size: u64,
    bytes: Vec<u8>,
}

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|place| ((size + 7 * place) % 251) as u8).take(MOST).collect()
}

#[test]
fn edge_25_frames_of_every_kind_are_copied_as_they_are() {
    e2e::or_skip!();
    let Some(mut program) = Program::start() else { return };
    profiler::attach::ensure_tracefs();
    let mut attacher = Attacher::new(Kernel::load(&KernelSettings::default()).unwrap());
    let mut ring = attacher.kernel().take_ring().unwrap();
    attacher.add(program.child.id(), &mut |_| {}).unwrap();
    program.run("send");
    let mut seen = Vec::new();
    while let Some(record) = ring.next() {
        if let Body::Server(call) = decode::decode(&record).unwrap().body
            && let ServerData::Frame { way, more, size, bytes, .. } = call.data
        {
            seen.push(Seen { way, more, size, bytes });
        }
    }
    let mut expected = Vec::new();
    for size in SIZES {
        for way in [Way::Sent, Way::Received] {
            expected.push(Seen { way, more: true, size: 1, bytes: vec![2] });
            expected.push(Seen { way, more: false, size: size as u64, bytes: content(size) });
        }
    }
    assert_eq!(seen.len(), expected.len());
    for (seen, expected) in seen.iter().zip(&expected) {
        assert!(seen == expected, "{:?} {} {}: {:?}", seen.way, seen.more, seen.size, seen.bytes.len());
    }
    let server = attacher.kernel().counters()[profiler_common::counter::family::SERVER as usize];
    assert_eq!((server.seen, server.submitted), (expected.len() as u64, expected.len() as u64));
    let beyond: usize = SIZES.iter().map(|size| 2 * size.saturating_sub(MOST)).sum();
    assert_eq!(server.bytes_uncopied, beyond as u64, "what is left out is counted");
}

#[test]
fn edge_33_receives_that_find_nothing_are_counted_and_can_be_left_alone() {
    e2e::or_skip!();
    let Some(mut program) = Program::start() else { return };
    let pid = program.child.id();
    profiler::attach::ensure_tracefs();
    let mut attacher = Attacher::new(Kernel::load(&KernelSettings::default()).unwrap());
    attacher.add(pid, &mut |_| {}).unwrap();
    program.run("spin");
    assert_eq!(attacher.kernel().idle_receives(pid), 2000);
    assert!(attacher.stop_receives(pid) && !attacher.stop_receives(pid), "they are taken out once");
    program.run("spin");
    assert_eq!(attacher.kernel().idle_receives(pid), 2000, "and are seen no more");
    program.run("send");
    let server = attacher.kernel().counters()[profiler_common::counter::family::SERVER as usize];
    assert_eq!(server.submitted, 2 * SIZES.len() as u64, "what is sent still is");
}
