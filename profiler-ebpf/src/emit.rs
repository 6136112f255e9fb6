//! The only way into the ring: reserve, count, submit.
//!
//! A record comes in and goes out to user space, or is counted under the reason why not. Nobody is woken for a
//! record, since a wake costs more than everything else together: the reader comes by timer. It is woken only
//! when what waits passes [`WAKE_THRESHOLD`], which saves a reader whose timer is late.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_ktime_get_ns, bpf_probe_read_user_str},
    },
    maps::ring_buf::RingBufEntry,
};
use profiler_common::{counter::Counters, event::Head};

use crate::{
    atomic::Word,
    map::{COUNTERS, EVENTS},
};

/// Bytes waiting in the ring at which the reader is woken: a quarter of the default ring. User space overrides it
/// together with the size of the ring.
#[unsafe(no_mangle)]
static WAKE_THRESHOLD: u64 = 2 << 20;

/// What the kernel puts before each record of a ring (`BPF_RINGBUF_HDR_SZ`).
const RING_HEADER: u64 = 8;

/// The running task, as records name it.
#[derive(Clone, Copy)]
pub struct Task {
    pub tgid: u32,
    pub tid: u32,
}

impl Task {
    #[inline(always)]
    pub fn current() -> Self {
        let both = bpf_get_current_pid_tgid();
        Self { tgid: (both >> 32) as u32, tid: both as u32 }
    }

    /// Process and thread in one word.
    #[inline(always)]
    pub fn both(self) -> u64 {
        u64::from(self.tgid) << 32 | u64::from(self.tid)
    }

    /// The head of a record of this task, now.
    #[inline(always)]
    pub fn head(self, kind: u32, api: u16, detail: u16) -> Head {
        Head { kind, api, detail, tgid: self.tgid, tid: self.tid, time_ns: now() }
    }
}

/// `CLOCK_MONOTONIC`, nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_ktime_get_ns() }
}

/// A head and the text behind it, as they lie in the ring.
#[repr(C)]
struct Text<H, const N: usize> {
    head: H,
    bytes: [u8; N],
}

/// The counters of one probe family on this CPU.
///
/// A uprobe can be preempted between two instructions, so even per-CPU counters are changed by atomics; their
/// results are not fetched, which keeps them cheap.
#[derive(Clone, Copy)]
pub struct Tally(*mut Counters);

impl Tally {
    /// The counters of `family`, one of `profiler_common::counter::family`.
    #[inline(always)]
    pub fn of(family: u32) -> Option<Self> {
        COUNTERS.get_ptr_mut(family).map(Self)
    }

