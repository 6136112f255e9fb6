//! Stream captures: which launches are recorded instead of run, and what an executable graph consists of.
//!
//! CUDA's rules (programming guide, "Creating a Graph Using Stream Capture"): a capture begins on one stream;
//! another stream joins when it waits for an event recorded in the capture; the capture ends on the first stream.

use super::kernel::KernelKey;
use crate::probe::Direction;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What a graph runs each time it is launched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// Kernel nodes by kernel.
    pub kernels: BTreeMap<KernelKey, u64>,
    /// Copy nodes: count and bytes by direction.
    pub copies: BTreeMap<Direction, (u64, u64)>,
}

impl Nodes {
    /// Adds a kernel node.
    pub fn add_launch(&mut self, kernel: KernelKey) {
        *self.kernels.entry(kernel).or_default() += 1;
    }

    /// Adds a copy node.
    pub fn add_copy(&mut self, direction: Direction, bytes: u64) {
        let (count, sum) = self.copies.entry(direction).or_default();
        *count += 1;
        *sum += bytes;
    }

    /// Kernel nodes.
    #[must_use]
    pub fn launches(&self) -> u64 {
        self.kernels.values().sum()
    }
}

/// The captures and graphs of one process.
#[derive(Debug, Default)]
pub struct Captures {
    next: u64,
    /// Capture under way on each stream.
    streams: HashMap<u64, u64>,
    /// Capture in which each event was recorded.
    events: HashMap<u64, u64>,
    recording: HashMap<u64, Nodes>,
    graphs: HashMap<u64, Arc<Nodes>>,
    executables: HashMap<u64, Arc<Nodes>>,
    launches: u64,
}

/// Handles are reused after destruction, which is not probed: past this many the table starts anew.
const MAX_GRAPHS: usize = 16_384;

impl Captures {
    /// The stream records from here on.
    pub fn begin(&mut self, stream: u64) {
        self.next += 1;
        self.streams.insert(stream, self.next);
        self.recording.insert(self.next, Nodes::default());
    }

    /// Lets `add` record into the capture of `stream`; false when the stream runs what it is given.
    pub fn record(&mut self, stream: u64, add: impl FnOnce(&mut Nodes)) -> bool {
        // The hot path: nearly always nothing is being captured.
        if self.streams.is_empty() {
            return false;
        }
        let Some(nodes) = self.streams.get(&stream).and_then(|capture| self.recording.get_mut(capture))
        else {
            return false;
        };
        let before = nodes.launches();
        add(nodes);
        self.launches += nodes.launches() - before;
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

    /// The capture of `stream` ended and became `graph`.
    pub fn end(&mut self, stream: u64, graph: u64) {
        if let Some(nodes) = self.stop(stream) {
            insert_bounded(&mut self.graphs, graph, Arc::new(nodes));
        }
    }

    /// The capture of `stream` ended without a graph.
    pub fn abandon(&mut self, stream: u64) {
        drop(self.stop(stream));
    }

    fn stop(&mut self, stream: u64) -> Option<Nodes> {
        let capture = self.streams.get(&stream).copied()?;
        self.streams.retain(|_, of| *of != capture);
        self.events.retain(|_, of| *of != capture);
        self.recording.remove(&capture)
    }

    /// `graph` was made executable. A graph that was not seen makes an executable that is not known.
    pub fn instantiate(&mut self, graph: u64, executable: u64) {
        match self.graphs.get(&graph) {
            Some(nodes) => insert_bounded(&mut self.executables, executable, Arc::clone(nodes)),
            None => drop(self.executables.remove(&executable)),
        }
    }

    /// What an executable graph runs, if its making was seen.
    #[must_use]
    pub fn executable(&self, executable: u64) -> Option<Arc<Nodes>> {
        self.executables.get(&executable).cloned()
    }

    /// Kernel launches recorded so far.
    #[must_use]
    pub fn launches(&self) -> u64 {
        self.launches
    }
}

fn insert_bounded(table: &mut HashMap<u64, Arc<Nodes>>, key: u64, nodes: Arc<Nodes>) {
    if table.len() >= MAX_GRAPHS && !table.contains_key(&key) {
        table.clear();
    }
    table.insert(key, nodes);
}
