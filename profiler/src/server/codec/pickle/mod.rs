//! Python's pickle format, protocols 2 to 5, as an inert tree (PEP 307, PEP 3154, PEP 574; `Lib/pickletools.py`).
//!
//! In: bytes, which may be cut. Out: a [`Tree`] of values that borrow from them. Nothing is ever imported, called or
//! built: a call is a node that names its function and holds its arguments. Deliberately absent: protocols 0 and 1,
//! whose texts need unescaping and which no server speaks.

mod cut;
mod machine;
mod object;
mod opcode;
mod tree;
mod value;

#[cfg(test)]
mod tests;

use std::fmt;

pub use value::Value;

use tree::{Id, Node, Segment};

/// Nodes of one tree. A message of 64 KiB has at most as many as it has bytes.
const MAX_NODES: usize = 1 << 17;
/// Entries of the memo. The largest message that is copied has fewer; an index beyond it is a trap.
const MAX_MEMO: usize = 1 << 17;
/// Containers that are open at once. Python's own pickler gives up at about a thousand.
const MAX_MARKS: usize = 4096;

/// How the reading of a pickle ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At its STOP.
    Whole,
    /// The bytes ended before it did: what came is there, and unfinished containers have what they had.
    Cut,
    /// It is no pickle, or not one of these protocols; what came before is there.
    Malformed(&'static str),
    /// It is larger than a limit.
    TooMuch(&'static str),
}

/// A pickle as a tree. Values that stand in it several times, or in themselves, are one node: it is a graph.
pub struct Tree<'a> {
    nodes: Vec<Node<'a>>,
    links: Vec<Id>,
    segments: Vec<Segment>,
    root: Option<Id>,
    end: End,
}

impl<'a> Tree<'a> {
    /// Reads as much as there is.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Self {
        machine::Machine::new(bytes).run()
    }

    /// How it ended.
    #[must_use]
    pub fn end(&self) -> End {
        self.end
    }

    /// The value that was pickled; of an unfinished one what came, in the shape it would have had, as far as that can
    /// be told.
    #[must_use]
    pub fn root(&self) -> Option<Value<'_, 'a>> {
        self.root.map(|id| Value::new(self, id))
    }

    /// Value of the first dict anywhere in the tree that has this key.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<Value<'_, 'a>> {
        (0..self.nodes.len()).find_map(|at| Value::new(self, Id::at(at)?).get(key))
    }

    /// How many nodes it has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.nodes.len()
    }
}

impl fmt::Debug for Tree<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What was pickled may be a user's text.
        f.debug_struct("Tree")
            .field("nodes", &self.nodes.len())
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// Whether bytes begin as a pickle of one of these protocols.
#[must_use]
pub fn looks_like(bytes: &[u8]) -> bool {
    matches!(bytes, [opcode::PROTO, 2..=5, ..])
}
