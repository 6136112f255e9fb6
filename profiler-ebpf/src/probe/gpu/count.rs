//! Counting instead of sending: launches and plain copies by kernel and by thread.
//!
//! A call becomes two sums that only rise: one in a per-CPU table by kernel, one in its thread's entry, which is sent
//! when the thread waits. While a process captures a stream its calls are sent as ever, since what is recorded into a
//! graph is not run. Whatever finds no room in a table is sent too, so nothing is lost to counting.

use profiler_common::{
    cookie::{Cookie, NONE, class},
    counter::family,
    event::{Burst, Count, CountKey, Thread, counted, kind},
};

use super::{argument, launch};
use crate::{
    arch::Frame,
    atomic::Word,
    emit::{Tally, Task, now},
    map::{CAPTURING, COUNTS, THREADS},
};

/// Only new entries (`BPF_NOEXIST`, include/uapi/linux/bpf.h).
const ONLY_NEW: u64 = 1;

/// The last `cudaMemcpyKind` that says which way a copy goes; `cudaMemcpyDefault` leaves it to the addresses.
const LAST_KIND: u64 = 3;

/// Counts a call; false when it is to be sent instead.
#[inline(always)]
pub fn call(task: Task, cookie: Cookie, frame: &Frame, generation: u32) -> bool {
    if cookie.class == class::OTHER {
        return false;
    }
    let Some(thread) = thread(task) else { return false };
    // SAFETY: the entry is this thread's own, and only its thread changes it.
    let thread = unsafe { &mut *thread };
    let nested = cookie.driver && leaves_outer(thread, cookie, frame);
    if !cookie.driver {
        enters_outer(thread, cookie, frame);
    }
    // The first call since the level changed may be the inner half of one that was sent: the reader knows.
    let fresh = thread.generation != u64::from(generation);
    thread.generation = u64::from(generation);
    if fresh && cookie.driver || is_capturing(task.tgid) {
        return false;
    }
    let Some(work) = Work::of(cookie, frame) else { return false };
    let detail = if nested { counted::NESTED } else { counted::OWN };
    let function = if nested { 0 } else { work.function };
    if !add(CountKey { function, tgid: task.tgid, api: cookie.api, detail }, work.bytes) {
        return false;
    }
    if !nested {
        remember(thread, &work);
    }
    true
}

/// What is counted of a call.
struct Work {
    /// Which kernel, or which way.
    function: u64,
    bytes: u64,
    is_launch: bool,
}

impl Work {
    /// `None` for calls that only records can tell: graphs, copies of more than one dimension or of unknown direction, and
    /// copies of nothing, which are none.
    #[inline(always)]
    fn of(cookie: Cookie, frame: &Frame) -> Option<Self> {
        if launch::is(cookie.shape) {
            return Some(Self { function: launch::function(cookie.shape, frame), bytes: 0, is_launch: true });
        }
        if cookie.bytes == NONE {
            return None;
        }
        let args = frame.six();
        let way = if cookie.kind == NONE { 0 } else { argument(&args, cookie.kind) & 0xffff_ffff };
        let bytes = argument(&args, cookie.bytes);
        (way <= LAST_KIND && bytes != 0).then_some(Self { function: way, bytes, is_launch: false })
    }
}

/// Counts a query that was answered "not ready"; false when there is no room.
#[inline(always)]
pub fn not_ready(task: Task, cookie: Cookie) -> bool {
    add(CountKey { function: 0, tgid: task.tgid, api: cookie.api, detail: counted::NOT_READY }, 0)
}

/// Sends what has been counted for the thread, which waits now.
#[inline(always)]
pub fn told(tally: Tally, task: Task) {
    let Some(thread) = THREADS.get_ptr_mut(task.both()) else { return };
    // SAFETY: the entry is this thread's own.
    let thread = unsafe { &mut *thread };
    if thread.first_ns != 0 {
        tally.send(burst(task, thread));
        thread.first_ns = 0;
    }
}

/// Sends what has been counted for a thread that ends, and forgets it.
#[inline(always)]
pub fn thread_gone(task: Task) {
    if let Some(tally) = Tally::of(family::GPU) {
        told(tally, task);
        // Most threads never had an entry.
        let _ = THREADS.remove(task.both());
    }
}

