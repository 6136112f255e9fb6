//! Stream captures: which operations are recorded instead of run.
//!
//! CUDA's rules (programming guide, "Creating a Graph Using Stream Capture"): a capture begins on one stream;
//! another stream joins when it waits for an event recorded in the capture; the capture ends on the first stream.

use super::graph::Nodes;
use std::collections::HashMap;

/// The captures under way in one process.
#[derive(Debug, Default)]
pub struct Captures {
    next: u64,
    /// Capture under way on each stream.
    streams: HashMap<u64, u64>,
    /// Capture in which each event was recorded.
    events: HashMap<u64, u64>,
    recording: HashMap<u64, Recording>,
    launches: u64,
}

/// What has been recorded so far.
#[derive(Debug, Default)]
pub struct Recording {
    /// The nodes.
    pub nodes: Nodes,
    /// The graph they go into, when there was one before.
    pub into: Option<u64>,
}

impl Captures {
    /// The stream records from here on.
    pub fn begin(&mut self, stream: u64, into: Option<u64>) {
        self.next += 1;
        self.streams.insert(stream, self.next);
        self.recording.insert(self.next, Recording { nodes: Nodes::default(), into });
    }

    /// Lets `add` record into the capture of `stream`; false when the stream runs what it is given.
    pub fn record(&mut self, stream: u64, add: impl FnOnce(&mut Nodes)) -> bool {
        // The hot path: nearly always nothing is being captured.
        if self.streams.is_empty() {
            return false;
        }
        let Some(recording) = self.streams.get(&stream).and_then(|capture| self.recording.get_mut(capture))
        else {
            return false;
        };
        let before = recording.nodes.launches();
        add(&mut recording.nodes);
        self.launches += recording.nodes.launches() - before;
        true
    }

    /// An event was recorded in a stream.
    pub fn record_event(&mut self, event: u64, stream: u64) {
        match self.streams.get(&stream) {
            Some(capture) => drop(self.events.insert(event, *capture)),
            None if self.events.is_empty() => {}
            None => drop(self.events.remove(&event)),
        }
    }

    /// A stream waits for an event, and so joins the event's capture.
    pub fn wait(&mut self, stream: u64, event: u64) {
        if let Some(capture) = self.events.get(&event).filter(|capture| self.recording.contains_key(capture))
        {
            self.streams.insert(stream, *capture);
        }
    }

    /// The capture of `stream` is over; what it recorded.
    pub fn end(&mut self, stream: u64) -> Option<Recording> {
        let capture = self.streams.get(&stream).copied()?;
        self.streams.retain(|_, of| *of != capture);
        self.events.retain(|_, of| *of != capture);
        self.recording.remove(&capture)
    }

    /// Kernel launches recorded so far.
    #[must_use]
    pub fn launches(&self) -> u64 {
        self.launches
    }
}
