//! Any other GPU call: a copy, a set, an allocation, a graph launch, a synchronisation.

use super::Head;

/// A call reported at entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Kind, API, process, thread, time of entry.
    pub head: Head,
    /// Register arguments; with [`crate::cookie::shape::CALL_WITH_CALLER`] the fifth is the return address.
    pub args: [u64; 5],
}

/// A call reported once, at its return: synchronisations (how long they blocked) and calls that hand back an
/// address. `head.time_ns` is the time of return.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallDone {
    /// Kind, API, process, thread, time of return.
    pub head: Head,
    /// Time of entry, `CLOCK_MONOTONIC` nanoseconds.
    pub entered_ns: u64,
    /// Register arguments at entry, as in [`Call`].
    pub args: [u64; 5],
    /// The low 32 bits of the result register, sign-extended: a `cudaError_t` or `CUresult`.
    pub result: i64,
    /// The 8 bytes that the cookie's `out` argument pointed to at return; 0 when there is none.
    pub out: u64,
}
