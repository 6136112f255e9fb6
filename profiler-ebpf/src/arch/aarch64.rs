//! aarch64: AAPCS64 calling convention, `struct pt_regs` of arch/arm64/include/asm/ptrace.h.

use core::{ffi::c_void, ptr};

use profiler_common::event::WIDE_ARGS;

use super::{LaunchTail, SavedRegisters};
use crate::memory::{Source, read_user};

/// Byte offsets into `struct pt_regs`.
mod offset {
    pub const X0: usize = 0;
    pub const X30: usize = 240;
    pub const SP: usize = 248;
    pub const PSTATE: usize = 264;
    /// x0 holds the result once a system call returns; its argument is kept here.
    pub const ORIG_X0: usize = 272;
    pub const SYSCALLNO: usize = 280;
}

/// Set in `pstate` of a 32-bit task (`PSR_MODE32_BIT`, arch/arm64/include/uapi/asm/ptrace.h).
const MODE32: u64 = 0x10;

/// Numbers of the system calls that are watched (include/uapi/asm-generic/unistd.h).
pub mod nr {
    /// aarch64 has no `dup2`; no call has this number.
    pub const DUP2: u32 = u32::MAX;
    pub const DUP: u32 = 23;
    pub const DUP3: u32 = 24;
    pub const FCNTL: u32 = 25;
    pub const CLOSE: u32 = 57;
    pub const READ: u32 = 63;
    pub const WRITE: u32 = 64;
    pub const READV: u32 = 65;
    pub const WRITEV: u32 = 66;
    pub const SENDFILE: u32 = 71;
    pub const ACCEPT: u32 = 202;
    pub const SENDTO: u32 = 206;
    pub const RECVFROM: u32 = 207;
    pub const SENDMSG: u32 = 211;
    pub const RECVMSG: u32 = 212;
    pub const MMAP: u32 = 222;
    pub const ACCEPT4: u32 = 242;
    pub const SPLICE: u32 = 76;
    pub const LISTEN: u32 = 201;
    pub const SHUTDOWN: u32 = 210;
    pub const RECVMMSG: u32 = 243;
    pub const SENDMMSG: u32 = 269;
    pub const PREADV2: u32 = 286;
    pub const PWRITEV2: u32 = 287;
    pub const IO_URING_SETUP: u32 = 425;
    pub const CLOSE_RANGE: u32 = 436;
}

/// The registers of a function call, at its entry.
pub struct Frame {
    /// x0 to x7.
    pub args: [u64; 8],
    stack: u64,
    link: u64,
}

impl Frame {
    /// All registers at once: the verifier refuses loads from a context pointer that the compiler has moved,
    /// which it does when several branches load.
    #[inline(always)]
    pub fn at_entry(ctx: *const c_void) -> Self {
        let args = [0, 1, 2, 3, 4, 5, 6, 7].map(|n| load(ctx, offset::X0 + 8 * n));
        Self { args, stack: load(ctx, offset::SP), link: load(ctx, offset::X30) }
    }

    /// The first six arguments.
    #[inline(always)]
    pub fn six(&self) -> [u64; 6] {
        let [a, b, c, d, e, f, ..] = self.args;
        [a, b, c, d, e, f]
    }

    /// The stack pointer: tells an outer call from an inner one of the same thread.
    #[inline(always)]
    pub fn stack(&self) -> u64 {
        self.stack
    }

    /// Whether a call that was entered with this stack pointer is still under way, as seen from a later call of the
    /// same thread. Its return address lies in a register that may have been saved anywhere, so it tells nothing.
    #[inline(always)]
    pub fn is_inside(&self, stack: u64, _caller: u64) -> bool {
        stack > self.stack
    }

    /// Writes fourteen arguments: eight registers, then the words at the stack pointer.
    ///
    /// # Safety
    ///
    /// There must be room for them at `to`.
    #[inline(always)]
    pub unsafe fn wide(&self, to: *mut [u64; WIDE_ARGS]) -> bool {
        // SAFETY: the caller vouches for the room; the eight and the six fill it.
        unsafe {
            to.cast::<[u64; 8]>().write(self.args);
            Source::User(self.stack).copy(to.cast::<u64>().add(8).cast(), 6 * 8)
        }
    }

    /// Where the structure lies that is passed by value as the second argument: of one of more than 16 bytes the caller
    /// makes a copy and passes its address (AAPCS64, section 6.8.2).
    #[inline(always)]
    pub fn by_value(&self) -> u64 {
        self.args[1]
    }

    /// `cudaMalloc3D(pitched*, cudaExtent)`: a structure of more than 16 bytes comes as the address of a copy.
    #[inline(always)]
    pub fn malloc_3d(&self) -> Option<[u64; 6]> {
        let [pitched, extent, ..] = self.args;
        let [width, height, depth] = read_user(extent)?;
        Some([pitched, width, height, depth, 0, 0])
    }

    /// `cudaMemset3D[Async](cudaPitchedPtr, value, cudaExtent[, stream])`: both structures come by address.
    #[inline(always)]
    pub fn memset_3d(&self) -> Option<[u64; 6]> {
        let [pitched, _value, extent, stream, ..] = self.args;
        let [pointer, pitch] = read_user(pitched)?;
        let [width, height, depth] = read_user(extent)?;
        Some([pointer, width, height, depth, stream, pitch])
    }

    /// Return address, in the link register.
    #[inline(always)]
    pub fn caller(&self) -> Option<u64> {
        Some(self.link)
    }

    /// `cudaLaunchKernel`: shared memory in x6, stream in x7.
    #[inline(always)]
    pub fn runtime_launch_tail(&self) -> Option<LaunchTail> {
        let [.., shared_bytes, stream] = self.args;
        Some(LaunchTail { block_z: 0, shared_bytes, stream, caller: self.link })
    }

    /// `cuLaunchKernel`: block z in w6, shared memory in w7, stream at [sp].
    #[inline(always)]
    pub fn driver_launch_tail(&self) -> Option<LaunchTail> {
        let [.., block_z, shared] = self.args;
        let stream = read_user(self.stack)?;
        let shared_bytes = shared & 0xffff_ffff;
        Some(LaunchTail { block_z: block_z as u32, shared_bytes, stream, caller: self.link })
    }
}

/// Result register, at the return of a function.
#[inline(always)]
pub fn result(ctx: *const c_void) -> u64 {
    load(ctx, offset::X0)
}

/// Number of the system call that is returning.
#[inline(always)]
pub fn syscall_number(regs: impl SavedRegisters) -> u32 {
    regs.read(offset::SYSCALLNO)
}

/// Arguments of the system call that is returning: the kernel leaves their registers alone, but for x0.
#[inline(always)]
pub fn syscall_arguments(regs: impl SavedRegisters) -> [u64; 6] {
    [offset::ORIG_X0, 8, 16, 24, 32, 40].map(|offset| regs.read(offset))
}

/// Whether the numbers in [`nr`] and 64-bit pointers apply to the task.
#[inline(always)]
pub fn is_native(regs: impl SavedRegisters) -> bool {
    regs.read::<u64>(offset::PSTATE) & MODE32 == 0
}

#[inline(always)]
fn load(ctx: *const c_void, offset: usize) -> u64 {
    // SAFETY: the context of a uprobe program is a `struct user_pt_regs`, and the offset lies inside.
    unsafe { ptr::read_volatile(ctx.byte_add(offset).cast()) }
}
