//! What a thread says that it works for: the span that OpenTelemetry's SDK has active on it (OTEP 4947).
//!
//! A thread-local pointer leads to the thread's record. User space finds out where threads have that pointer
//! ([`Variable`]); the kernel side reads it at the thread's own calls and tells each change.

use super::Head;

/// Bits of [`ThreadContext::flags`] above the byte of W3C flags.
pub mod flag {
    /// The publisher leaves the byte of the flags empty, whatever they are.
    pub const UNSAID: u32 = 1 << 8;
}

/// A thread works for another span than before, or for none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadContext {
    /// Kind, process, thread, time; `detail` is 1 where there is a span and 0 where there is none.
    pub head: Head,
    /// Trace, in the order of W3C; 0 where there is none.
    pub trace_id: [u8; 16],
    /// Span, likewise.
    pub span_id: [u8; 8],
    /// W3C flags, and bits of [`flag`].
    pub flags: u32,
    /// Always 0.
    pub padding: u32,
}

/// Where the threads of a process have the pointer to their record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Variable {
    /// Number of the module whose block has it; 0 for a place that is the same from each thread's pointer.
    pub module: u64,
    /// From the module's block, or from the thread pointer; wraps.
    pub offset: u64,
    /// Where the address of the thread's vector of blocks lies, from the thread pointer; wraps.
    pub vector: u64,
    /// Bytes of an entry of the vector, which begins with the address of the module's block.
    pub entry: u64,
    /// Where the number of the vector's entries lies, from its address; wraps.
    pub length: u64,
    /// [`flag::UNSAID`] if the publisher leaves the flags empty, else 0.
    pub flags: u64,
}

/// What was told of a thread last; all 0 for no span.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Words of the trace, the span, and the flags, as they lie in memory.
    pub words: [u64; 4],
}
