//! Entries → a file, on a thread of its own.
//!
//! In: what the tape kept. Out: a compressed file that can be read up to the last second when gpuspan is killed. Memory is
//! bounded by the channel before it. A file that cannot be written ends the recording, not the observation.

use super::format::{HEAD, MARK, MOST_RECORD, VERSION, checksum};
use super::tape::{Lost, Message};
use super::wire::{End, Entry, Header, Record};
use crate::facts::Facts;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Between two moments from which on a file that was cut off there can be read.
const BETWEEN_FLUSHES: Duration = Duration::from_secs(1);

/// The least that makes a difference: a sixth of the size for a third of the time that the next but one level takes.
const COMPRESSION: Compression = Compression::new(1);

/// Names of kernels in one record.
const KERNELS: usize = 256;

/// Why a recording could not be made.
#[derive(Debug, thiserror::Error)]
#[error("failed to write the recording {}: what is in it up to there can be replayed", path.display())]
pub struct RecordError {
    path: PathBuf,
    source: io::Error,
}

/// Writes a recording.
#[derive(Debug)]
pub struct Writer {
    out: Option<GzEncoder<BufWriter<File>>>,
    path: PathBuf,
    lost: Arc<Lost>,
    entries: u64,
    events: u64,
    flushed: Instant,
    failed: Option<io::Error>,
}

impl Writer {
    /// Creates or empties the file and writes the header.
    ///
    /// # Errors
    /// When the file cannot be created or written.
    pub fn create(path: &Path, header: Header, lost: Arc<Lost>) -> Result<Self, RecordError> {
        let error = |source| RecordError { path: path.to_owned(), source };
        let file = File::create(path).map_err(error)?;
        let mut out = GzEncoder::new(BufWriter::new(file), COMPRESSION);
        begin(&mut out).and_then(|()| put(&mut out, &Record::Header(Box::new(header)))).map_err(error)?;
        Ok(Self {
            out: Some(out),
            path: path.to_owned(),
            lost,
            entries: 0,
            events: 0,
            flushed: Instant::now(),
            failed: None,
        })
    }

    /// Writes what comes until the end of it.
    ///
    /// # Errors
    /// When something could not be written; what came behind it was dropped.
    pub fn run(mut self, entries: &Receiver<Message>) -> Result<(), RecordError> {
        loop {
            match entries.recv_timeout(BETWEEN_FLUSHES) {
                Ok(Message::Entry(entry)) => self.entry(entry),
                Ok(Message::End(facts, end)) => {
                    self.end(*facts, *end);
                    break;
                }
                Err(RecvTimeoutError::Timeout) => {}
                // The observation failed, and says why itself. What there is can be replayed.
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.flush();
        }
        self.finish()
    }

    fn entry(&mut self, entry: Entry) {
        let events = entry.events();
        if self.put(&Record::Entry(entry)) {
            self.entries += 1;
            self.events += events;
        } else {
            self.lost.add(events);
        }
    }

    fn end(&mut self, mut facts: Facts, end: End) {
        let kernels: Vec<_> = std::mem::take(&mut facts.kernels).into_iter().collect();
        for some in kernels.chunks(KERNELS) {
            self.put(&Record::Kernels(some.to_vec()));
        }
        self.put(&Record::Facts(Box::new(facts)));
        self.put(&Record::End(Box::new(End {
            entries: self.entries,
            events: self.events,
            lost_entries: self.lost.entries.load(Ordering::Relaxed),
            lost_events: self.lost.events.load(Ordering::Relaxed),
            ..end
        })));
    }

    /// False when it could not be written.
    fn put(&mut self, record: &Record) -> bool {
        let Some(out) = &mut self.out else { return false };
        match put(out, record) {
            Ok(()) => true,
            // One that is too large is left out; the file is in order.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => false,
            Err(error) => {
                self.fail(error);
                false
            }
        }
    }

    fn flush(&mut self) {
        if self.flushed.elapsed() < BETWEEN_FLUSHES {
            return;
        }
        self.flushed = Instant::now();
        if let Some(Err(error)) = self.out.as_mut().map(Write::flush) {
            self.fail(error);
        }
    }

    fn fail(&mut self, error: io::Error) {
        tracing::warn!(path = %self.path.display(), %error, "the recording ends here");
        self.out = None;
        self.failed.get_or_insert(error);
    }

    fn finish(mut self) -> Result<(), RecordError> {
        let finished = match (self.failed.take(), self.out.take()) {
            (Some(error), _) => Err(error),
            (None, Some(out)) => out.finish().and_then(|mut file| file.flush()),
            (None, None) => Ok(()),
        };
        finished.map_err(|source| RecordError { path: self.path, source })
    }
}

fn begin(out: &mut impl Write) -> io::Result<()> {
    out.write_all(MARK)?;
    out.write_all(&VERSION.0.to_le_bytes())?;
    out.write_all(&VERSION.1.to_le_bytes())
}

/// Writes one record.
fn put(out: &mut impl Write, record: &Record) -> io::Result<()> {
    let bytes = rmp_serde::to_vec_named(record).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= MOST_RECORD);
    let length = length.ok_or(io::ErrorKind::InvalidInput)?;
    let mut head = [0; HEAD];
    let (first, second) = head.split_at_mut(HEAD / 2);
    first.copy_from_slice(&length.to_le_bytes());
    second.copy_from_slice(&checksum(&bytes).to_le_bytes());
    out.write_all(&head)?;
    out.write_all(&bytes)
}
