//! Socket system calls of the targets, at their exit.
//!
//! One hook sees them all: result and number are tested first, so that a call that is none of ours costs next to
//! nothing, then the caller. At exit the arguments are still in the saved registers, the buffers hold what was
//! transferred, and the result says how much. An io_uring moves bytes without system calls: that one was made is said,
//! what goes through it is not seen. 32-bit tasks are not watched.

pub mod connection;
mod file;
pub mod inherit;
mod transfer;

use core::ptr;

use aya_ebpf::{
    helpers::generated::bpf_probe_read_kernel,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use profiler_common::counter::family;

use self::transfer::Transfer;
use super::process;
use crate::{
    arch::{self, SavedRegisters, nr},
    emit::{Tally, Task},
    map,
};

/// Exit of a system call, on kernels with BTF: registers are read directly.
#[btf_tracepoint(function = "sys_exit")]
pub fn socket_exit(ctx: BtfTracePointContext) -> i32 {
    leave(Direct(ctx.arg(0)), ctx.arg(1));
    0
}

/// Exit of a system call, on kernels without BTF: registers are read through a helper.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn socket_exit_raw(ctx: RawTracePointContext) -> i32 {
    leave(Copied(ctx.arg(0)), ctx.arg(1));
    0
}

/// Registers that the verifier lets a program read.
#[derive(Clone, Copy)]
struct Direct(*const u8);

impl SavedRegisters for Direct {
    #[inline(always)]
    fn read<T: Copy + Default>(self, offset: usize) -> T {
        // SAFETY: the tracepoint passes a `struct pt_regs`, the offset lies inside, and the verifier checks both.
        unsafe { ptr::read_volatile(self.0.add(offset).cast()) }
    }
}

/// Registers that must be copied to be read.
#[derive(Clone, Copy)]
struct Copied(*const u8);

impl SavedRegisters for Copied {
    #[inline(always)]
    fn read<T: Copy + Default>(self, offset: usize) -> T {
        let mut value = T::default();
        // SAFETY: the helper reads only memory that is there, and writes zeros when it is not; each look at whether it
        // was would double what the verifier has to follow.
        unsafe {
            bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, self.0.add(offset).cast());
        }
        value
    }
}

/// A system call of a target that has just returned.
pub struct Exit {
    task: Task,
    tally: Tally,
    number: u32,
    args: [u64; 6],
    result: i64,
}

#[inline(always)]
fn leave(regs: impl SavedRegisters, result: i64) {
    if result < 0 && !is_final(result) {
        return;
    }
    let number = arch::syscall_number(regs);
    if !is_watched(number) {
        return;
    }
    let task = Task::current();
    if !map::is_target(task.tgid) || !arch::is_native(regs) {
        return;
    }
    if let Some(tally) = Tally::of(family::SOCKET) {
        dispatch(&Exit { task, tally, number, args: arch::syscall_arguments(regs), result });
    }
}

/// Errors after which a connection carries nothing more (include/uapi/asm-generic/errno.h): `EPIPE`, `ENETDOWN`,
/// `ENETUNREACH`, `ENETRESET`, `ECONNABORTED`, `ECONNRESET`, `ENOTCONN`, `ETIMEDOUT`, `EHOSTUNREACH`.
#[inline(always)]
fn is_final(result: i64) -> bool {
    matches!(result, -32 | -100 | -101 | -102 | -103 | -104 | -107 | -110 | -113)
}

#[inline(always)]
fn is_watched(number: u32) -> bool {
    use nr::*;
    matches!(
        number,
        READ | WRITE
            | CLOSE
            | MMAP
            | READV
            | WRITEV
            | DUP
            | DUP2
            | SENDFILE
            | ACCEPT
            | SENDTO
            | RECVFROM
            | SENDMSG
            | RECVMSG
            | FCNTL
            | ACCEPT4
            | DUP3
            | SHUTDOWN
            | LISTEN
            | SPLICE
            | RECVMMSG
            | SENDMMSG
            | PREADV2
            | PWRITEV2
            | IO_URING_SETUP
            | CLOSE_RANGE
    )
}

/// Commands of `fcntl` that duplicate a descriptor: `F_DUPFD`, `F_DUPFD_CLOEXEC` (include/uapi/linux/fcntl.h).
const DUPLICATING: [u64; 2] = [0, 1030];

/// `close_range` sets a flag on the descriptors instead of closing them (include/uapi/linux/close_range.h).
const CLOSE_RANGE_CLOEXEC: u64 = 4;

/// `SOCK_CLOEXEC` of `accept4` (include/linux/net.h).
const CLOSE_ON_EXEC: u64 = 0o2000000;

/// `PROT_EXEC` and `MAP_ANONYMOUS` (include/uapi/asm-generic/mman-common.h).
const PROT_EXEC: u64 = 4;
const MAP_ANONYMOUS: u64 = 0x20;

#[inline(always)]
fn dispatch(exit: &Exit) {
    if let Some(transfer) = Transfer::of(exit) {
        return transfer.carry(exit);
    }
    if exit.result < 0 {
        return;
    }
    let [first, second, third, fourth, ..] = exit.args;
    match exit.number {
        nr::ACCEPT | nr::ACCEPT4 => {
            if connection::opened(exit, first as u32) {
                let flags = if exit.number == nr::ACCEPT4 { fourth } else { 0 };
                inherit::remember(exit.task.tgid, exit.result as u32, flags & CLOSE_ON_EXEC != 0);
            }
        }
        nr::CLOSE => connection::closed(exit, first as u32),
        nr::CLOSE_RANGE if third & CLOSE_RANGE_CLOEXEC == 0 => {
            connection::closed_range(exit, first as u32, second as u32);
        }
        nr::SHUTDOWN => connection::shut_down(exit, first as u32, second),
        nr::LISTEN => process::listens(exit.task, exit.number, first as u32),
        nr::IO_URING_SETUP => process::made_io_uring(exit.task, exit.number),
        nr::DUP | nr::DUP2 | nr::DUP3 => connection::duplicated(exit, first as u32),
        nr::FCNTL if DUPLICATING.contains(&second) => connection::duplicated(exit, first as u32),
        nr::MMAP if third & PROT_EXEC != 0 && fourth & MAP_ANONYMOUS == 0 => {
            process::mapped(exit.task, exit.number);
        }
        _ => {}
    }
}
