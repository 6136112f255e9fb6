//! A file → records, one at a time. Total: any bytes give records and then an end or a reason.
//!
//! In: any file. Out: records in order; an error says where and why, and all that came before it stands. Nothing is
//! believed: a record is as long as its bytes are, and no longer than the format allows.

use super::format::{HEAD, MARK, MOST_RECORD, VERSION, checksum};
use super::wire::{Header, Record};
use flate2::read::GzDecoder;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

/// Why a recording cannot be read, or not further.
#[derive(Debug, thiserror::Error)]
#[error("{}: {kind}", path.display())]
pub struct ReadError {
    path: PathBuf,
    /// What it is.
    pub kind: Kind,
    source: Option<io::Error>,
}

/// What is wrong with a recording.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Kind {
    /// It cannot be read at all.
    #[error("failed to read the recording")]
    Unreadable,
    /// It is something else.
    #[error("it is no recording of gpuspan: {0}")]
    Foreign(&'static str),
    /// A newer gpuspan made it.
    #[error(
        "the recording has format {0}, and this gpuspan ({this}) reads formats up to {most}: replay it with the gpuspan that \
         made it, or a newer one",
        this = env!("CARGO_PKG_VERSION"),
        most = VERSION.0
    )]
    Newer(u16),
    /// It ends too early.
    #[error(
        "the recording ends in the middle, in record {record} (byte {byte} of what is unpacked): it was cut off, or \
         gpuspan was killed while it wrote it; what comes before was replayed"
    )]
    Cut {
        /// The record that is not whole.
        record: u64,
        /// Where it begins.
        byte: u64,
    },
    /// It was damaged.
    #[error(
        "the recording is damaged in record {record} (byte {byte} of what is unpacked): {why}; what comes before was \
         replayed"
    )]
    Damaged {
        /// The record that is wrong.
        record: u64,
        /// Where it begins.
        byte: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// Reads a recording.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    path: PathBuf,
    /// Records read, and bytes of them.
    records: u64,
    bytes: u64,
    buffer: Vec<u8>,
    ended: bool,
}

impl Reader<GzDecoder<BufReader<File>>> {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// When it is no recording, or one of a newer format.
    pub fn open(path: &Path) -> Result<(Self, Header), ReadError> {
        let file = File::open(path).map_err(|error| ReadError {
            path: path.to_owned(),
            kind: Kind::Unreadable,
            source: Some(error),
        })?;
        Self::new(GzDecoder::new(BufReader::new(file)), path)
    }
}

impl<R: Read> Reader<R> {
    /// Reads the header of what is unpacked.
    ///
    /// # Errors
    /// When it is no recording, or one of a newer format.
    pub fn new(from: R, path: &Path) -> Result<(Self, Header), ReadError> {
        let path = path.to_owned();
        let mut reader = Self { from, path, records: 0, bytes: 0, buffer: Vec::new(), ended: false };
        reader.version()?;
        match reader.next()? {
            Some(Record::Header(header)) => Ok((reader, *header)),
            _ => Err(reader.error(Kind::Foreign("it has no header"))),
        }
    }

    /// The next record; none behind the last.
    ///
    /// # Errors
    /// When the file was cut off or damaged.
    #[expect(
        clippy::should_implement_trait,
        reason = "it fails once and for all, which an iterator does not tell"
    )]
    pub fn next(&mut self) -> Result<Option<Record>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        let record = self.record()?;
        self.records += 1;
        self.ended = matches!(record, Record::End(_));
        Ok(Some(record))
    }

    fn version(&mut self) -> Result<(), ReadError> {
        let mut mark = [0; 12];
        if let Err(error) = self.from.read_exact(&mut mark) {
            let why = match error.kind() {
                io::ErrorKind::UnexpectedEof => "it is too short",
                _ => "it is not compressed by gzip",
            };
            return Err(self.error(Kind::Foreign(why)));
        }
        self.bytes = 12;
        let [a, b, c, d, e, f, g, h, major, major_high, _, _] = mark;
        let major = u16::from_le_bytes([major, major_high]);
        match [a, b, c, d, e, f, g, h] == *MARK {
            false => Err(self.error(Kind::Foreign("it does not begin like one"))),
            true if major > VERSION.0 => Err(self.error(Kind::Newer(major))),
            true => Ok(()),
        }
    }

    fn record(&mut self) -> Result<Record, ReadError> {
        let mut head = [0; HEAD];
        self.fill(&mut head)?;
        let [a, b, c, d, e, f, g, h] = head;
        let (length, sum) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        if length as usize > MOST_RECORD {
            return Err(self
                .damaged(format!("it would be {length} bytes long, and none is longer than {MOST_RECORD}")));
        }
        self.buffer.clear();
        // As much memory as there are bytes, whatever the length says.
        let read = (&mut self.from).take(length.into()).read_to_end(&mut self.buffer);
        if let Err(error) = read {
            return Err(self.broken(error));
        }
        if self.buffer.len() < length as usize {
            return Err(self.cut());
        }
        if checksum(&self.buffer) != sum {
            return Err(self.damaged("its checksum does not fit".to_owned()));
        }
        let record = rmp_serde::from_slice(&self.buffer).map_err(|error| self.damaged(error.to_string()))?;
        self.bytes += HEAD as u64 + u64::from(length);
        Ok(record)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ReadError> {
        self.from.read_exact(bytes).map_err(|error| self.broken(error))
    }

    fn broken(&self, error: io::Error) -> ReadError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.cut(),
            _ => ReadError { source: Some(error), ..self.damaged("it cannot be unpacked".to_owned()) },
        }
    }

    fn cut(&self) -> ReadError {
        self.error(Kind::Cut { record: self.records, byte: self.bytes })
    }

    fn damaged(&self, why: String) -> ReadError {
        self.error(Kind::Damaged { record: self.records, byte: self.bytes, why })
    }

    fn error(&self, kind: Kind) -> ReadError {
        ReadError { path: self.path.clone(), kind, source: None }
    }
}
