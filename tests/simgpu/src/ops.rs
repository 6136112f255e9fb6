//! Every operation that ran, one by one. In: a log directory whose processes had `SIMGPU_OPS=1`. Out: [`Op`]s in the
//! order of their start. Absent: operations that are queued and have no times yet.

use std::io;
use std::path::Path;

use serde::Serialize;

use crate::truth::{CountsFile, Shared, files};

const MAGIC: u64 = 0x3153_504f_4749_5353; // log.h
const HEADER_BYTES: usize = 64;
const RECORD_BYTES: usize = 64;

/// What an operation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A kernel ran.
    Kernel,
    /// Bytes were copied.
    Copy,
    /// Memory was set.
    Fill,
    /// A host function ran.
    Host,
    /// An event was recorded.
    Event,
    /// A stream waited for an event.
    Wait,
    /// A whole graph, from its launch's start to its last node's end. Its nodes have records of their own.
    Graph,
    /// Stream-ordered memory was freed.
    Free,
    /// A node without work.
    Empty,
    /// A value was written.
    Write,
}

impl Kind {
    fn from_number(number: u32) -> Option<Self> {
        use Kind::{Copy, Empty, Event, Fill, Free, Graph, Host, Kernel, Wait, Write};
        let kinds = [Kernel, Copy, Fill, Host, Event, Wait, Graph, Free, Empty, Write];
        kinds.get((number as usize).checked_sub(1)?).copied()
    }
}

/// One executed operation. Times are CLOCK_MONOTONIC nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Op {
    /// The process.
    pub pid: u32,
    /// What it did.
    pub kind: Kind,
    /// The stream's number, as `cudaStreamGetId` answers; unique in its process.
    pub stream: u64,
    /// When the call that submitted it came in.
    pub submit_ns: u64,
    /// When it began on the device.
    pub start_ns: u64,
    /// When it ended on the device.
    pub end_ns: u64,
    /// Bytes moved or set.
    pub bytes: u64,
    /// The kernel's name, of kernels.
    pub kernel: Option<String>,
    /// `htod`, `dtoh`, `dtod` or `htoh`, of copies.
    pub direction: Option<&'static str>,
    /// The thread that submitted it.
    pub thread: u32,
    /// The executable graph it ran in, or 0.
    pub graph: u32,
}

/// Reads the operations of every process of `dir`, by start.
///
/// # Errors
/// When the directory or one of its files cannot be read, or a file is not what the libraries write.
pub fn ops(dir: &Path) -> io::Result<Vec<Op>> {
    let mut all = Vec::new();
    for path in files(dir, "ops")? {
        let file = Shared::open(&path)?;
        if !file.is_empty() && file.u64(0)? == MAGIC {
            read_process(&file, &path, &mut all)?;
        }
    }
    all.sort_by_key(|op| (op.start_ns, op.end_ns));
    Ok(all)
}

fn read_process(file: &Shared, path: &Path, all: &mut Vec<Op>) -> io::Result<()> {
    let pid = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).unwrap_or(0);
    let written = file.usize(24)?.min(file.usize(16)?);
    let names = CountsFile::open(&path.with_extension("counts"))?.kernels()?;
    for at in (0..written).map(|i| HEADER_BYTES + i * RECORD_BYTES) {
        let Some(kind) = Kind::from_number(file.u32(at)?) else { continue };
        let index = file.u32(at + 4)? as usize;
        let directions = ["htod", "dtoh", "dtod", "htoh"];
        all.push(Op {
            pid,
            kind,
            stream: file.u64(at + 8)?,
            submit_ns: file.u64(at + 16)?,
            start_ns: file.u64(at + 24)?,
            end_ns: file.u64(at + 32)?,
            bytes: file.u64(at + 40)?,
            kernel: names.get(index).filter(|_| kind == Kind::Kernel).map(|(name, _)| name.clone()),
            direction: index
                .checked_sub(1)
                .filter(|_| kind == Kind::Copy)
                .and_then(|i| directions.get(i).copied()),
            thread: file.u32(at + 48)?,
            graph: file.u32(at + 52)?,
        });
    }
    Ok(())
}
