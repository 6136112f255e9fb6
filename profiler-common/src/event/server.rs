//! What a model server's own functions are called with: messages, batches, lists.

use super::Head;

/// `head.detail` of [`Message`]: how the bytes came to be seen.
pub mod way {
    /// The process received them.
    pub const RECEIVED: u16 = 0;
    /// The process sent them.
    pub const SENT: u16 = 1;
    /// The process wrote them into a ring in shared memory.
    pub const RING: u16 = 2;
}

/// Capacities of a [`Message`], bytes: the kernel side reserves the smallest class that holds the frame.
pub const MESSAGE_CLASSES: [usize; 5] = [208, 976, 4048, 16336, 65488];

/// A frame of a message queue, or a chunk of a ring; `len` bytes of it follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Kind, probe, [`way`], process, thread, time: of the call that sent, or of the return of the call that received.
    pub head: Head,
    /// The socket's address in the process; of a ring, the slot.
    pub socket: u64,
    /// Bytes of the frame.
    pub size: u64,
    /// Bytes that follow.
    pub len: u32,
    /// 1 when more frames of the same message follow.
    pub more: u32,
}

/// Tokens of a [`Batch`], by class: the kernel side reserves the smallest that holds the batch, and looks at no more.
pub const BATCH_CLASSES: [usize; 3] = [64, 512, 2048];

/// Bits of [`Batch::flags`].
pub mod batch {
    /// It holds embeddings instead of tokens.
    pub const EMBEDDINGS: u32 = 1;
    /// It does not say which tokens want an output: the last one does.
    pub const LAST_ONLY: u32 = 1 << 1;
    /// It does not say at which positions its tokens are.
    pub const NO_POSITIONS: u32 = 1 << 2;
    /// It does not say which sequences its tokens belong to.
    pub const NO_SEQUENCES: u32 = 1 << 3;
}

/// A batch given to llama.cpp. Columns of `capacity` elements follow, of which the first `tokens` are of use:
/// sequences (`i32`, of each token the first), how many each token has (`i32`), positions (`i32`), and whether an output
/// is wanted (`u8`). What could not be read is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Kind, probe, process, thread, time of entry.
    pub head: Head,
    /// `llama_context*`.
    pub context: u64,
    /// Tokens in the batch.
    pub tokens: u32,
    /// Elements of each column.
    pub capacity: u32,
    /// Bits of [`batch`].
    pub flags: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Where an opaque batch keeps what is wanted of it: offsets in bytes, of the batch, and of an element of its vector.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchLayout {
    /// The vector's begin and end, in the batch.
    pub begin: u32,
    /// Behind it.
    pub end: u32,
    /// Size of an element, at most [`ELEMENT_WORDS`] words.
    pub element: u32,
    /// In it: `i32`, the token.
    pub token: u32,
    /// In it: one byte, whether an output is wanted.
    pub output: u32,
    /// In it: pointer to the node of its first sequence.
    pub node: u32,
    /// In it: 8 bytes, how many sequences.
    pub sequences: u32,
    /// In it: `i32`, the position.
    pub position: u32,
    /// In a node: `i32`, the sequence.
    pub sequence: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Words of the largest element that a [`BatchLayout`] may describe.
pub const ELEMENT_WORDS: usize = 32;

/// Entries of the table of [`BatchLayout`]s.
pub const LAYOUTS: u32 = 8;

/// Words of a [`List`] record, by class.
pub const LIST_CLASSES: [usize; 2] = [24, 504];

/// A call with an array of words; `len` of them follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Kind, probe, process, thread, time of entry.
    pub head: Head,
    /// The first six arguments.
    pub args: [u64; 6],
    /// Words in the array.
    pub count: u32,
    /// Words that follow.
    pub len: u32,
}

/// A ring in shared memory that a process writes for its workers (vLLM's `ShmRingBuffer`): value of the table of rings.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// Address of the first chunk.
    pub base: u64,
    /// Bytes of a chunk.
    pub chunk_bytes: u64,
    /// Address of the flags: for each chunk one byte "written" and one byte for each reader "read".
    pub flags: u64,
    /// Chunks, at most [`RING_CHUNKS`].
    pub chunks: u32,
    /// Readers, at most 7.
    pub readers: u32,
    /// The chunk that is written next, [`u32::MAX`] while that is not known.
    pub next: u32,
    /// Notifications for which no chunk could be told.
    pub missed: u32,
}

/// Chunks of a [`Ring`] that are followed.
pub const RING_CHUNKS: u32 = 16;
