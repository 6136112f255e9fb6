//! The span that a thread of a target has active, by the pointer that its SDK keeps in thread-local storage (OTEP 4947).
//!
//! The thread is at a call of its own, so its record is whole. A record goes out only when the span is another than the
//! one that was told last, before the record of the call; without room for it, the next call tries again. Which
//! processes publish, and where, is found by user space.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_task,
    generated::{bpf_probe_read_kernel, bpf_probe_read_user},
};
use profiler_common::{
    counter::family,
    event::{ThreadContext, Told, Variable, kind},
};

use super::count;
use crate::{
    emit::{Tally, Task},
    map::{PUBLISHERS, TOLD, VARIABLES},
    memory::read_user,
};

/// Offset of the user's thread pointer in `task_struct`, bytes; 0 where the kernel does not tell its types.
#[unsafe(no_mangle)]
static THREAD_POINTER: u64 = 0;

/// What a vector of blocks has in place of one that the thread has not used yet (`TLS_DTV_UNALLOCATED`, glibc,
/// sysdeps/generic/dl-dtv.h).
const UNUSED: u64 = u64::MAX;

/// Tells the span of the thread at a socket, if it is another than before.
#[inline(always)]
pub fn tell_of_socket(task: Task) {
    if PUBLISHERS.get(0).is_some_and(|publishers| *publishers != 0) {
        tell(task);
    }
}

/// Tells the span of the thread, if it is another than before.
#[inline(always)]
pub fn tell(task: Task) {
    tell_context(task.both());
}

/// The process runs another program, whose variables lie elsewhere.
#[inline(always)]
pub fn executed(task: Task) {
    let _ = VARIABLES.remove(task.tgid);
    thread_gone(task);
}

/// A thread ended.
#[inline(always)]
pub fn thread_gone(task: Task) {
    // Most threads never had an entry.
    let _ = TOLD.remove(task.both());
}

/// A function of its own, so that the verifier follows it once a program. For its name see `connection::forget`.
#[cfg_attr(not(feature = "log"), unsafe(no_mangle))]
#[inline(never)]
fn tell_context(both: u64) -> u32 {
    let task = Task { tgid: (both >> 32) as u32, tid: both as u32 };
    let Some(variable) = VARIABLES.get_ptr(task.tgid) else { return 0 };
    let Some(tally) = Tally::of(family::CONTEXT) else { return 0 };
    // SAFETY: a live value of the map, which user space replaces whole.
    let variable = unsafe { *variable };
    let now = match record(&variable) {
        Some(words) => active(words, variable.flags),
        None => {
            // What was told last may be over: without a span it is at least not wrong.
            tally.unreadable();
            NONE
        }
    };
    // SAFETY: the entry is this thread's own.
    let last = TOLD.get_ptr(both).map_or(NONE, |told| unsafe { (*told).words });
    if now == last {
        return 0;
    }
    // What was counted so far was sent for the last one.
    if let Some(tally) = Tally::of(family::GPU) {
        count::told(tally, task);
    }
    let is_one = now != NONE;
    let [high, low, span, flags] = now;
    let told = ThreadContext {
        head: task.head(kind::THREAD_CONTEXT, 0, u16::from(is_one)),
        trace_id: both_words(high, low),
        span_id: span.to_ne_bytes(),
        flags: flags as u32,
        padding: 0,
    };
    if tally.sends(told) {
        // Without room it is told again.
        let _ = TOLD.insert(both, Told { words: now }, 0);
    }
    0
}

const NONE: [u64; 4] = [0; 4];

/// Both halves of a trace id, as they lay in memory.
#[inline(always)]
fn both_words(high: u64, low: u64) -> [u8; 16] {
    // SAFETY: both are sixteen bytes.
    unsafe { core::mem::transmute([high, low]) }
}

/// The record's bytes up to the size of its attributes, as the words of the layout: trace-id, span-id, then `valid`,
/// flags and that size in four bytes. All 0 when the thread has none, `None` when it cannot be read.
#[inline(always)]
fn record(variable: &Variable) -> Option<[u64; 4]> {
    let Some(place) = place(variable)? else { return Some(NONE) };
    let pointer = read_user::<u64>(place)?;
    if pointer == 0 {
        return Some(NONE);
    }
    let mut words = NONE;
    // SAFETY: 28 of the 32 bytes at `words`; the helper checks the other address.
    let status =
        unsafe { bpf_probe_read_user((&raw mut words).cast::<c_void>(), 28, pointer as *const c_void) };
    (status == 0).then_some(words)
}

/// Where this thread has the variable; nowhere if its block is not there yet.
#[inline(always)]
fn place(variable: &Variable) -> Option<Option<u64>> {
    let thread = thread_pointer()?;
    if variable.module == 0 {
        return Some(Some(thread.wrapping_add(variable.offset)));
    }
    let vector = read_user::<u64>(thread.wrapping_add(variable.vector))?;
    let length = read_user::<u64>(vector.wrapping_add(variable.length))?;
    if variable.module > length {
        return Some(None);
    }
    let entry = vector.wrapping_add(variable.module.wrapping_mul(variable.entry));
    let block = read_user::<u64>(entry)?;
    let is_there = block != 0 && block != UNUSED;
    Some(is_there.then(|| block.wrapping_add(variable.offset)))
}

/// The span of a record that is whole.
#[inline(always)]
fn active([high, low, span, rest]: [u64; 4], unsaid: u64) -> [u64; 4] {
    let is_valid = rest & 0xff == 1 && (high | low) != 0 && span != 0;
    if is_valid { [high, low, span, rest >> 8 & 0xff | unsaid] } else { NONE }
}

/// What the running thread finds its variables by.
#[inline(always)]
fn thread_pointer() -> Option<u64> {
    // SAFETY: a static that user space sets before loading.
    let offset = unsafe { (&raw const THREAD_POINTER).read_volatile() };
    let mut pointer = 0u64;
    // SAFETY: the helper reads only memory that is there, and the first has no preconditions.
    let status = unsafe {
        let task = bpf_get_current_task();
        bpf_probe_read_kernel((&raw mut pointer).cast::<c_void>(), 8, (task + offset) as *const c_void)
    };
    (status == 0 && offset != 0).then_some(pointer)
}
