//! Short ways to write what many rows have in common.

use super::copy::{Size, Way};
use super::meaning::{KeyAt, Meaning, Memory, Node, StreamAt};

/// A copy.
pub(super) const fn copy(size: Size, way: Way, stream: StreamAt) -> Meaning {
    Meaning::Copy { size, way, stream }
}

/// A fill.
pub(super) const fn set(size: Size, stream: StreamAt) -> Meaning {
    Meaning::Set { size, stream }
}

/// An allocation whose address comes back through the out argument.
pub(super) const fn allocate(kind: Memory, size: Size) -> Meaning {
    Meaning::Allocate { kind, size, key: KeyAt::Out }
}

/// A node of the graph in the second argument.
pub(super) const fn node(node: Node) -> Meaning {
    Meaning::AddNode { graph: 1, node }
}

/// The size is this argument.
pub(super) const fn bytes(arg: u8) -> Size {
    Size::Arg(arg, 1)
}
