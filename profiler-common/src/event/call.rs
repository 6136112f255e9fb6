//! Any other GPU call: a copy, a set, an allocation, a graph launch, a synchronisation.

use super::Head;

/// A call reported at entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Kind, API, process, thread, time of entry.
    pub head: Head,
    /// Return address, 0 where the shape does not ask for it.
    pub caller: u64,
    /// The first six arguments.
    pub args: [u64; 6],
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
    /// Return address, as in [`Call`].
    pub caller: u64,
    /// Arguments at entry, as in [`Call`].
    pub args: [u64; 6],
    /// The low 32 bits of the result register, sign-extended: a `cudaError_t` or `CUresult`.
    pub result: i64,
    /// The words that the cookie's `out` and `second` stood for at return; 0 where there is none.
    pub out: [u64; 2],
}

/// Arguments of a [`WideCall`].
pub const WIDE_ARGS: usize = 14;
/// Words of the structure in a [`WideCall`]: of `CUgraphNodeParams` (cuda.h) a copy ends 232 bytes in.
pub const WIDE_WORDS: usize = 30;

/// A call whose meaning lies in many arguments or in a structure; reported at entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WideCall {
    /// Kind, API, process, thread, time of entry.
    pub head: Head,
    /// Return address.
    pub caller: u64,
    /// Arguments in order, in registers or on the stack.
    pub args: [u64; WIDE_ARGS],
    /// The structure that one of them points to, as far as the cookie says it goes. For arrays that are summed:
    /// the sum, the elements that went into it, and the elements there are.
    pub pointee: [u64; WIDE_WORDS],
}

/// A call that was reported at entry has failed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallFailed {
    /// Kind, API, process, thread, time of return.
    pub head: Head,
    /// As in [`CallDone`]; never 0.
    pub result: i64,
}

/// Bytes of a name that a [`Named`] record carries: the kernel side reserves the smallest class that holds it.
/// Of 6,936 mangled kernel names of real libraries the mean was 238 bytes and the longest 9,899.
pub const NAME_CLASSES: [usize; 3] = [208, 976, 4048];

/// A driver handle got a name (`cuModuleGetFunction`, `cuLibraryGetKernel`); the name's bytes follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Kind, API, process, thread, time of return.
    pub head: Head,
    /// The handle.
    pub handle: u64,
    /// Bytes of the name that follow.
    pub len: u32,
    /// 1 when the name goes on behind them.
    pub cut: u32,
}

/// Frames of a [`Stack`].
pub const STACK_FRAMES: usize = 64;

/// The user stack of a launch, innermost first.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Kind, API, process, thread, time; `detail` is the number of frames.
    pub head: Head,
    /// Which kernel, as in [`super::Launch`].
    pub function: u64,
    /// Return address of the launch, which the kernel's own walk leaves out at most first instructions.
    pub caller: u64,
    /// Return addresses; the first is the probed function.
    pub frames: [u64; STACK_FRAMES],
}