/// A stream of the process may be recording from here on.
#[inline(always)]
pub fn capture_begins(tgid: u32) {
    // Two threads may begin at once: only one makes the entry, both count. Without room the calls of the capture are
    // counted as run, and the reader sees a capture without nodes.
    if CAPTURING.get_ptr_mut(tgid).is_none() {
        let _ = CAPTURING.insert(tgid, 0, ONLY_NEW);
    }
    if let Some(count) = CAPTURING.get_ptr_mut(tgid) {
        // SAFETY: a live value of the map, which everybody changes by atomics.
        unsafe { Word::new(count) }.add(1);
    }
}

/// One capture of the process is over, or never began.
#[inline(always)]
pub fn capture_ended(tgid: u32) {
    if let Some(count) = CAPTURING.get_ptr_mut(tgid) {
        // SAFETY: as in `capture_begins`.
        let word = unsafe { Word::new(count) };
        // A capture that began before the probes were there ends without having been counted.
        if word.get() > 0 {
            word.add(u64::MAX);
        }
    }
}

#[inline(always)]
fn is_capturing(tgid: u32) -> bool {
    // SAFETY: as in `capture_begins`.
    CAPTURING.get_ptr_mut(tgid).is_some_and(|count| unsafe { Word::new(count) }.get() > 0)
}

#[inline(always)]
fn thread(task: Task) -> Option<*mut Thread> {
    let key = task.both();
    if let Some(thread) = THREADS.get_ptr_mut(key) {
        return Some(thread);
    }
    let new = Thread { generation: u64::MAX, ..EMPTY };
    THREADS.insert(key, new, ONLY_NEW).ok()?;
    THREADS.get_ptr_mut(key)
}

const EMPTY: Thread = Thread {
    first_ns: 0,
    last_ns: 0,
    launches: 0,
    copies: 0,
    copy_bytes: 0,
    entered_stack: 0,
    entered_caller: 0,
    entered_class: 0,
    generation: 0,
};

/// The thread enters a call of the runtime that will go on in the driver.
#[inline(always)]
fn enters_outer(thread: &mut Thread, cookie: Cookie, frame: &Frame) {
    thread.entered_stack = frame.stack();
    thread.entered_caller = frame.caller().unwrap_or(0);
    thread.entered_class = u64::from(cookie.class);
}

/// Whether this call of the driver is the inner half of the runtime call that the thread is in. Each has only one.
#[inline(always)]
fn leaves_outer(thread: &mut Thread, cookie: Cookie, frame: &Frame) -> bool {
    let nested = thread.entered_stack != 0
        && thread.entered_class == u64::from(cookie.class)
        && frame.is_inside(thread.entered_stack, thread.entered_caller);
    if nested {
        thread.entered_stack = 0;
    }
    nested
}

#[inline(always)]
fn remember(thread: &mut Thread, work: &Work) {
    let now = now();
    if thread.first_ns == 0 {
        thread.first_ns = now;
    }
    thread.last_ns = now;
    if work.is_launch {
        thread.launches += 1;
    } else {
        thread.copies += 1;
        thread.copy_bytes += work.bytes;
    }
}

#[inline(always)]
fn burst(task: Task, thread: &Thread) -> Burst {
    Burst {
        head: task.head(kind::BURST, 0, 0),
        first_ns: thread.first_ns,
        last_ns: thread.last_ns,
        launches: thread.launches,
        copies: thread.copies,
        copy_bytes: thread.copy_bytes,
    }
}

/// Adds to the table; false when it has no room.
#[inline(always)]
fn add(key: CountKey, bytes: u64) -> bool {
    let entry = COUNTS.get_ptr_mut(key).or_else(|| {
        // Another task on this CPU may have made it in between, which is as good.
        let _ = COUNTS.insert(key, Count { count: 0, bytes: 0 }, ONLY_NEW);
        COUNTS.get_ptr_mut(key)
    });
    let Some(entry) = entry else { return false };
    // SAFETY: a live value of the map. It is this CPU's, but a program can be preempted by another on the same CPU.
    unsafe {
        Word::new(&raw mut (*entry).count).add(1);
        Word::new(&raw mut (*entry).bytes).add(bytes);
    }
    true
}
