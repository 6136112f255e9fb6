//! x86-64: System V calling convention, `struct pt_regs` of arch/x86/include/asm/ptrace.h.

use core::{ffi::c_void, ptr};

use profiler_common::event::WIDE_ARGS;

use super::{LaunchTail, SavedRegisters};
use crate::memory::{Source, read_user};

/// Byte offsets into `struct pt_regs`.
mod offset {
    pub const R10: usize = 56;
    pub const R9: usize = 64;
    pub const R8: usize = 72;
    pub const RAX: usize = 80;
    pub const RCX: usize = 88;
    pub const RDX: usize = 96;
    pub const RSI: usize = 104;
    pub const RDI: usize = 112;
    pub const ORIG_RAX: usize = 120;
    pub const CS: usize = 136;
    pub const RSP: usize = 152;
}

/// Code segment of a 64-bit task (`__USER_CS`, arch/x86/include/asm/segment.h).
const USER_CS: u16 = 0x33;

/// Numbers of the system calls that are watched (arch/x86/entry/syscalls/syscall_64.tbl).
pub mod nr {
    pub const READ: u32 = 0;
    pub const WRITE: u32 = 1;
    pub const CLOSE: u32 = 3;
    pub const MMAP: u32 = 9;
    pub const READV: u32 = 19;
    pub const WRITEV: u32 = 20;
    pub const DUP: u32 = 32;
    pub const DUP2: u32 = 33;
    pub const SENDFILE: u32 = 40;
    pub const ACCEPT: u32 = 43;
    pub const SENDTO: u32 = 44;
    pub const RECVFROM: u32 = 45;
    pub const SENDMSG: u32 = 46;
    pub const RECVMSG: u32 = 47;
    pub const FCNTL: u32 = 72;
    pub const ACCEPT4: u32 = 288;
    pub const DUP3: u32 = 292;
    pub const SHUTDOWN: u32 = 48;
    pub const LISTEN: u32 = 50;
    pub const SPLICE: u32 = 275;
    pub const RECVMMSG: u32 = 299;
    pub const SENDMMSG: u32 = 307;
    pub const PREADV2: u32 = 327;
    pub const PWRITEV2: u32 = 328;
    pub const IO_URING_SETUP: u32 = 425;
    pub const CLOSE_RANGE: u32 = 436;
}

/// The registers of a function call, at its entry.
pub struct Frame {
    /// rdi, rsi, rdx, rcx, r8, r9.
    pub args: [u64; 6],
    stack: u64,
}

impl Frame {
    /// All registers at once: the verifier refuses loads from a context pointer that the compiler has moved,
    /// which it does when several branches load.
    #[inline(always)]
    pub fn at_entry(ctx: *const c_void) -> Self {
        use offset::*;
        let args = [RDI, RSI, RDX, RCX, R8, R9].map(|offset| load(ctx, offset));
        Self { args, stack: load(ctx, RSP) }
    }

    /// The first six arguments.
    #[inline(always)]
    pub fn six(&self) -> [u64; 6] {
        self.args
    }

    /// Where the return address lies: tells an outer call from an inner one of the same thread.
    #[inline(always)]
    pub fn stack(&self) -> u64 {
        self.stack
    }

    /// Whether a call that was entered with this stack pointer and return address is still under way, as seen from a
    /// later call of the same thread.
    #[inline(always)]
    pub fn is_inside(&self, stack: u64, caller: u64) -> bool {
        stack > self.stack && read_user::<u64>(stack) == Some(caller)
    }

    /// Writes fourteen arguments: six registers, then the words above the return address.
    ///
    /// # Safety
    ///
    /// There must be room for them at `to`.
    #[inline(always)]
    pub unsafe fn wide(&self, to: *mut [u64; WIDE_ARGS]) -> bool {
        // SAFETY: the caller vouches for the room; the six and the eight fill it.
        unsafe {
            to.cast::<[u64; 6]>().write(self.args);
            Source::User(self.stack + 8).copy(to.cast::<u64>().add(6).cast(), 8 * 8)
        }
    }

    /// `cudaMalloc3D(pitched*, cudaExtent)`: a structure of more than 16 bytes lies on the stack.
    #[inline(always)]
    pub fn malloc_3d(&self) -> Option<[u64; 6]> {
        let [pitched, ..] = self.args;
        let [width, height, depth] = read_user(self.stack + 8)?;
        Some([pitched, width, height, depth, 0, 0])
    }

    /// `cudaMemset3D[Async](cudaPitchedPtr, value, cudaExtent[, stream])`: both structures lie on the stack.
    #[inline(always)]
    pub fn memset_3d(&self) -> Option<[u64; 6]> {
        let [_value, stream, ..] = self.args;
        let [pointer, pitch, _, _, width, height, depth] = read_user(self.stack + 8)?;
        Some([pointer, width, height, depth, stream, pitch])
    }

    /// Where the first structure that is passed by value lies: one of more than 16 bytes is copied onto the stack.
    #[inline(always)]
    pub fn by_value(&self) -> u64 {
        self.stack + 8
    }

    /// Return address: no probe stands behind an instruction that moves rsp, so it is always on top.
    #[inline(always)]
    pub fn caller(&self) -> Option<u64> {
        read_user(self.stack)
    }

    /// `cudaLaunchKernel`: shared memory at [rsp+8], stream at [rsp+16].
    #[inline(always)]
    pub fn runtime_launch_tail(&self) -> Option<LaunchTail> {
        let [caller, shared_bytes, stream] = read_user(self.stack)?;
        Some(LaunchTail { block_z: 0, shared_bytes, stream, caller })
    }

    /// `cuLaunchKernel`: block z at [rsp+8], shared memory at [rsp+16], stream at [rsp+24]. The first two are
    /// 32 bits wide; the upper halves of their slots are not defined.
    #[inline(always)]
    pub fn driver_launch_tail(&self) -> Option<LaunchTail> {
        let [caller, block_z, shared, stream] = read_user(self.stack)?;
        Some(LaunchTail { block_z: block_z as u32, shared_bytes: shared & 0xffff_ffff, stream, caller })
    }
}

/// Result register, at the return of a function.
#[inline(always)]
pub fn result(ctx: *const c_void) -> u64 {
    load(ctx, offset::RAX)
}

/// Number of the system call that is returning.
#[inline(always)]
pub fn syscall_number(regs: impl SavedRegisters) -> u32 {
    regs.read::<u64>(offset::ORIG_RAX) as u32
}

/// Arguments of the system call that is returning: the kernel leaves their registers alone.
#[inline(always)]
pub fn syscall_arguments(regs: impl SavedRegisters) -> [u64; 6] {
    use offset::*;
    [RDI, RSI, RDX, R10, R8, R9].map(|offset| regs.read(offset))
}

/// Whether the numbers in [`nr`] and 64-bit pointers apply to the task.
#[inline(always)]
pub fn is_native(regs: impl SavedRegisters) -> bool {
    regs.read::<u16>(offset::CS) == USER_CS
}

#[inline(always)]
fn load(ctx: *const c_void, offset: usize) -> u64 {
    // SAFETY: the context of a uprobe program is a `struct pt_regs`, and the offset lies inside.
    unsafe { ptr::read_volatile(ctx.byte_add(offset).cast()) }
}
