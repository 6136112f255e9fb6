//! An observation in a file, and an observation out of one.
//!
//! In: what the correlating thread takes, in its order, and what the parsers made of it. Out: a file; and from it the
//! same inputs again, for the same code. Deliberately absent: the bytes of sockets and messages. They end at the parsers,
//! before the tape, and no type here has a place for them (`docs/recording.md`).
//!
//! ```text
//! correlating thread ─► tape ──entries_to_write──► writer ─► file ─► reader ─► replay (`pipeline`)
//!                        strips                    thread
//! ```

mod catalogue;
mod format;
mod read;
mod tape;
mod wire;
mod write;

pub use catalogue::Catalogue;
pub use format::{MOST_RECORD, VERSION};
pub use read::{Kind, ReadError, Reader};
pub use tape::{Lost, Message, Tape};
pub use wire::{Again, End, Entry, Header, Record};
pub use write::{RecordError, Writer};

use serde::Serialize;

/// What is to be known of a recording that was replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    /// The gpuspan that made it.
    pub made_by: String,
    /// It is whole: it has its end, and nothing found no room while it was made.
    pub complete: bool,
    /// Batches of events, and other inputs.
    pub entries: u64,
    /// Events.
    pub events: u64,
    /// Events that found no room while it was made: the file was slower than the server.
    pub lost_events: u64,
    /// Other inputs, likewise.
    pub lost_entries: u64,
    /// Events of functions that this gpuspan does not know.
    pub unknown_functions: u64,
    /// What parsers said and nothing asked for: the recording is of a program that works otherwise.
    pub unasked: u64,
    /// Why it could not be read to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

#[cfg(test)]
mod tests;
