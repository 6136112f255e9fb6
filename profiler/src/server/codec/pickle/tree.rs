//! The nodes of a tree, as the machine makes them: plain data in three vectors, whatever the depth.

/// Index of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(u32);

impl Id {
    pub(super) fn at(index: usize) -> Option<Self> {
        u32::try_from(index).ok().map(Self)
    }

    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Text or bytes where they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Text<'a> {
    /// As many as were copied.
    pub(super) bytes: &'a [u8],
    /// As many as there are.
    pub(super) length: u64,
}

/// Items of a container: a chain of segments, each a run of links. Most containers are filled at once and have one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Items {
    /// Place of the first segment, plus one; 0 for none.
    pub(super) first: u32,
    pub(super) last: u32,
}

/// A run of links.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) start: u32,
    pub(super) length: u32,
    /// Place of the next, plus one; 0 for none.
    pub(super) next: u32,
}

/// What a call was made of. It was never made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// The function or class.
    pub(super) callee: Id,
    /// The tuple of arguments.
    pub(super) arguments: Id,
    /// The dict of arguments by name.
    pub(super) named: Option<Id>,
    /// What BUILD would set.
    pub(super) state: Option<Id>,
    /// What it would be filled with: list items, or keys and values in turn.
    pub(super) items: Items,
    /// They are keys and values.
    pub(super) pairs: bool,
    /// By NEWOBJ: a state follows, as a rule.
    pub(super) is_new: bool,
}

/// A value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Node<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits: two's complement, little-endian.
    Long(Text<'a>),
    Float(f64),
    Str(Text<'a>),
    Bytes(Text<'a>),
    Tuple(Items),
    List(Items),
    /// Keys and values in turn.
    Dict(Items),
    Set(Items),
    /// A module and a name in it.
    Global(Id, Id),
    Object(Call),
    /// A persistent id, a registered extension, a buffer that travels apart: something that is not in the pickle.
    Opaque,
}