    /// Sends a record, or counts it as lost to a full ring.
    #[inline(always)]
    pub fn send<T: Copy + 'static>(self, record: T) {
        if let Some(mut entry) = self.reserve::<T>() {
            entry.write(record);
            self.submit(entry);
        }
    }

    /// The same; whether it was sent.
    #[inline(always)]
    pub fn sends<T: Copy + 'static>(self, record: T) -> bool {
        let Some(mut entry) = self.reserve::<T>() else { return false };
        entry.write(record);
        self.submit(entry);
        true
    }

    /// Sends a record and wakes the reader for it: for what it must act upon at once.
    #[inline(always)]
    pub fn send_and_wake<T: Copy + 'static>(self, record: T) {
        if let Some(mut entry) = self.reserve::<T>() {
            entry.write(record);
            // SAFETY: as in `reserve`.
            add(unsafe { &raw mut (*self.0).submitted }, 1);
            entry.submit(u64::from(BPF_RB_FORCE_WAKEUP));
        }
    }

    /// Room for a record that is filled in place, or `None` after counting it as lost to a full ring.
    #[inline(always)]
    pub fn reserve<T: 'static>(self) -> Option<RingBufEntry<T>> {
        // SAFETY: the pointer came from a successful lookup of a per-CPU array, whose values never go away.
        add(unsafe { &raw mut (*self.0).seen }, 1);
        let entry = EVENTS.reserve::<T>(0);
        if entry.is_none() {
            // SAFETY: as above.
            add(unsafe { &raw mut (*self.0).ring_full }, 1);
        }
        entry
    }

    /// Hands a filled record over.
    #[inline(always)]
    pub fn submit<T>(self, entry: RingBufEntry<T>) {
        // SAFETY: as in `reserve`.
        add(unsafe { &raw mut (*self.0).submitted }, 1);
        entry.submit(wake_flag(size_of::<T>() as u64));
    }

    /// Sends a head and the text at `address`, in the smallest record of the classes that holds it, or counts it as
    /// lost. Returns false when the text is longer than this class holds: nothing has been sent or counted then.
    #[inline(always)]
    pub fn send_text<H: Copy + 'static, const N: usize>(
        self,
        address: u64,
        last: bool,
        head: impl FnOnce(u32, bool) -> H,
    ) -> bool {
        let Some(mut entry) = EVENTS.reserve::<Text<H, N>>(0) else {
            self.lost_to_ring();
            return true;
        };
        let text = entry.as_mut_ptr();
        // SAFETY: the entry is reserved, and the helper writes at most N bytes behind its head.
        let read = unsafe {
            bpf_probe_read_user_str((&raw mut (*text).bytes).cast(), N as u32, address as *const c_void)
        };
        // What is read counts the byte that ends it.
        if read < 1 {
            entry.discard(0);
            self.unreadable();
            return true;
        }
        let cut = read as usize >= N;
        if cut && !last {
            entry.discard(0);
            return false;
        }
        // SAFETY: as above.
        unsafe { (&raw mut (*text).head).write(head(read as u32 - 1, cut)) };
        // SAFETY: as in `reserve`.
        add(unsafe { &raw mut (*self.0).seen }, 1);
        self.submit(entry);
        true
    }

    #[inline(always)]
    fn lost_to_ring(self) {
        // SAFETY: as in `reserve`.
        unsafe {
            add(&raw mut (*self.0).seen, 1);
            add(&raw mut (*self.0).ring_full, 1);
        }
    }

    /// Counts a record that was lost because an argument could not be read.
    #[inline(always)]
    pub fn unreadable(self) {
        // SAFETY: as in `reserve`.
        unsafe {
            add(&raw mut (*self.0).seen, 1);
            add(&raw mut (*self.0).oversized, 1);
        }
    }

    /// Counts a record that was lost because a table had no room.
    #[inline(always)]
    pub fn map_full(self) {
        // SAFETY: as in `reserve`.
        unsafe {
            add(&raw mut (*self.0).seen, 1);
            add(&raw mut (*self.0).map_full, 1);
        }
    }

    /// Counts payload that was not copied.
    #[inline(always)]
    pub fn uncopied(self, bytes: u64) {
        // SAFETY: as in `reserve`.
        add(unsafe { &raw mut (*self.0).bytes_uncopied }, bytes);
    }
}

#[inline(always)]
fn add(counter: *mut u64, n: u64) {
    // SAFETY: the callers pass a live, aligned field of a map value that is only ever changed by atomics.
    unsafe { Word::new(counter) }.add(n);
}

/// Wakes the reader when this record took what waits across the threshold.
///
/// The record is reserved, so what waits includes it. With several producers a crossing can be missed or seen
/// twice; the reader's timer covers that.
#[inline(always)]
fn wake_flag(size: u64) -> u64 {
    // SAFETY: a static that user space may have set before loading, hence the volatile read.
    let threshold = unsafe { ptr::read_volatile(&raw const WAKE_THRESHOLD) };
    let waiting = EVENTS.query(u64::from(BPF_RB_AVAIL_DATA));
    let crossed = waiting.wrapping_sub(threshold) < (size + RING_HEADER).next_multiple_of(8);
    u64::from(if crossed { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP })
}
