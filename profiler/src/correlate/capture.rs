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
    /// Captures whose end was not seen, and what found no room.
    pub forgotten: u64,
}

/// Captures under way at once: a thread has one at a time.
const MOST_CAPTURES: usize = 1024;
/// Streams and events in captures.
const MOST_IN_CAPTURES: usize = 16_384;

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
        // One capture of a stream begins when the last has ended, whether that was seen or not.
        self.lose(stream);
        if self.recording.len() >= MOST_CAPTURES
            && let Some(oldest) = self.recording.keys().min().copied()
        {
            self.drop_capture(oldest);
        }
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
            Some(capture) if self.events.len() < MOST_IN_CAPTURES => {
                self.events.insert(event, *capture);
            }
            Some(_) => self.forgotten += 1,
            None if self.events.is_empty() => {}
            None => drop(self.events.remove(&event)),
        }
    }

    /// A stream waits for an event, and so joins the event's capture.
    pub fn wait(&mut self, stream: u64, event: u64) {
        if let Some(capture) = self.events.get(&event).filter(|capture| self.recording.contains_key(capture))
        {
            if self.streams.len() < MOST_IN_CAPTURES {
                self.streams.insert(stream, *capture);
            } else {
                self.forgotten += 1;
            }
        }
    }

    /// The capture of `stream` is over; what it recorded.
    pub fn end(&mut self, stream: u64) -> Option<Recording> {
        let capture = self.streams.get(&stream).copied()?;
        self.streams.retain(|_, of| *of != capture);
        self.events.retain(|_, of| *of != capture);
        self.recording.remove(&capture)
    }

    /// The stream records nothing: what it was thought to record came to an end that was not seen.
    pub fn lose(&mut self, stream: u64) {
        if let Some(capture) = self.streams.get(&stream).copied() {
            self.drop_capture(capture);
        }
    }

    fn drop_capture(&mut self, capture: u64) {
        self.forgotten += 1;
        self.streams.retain(|_, of| *of != capture);
        self.events.retain(|_, of| *of != capture);
        self.recording.remove(&capture);
    }

    /// Kernel launches recorded so far.
    #[must_use]
    pub fn launches(&self) -> u64 {
        self.launches
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::kernel::KernelKey;

    fn launch(captures: &mut Captures, stream: u64) -> bool {
        captures.record(stream, |nodes| nodes.add_launch(KernelKey { pid: 1, function: 7 }))
    }

    #[test]
    fn a_capture_whose_end_was_lost_ends_with_the_next_or_with_a_wait() {
        let mut captures = Captures::default();
        captures.begin(5, None);
        assert!(launch(&mut captures, 5));
        captures.begin(5, None);
        assert!(launch(&mut captures, 5));
        assert_eq!(captures.end(5).map(|recording| recording.nodes.launches()), Some(1));
        captures.begin(5, None);
        captures.lose(5);
        assert!(!launch(&mut captures, 5), "it runs");
        assert_eq!((captures.forgotten, captures.recording.len()), (2, 0));
    }

    #[test]
    fn captures_that_never_end_do_not_pile_up() {
        let mut captures = Captures::default();
        for stream in 0..5000 {
            captures.begin(stream, None);
        }
        assert_eq!((captures.recording.len(), captures.streams.len()), (MOST_CAPTURES, MOST_CAPTURES));
        assert_eq!(captures.forgotten, 5000 - MOST_CAPTURES as u64);
        assert!(launch(&mut captures, 4999) && !launch(&mut captures, 0), "the oldest go first");
        (0..50_000).for_each(|event| captures.record_event(event, 4999));
        (0..50_000).for_each(|stream| captures.wait(1_000_000 + stream, 1));
        assert_eq!((captures.events.len(), captures.streams.len()), (MOST_IN_CAPTURES, MOST_IN_CAPTURES));
    }
}
