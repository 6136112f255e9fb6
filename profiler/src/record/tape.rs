//! What runs along with the correlating thread and keeps what it takes.
//!
//! In: each input and event before it is taken, and what the parsers made of it after. Out: entries, through a bounded
//! channel. It never waits: what finds no room is counted, and the recording says so.

use super::wire::{End, Entry, Happened, What};
use crate::correlate::Parsed;
use crate::decode::Event;
use crate::facts::Facts;
use crate::session::Input;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;

/// What goes to the writer.
#[derive(Debug)]
pub enum Message {
    /// What was taken.
    Entry(Entry),
    /// Nothing more comes. Its counts of entries are the writer's to fill in.
    End(Box<Facts>, Box<End>),
}

/// What found no room.
#[derive(Debug, Default)]
pub struct Lost {
    /// Entries.
    pub entries: AtomicU64,
    /// Events in them.
    pub events: AtomicU64,
}

impl Lost {
    /// An entry found no room.
    pub fn add(&self, events: u64) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.events.fetch_add(events, Ordering::Relaxed);
    }
}

/// Keeps what is taken.
#[derive(Debug)]
pub struct Tape {
    entries_to_write: SyncSender<Message>,
    lost: Arc<Lost>,
    what: Option<What>,
}

impl Tape {
    /// Into a channel.
    #[must_use]
    pub fn new(entries_to_write: SyncSender<Message>, lost: Arc<Lost>) -> Self {
        Self { entries_to_write, lost, what: None }
    }

    /// An input is about to be taken.
    pub fn begin(&mut self, input: &Input) {
        self.what = Some(What::from(input));
    }

    /// An event of it is about to be taken.
    pub fn event(&mut self, event: &Event) {
        if let Some(What::Events(events)) = &mut self.what {
            events.push(Happened::from(event));
        }
    }

    /// This was made of the event.
    pub fn made(&mut self, parsed: Parsed) {
        if let Some(What::Events(events)) = &mut self.what
            && let Some(last) = events.last_mut()
        {
            last.4 = parsed;
        }
    }

    /// The input has been taken, and this was made of it.
    pub fn end(&mut self, parsed: Parsed) {
        let Some(what) = self.what.take() else { return };
        let entry = Entry { what, parsed };
        let events = entry.events();
        if self.entries_to_write.try_send(Message::Entry(entry)).is_err() {
            self.lost.add(events);
        }
    }
}
