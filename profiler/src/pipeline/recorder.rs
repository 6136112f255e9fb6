//! The thread that writes a recording, and what a recording says of the program and the machine that made it.

use super::{RunError, join, spawn};
use crate::facts::{Ending, Facts};
use crate::record::{self, Catalogue, RecordError, Tape};
use crate::session::Session;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Entries between correlating and writing a recording: a second's worth at 100,000 events a second. When they are full
/// entries are left out and counted; correlating never waits for a disk.
const ENTRIES_TO_WRITE: usize = 32;

/// The thread that writes a recording.
pub struct Recorder {
    entries_to_write: SyncSender<record::Message>,
    thread: JoinHandle<Result<(), RecordError>>,
}

impl Recorder {
    /// From here on what the session takes is recorded.
    pub fn start(path: &Path, header: record::Header, session: &mut Session) -> Result<Self, RunError> {
        let lost = Arc::new(record::Lost::default());
        let writer = record::Writer::create(path, header, Arc::clone(&lost))?;
        let (entries_to_write, entries) = sync_channel(ENTRIES_TO_WRITE);
        session.record(Tape::new(entries_to_write.clone(), lost));
        let thread = spawn("record", move || writer.run(&entries))?;
        Ok(Self { entries_to_write, thread })
    }

    pub fn finish(self, facts: Facts, ending: Ending) -> Result<(), RunError> {
        let end = record::End { ending, ..record::End::default() };
        // A closed channel means that the writer panicked, which the join tells.
        drop(self.entries_to_write.send(record::Message::End(Box::new(facts), Box::new(end))));
        Ok(join("record", self.thread)??)
    }
}

/// What a recording says of the program and the machine that made it.
pub fn header() -> record::Header {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    record::Header {
        gpuspan: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: kernel.trim().to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        functions: Catalogue::names(),
        ..record::Header::default()
    }
}
