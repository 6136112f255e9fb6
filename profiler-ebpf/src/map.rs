//! Every map of the kernel side, and the few operations on them that more than one probe needs.
//!
//! User space sets the sizes of [`EVENTS`] and [`TARGETS`] before loading; the sizes here are the defaults.

use core::cell::UnsafeCell;

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
};
use profiler_common::{
    cookie::{Cookie, GROUPS, runs},
    counter::{Counters, family},
    event::{
        BatchLayout, Count, CountKey, LAYOUTS as LAYOUTS_ENTRIES, PAYLOAD_CLASSES, Ring, Settings, Thread,
        Told, Variable,
    },
    stream::{Descriptor, Recent, Session, SessionKey, Stream, WISHES as WISHES_ENTRIES, Wish},
};

use crate::atomic::Word;

/// 8 MiB hold 388 ms of launches at 300,000 a second.
const RING_BYTES: u32 = 8 << 20;

/// Room for 4,096 hints, and a whole number of pages on every machine.
const HINT_BYTES: u32 = 64 << 10;

/// One bit for each pid below 4,194,304, the kernel's limit (`PID_MAX_LIMIT`, include/linux/threads.h).
const TARGET_WORDS: u32 = 65536;

/// Calls that may be between entry and return at once. More threads than that inside GPU calls are not plausible;
/// the least recently used entry belongs to a thread that died inside its call.
const CALLS_IN_FLIGHT: u32 = 16384;

/// Connections, and descriptors of connections, that the targets may hold open at once.
const CONNECTIONS: u32 = 16384;

/// Kernels and functions that are counted by themselves, and threads that send work; calls beyond them are sent.
/// Entries are allocated when they are needed ([`NO_PREALLOC`]).
const COUNTED: u32 = 65536;

/// Processes that may be capturing at once.
const CAPTURING_PROCESSES: u32 = 4096;

/// Processes whose newest descriptors are remembered; beyond them forks pass nothing on.
const RECENT_PROCESSES: u32 = 4096;

/// TLS sessions, and threads at work on them.
const TLS_ENTRIES: u32 = 65536;

/// Processes whose ring is followed, or whose receives that found nothing are counted.
const SERVER_PROCESSES: u32 = 4096;

/// Processes whose threads say what they work for; of others beyond them it is not read, which user space says.
const PUBLISHING_PROCESSES: u32 = 4096;

/// Threads of which it is remembered what they said last. One that is forgotten is told again.
const TOLD_THREADS: u32 = 16384;

/// `BPF_F_NO_PREALLOC` (include/uapi/linux/bpf.h).
const NO_PREALLOC: u32 = 1;

/// `BPF_F_MMAPABLE`, likewise: user space changes single bits of the table by atomics of its own.
const MMAPABLE: u32 = 1 << 10;

/// The most payload that one record carries.
pub const LARGEST_PAYLOAD: usize = {
    let [.., largest] = PAYLOAD_CLASSES;
    largest
};

/// Names a call between its entry and its return.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InFlightKey {
    pub pid_tgid: u64,
    pub api: u64,
}

/// What the entry of a call leaves for its return.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InFlight {
    pub entered_ns: u64,
    pub caller: u64,
    pub args: [u64; 6],
}

/// A number in a map that is read and written where it stands, so that the verifier knows nothing about it.
///
/// Following the exact ranges of a handful of numbers through a loop is what makes the verifier give up; of what
/// comes out of a map it assumes anything, and one look at the loop is enough.
#[repr(transparent)]
pub struct Opaque(UnsafeCell<u64>);

// SAFETY: it stands in per-CPU values only, of which each belongs to the program that runs on its CPU.
unsafe impl Sync for Opaque {}

impl Opaque {
    #[inline(always)]
    pub const fn new(value: u64) -> Self {
        Self(UnsafeCell::new(value))
    }

    #[inline(always)]
    pub fn get(&self) -> u64 {
        // SAFETY: the pointer is that of a live cell.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    pub fn set(&self, value: u64) {
        // SAFETY: as in `get`.
        unsafe { self.0.get().write_volatile(value) }
    }
}

/// How far the payload of one call has been sent.
#[repr(C)]
pub struct Cursor {
    /// Bytes of the call that have not been sent yet.
    pub remaining: Opaque,
    /// Where they stand in the stream.
    pub position: Opaque,
    /// Where to read on in the target.
    pub address: Opaque,
    /// Bytes of the current piece behind that address.
    pub rest: Opaque,
    /// The next `struct iovec`, and the end of them.
    pub vector: Opaque,
    pub vector_end: Opaque,
    /// The next `struct mmsghdr`, the end of them, and bytes of the current one that no piece has been found for.
    pub message: Opaque,
    pub message_end: Opaque,
    pub message_rest: Opaque,
    /// Bytes that have been put into the scratch buffer, and how many to put there before they are sent.
    pub gathered: Opaque,
    pub limit: Opaque,
    /// Bytes to pass over.
    pub skip: Opaque,
    /// What remains when the last record but one is full.
    pub least: Opaque,
    /// Bytes of the start that travel when not all do, and how many are left out behind them.
    pub head: Opaque,
    pub left_out: Opaque,
}

impl Cursor {
    /// At nothing.
    #[inline(always)]
    pub const fn new() -> Self {
        const ZERO: Opaque = Opaque::new(0);
        Self {
            remaining: ZERO,
            position: ZERO,
            address: ZERO,
            rest: ZERO,
            vector: ZERO,
            vector_end: ZERO,
            message: ZERO,
            message_end: ZERO,
            message_rest: ZERO,
            gathered: ZERO,
            limit: ZERO,
            skip: ZERO,
            least: ZERO,
            head: ZERO,
            left_out: ZERO,
        }
    }
}

/// Room to put the pieces of a vectored call side by side: twice a record's payload, so that the verifier, which sees a
/// start and a length as unrelated, can prove that both together stay inside.
pub type Scratch = [u8; 2 * LARGEST_PAYLOAD];

/// What a thread is doing with TLS. Only the thread itself touches it, at its own calls.
#[repr(C)]
pub struct TlsThread {
    /// The call that it is inside of: its object, or 0.
    pub ssl: u64,
    /// Which function that is, an index into the probe catalogue.
    pub api: u64,
    /// Its buffer, and where it will say how much it did.
    pub buffer: u64,
    pub done_at: u64,
    /// The connection that it read or wrote, or 0.
    pub nested: u64,
    /// The TLS connection that the thread read last, outside of any call, if nobody has got its bytes yet.
    pub fed: u64,
    /// The object that the thread wrote last to memory, and how many bytes; 0 once they went out.
    pub wrote: u64,
    pub wrote_bytes: u64,
    /// How far the payload of its call has been sent.
    pub cursor: Cursor,
}

impl TlsThread {
    /// It does nothing.
    #[inline(always)]
    pub const fn idle() -> Self {
        Self {
            ssl: 0,
            api: 0,
            buffer: 0,
            done_at: 0,
            nested: 0,
            fed: 0,
            wrote: 0,
            wrote_bytes: 0,
            cursor: Cursor::new(),
        }
    }
}

#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);
#[map]
pub static HINTS: RingBuf = RingBuf::with_byte_size(HINT_BYTES, 0);
#[map]
pub static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(family::COUNT, 0);
#[map]
pub static TARGETS: Array<u64> = Array::with_max_entries(TARGET_WORDS, MMAPABLE);
#[map]
pub static IN_FLIGHT: LruHashMap<InFlightKey, InFlight> = LruHashMap::with_max_entries(CALLS_IN_FLIGHT, 0);
#[map]
pub static DESCRIPTORS: HashMap<Descriptor, u64> = HashMap::with_max_entries(CONNECTIONS, 0);
#[map]
pub static STREAMS: HashMap<u64, Stream> = HashMap::with_max_entries(CONNECTIONS, 0);
#[map]
pub static WISHES: Array<Wish> = Array::with_max_entries(WISHES_ENTRIES, 0);
#[map]
pub static RECENT: LruHashMap<u32, Recent> = LruHashMap::with_max_entries(RECENT_PROCESSES, 0);
#[map]
pub static SESSIONS: HashMap<SessionKey, Session> = HashMap::with_max_entries(TLS_ENTRIES, NO_PREALLOC);
#[map]
pub static TLS_THREADS: HashMap<u64, TlsThread> = HashMap::with_max_entries(TLS_ENTRIES, NO_PREALLOC);
#[map]
pub static NEXT_CONNECTION: Array<u64> = Array::with_max_entries(1, 0);
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static CURSOR: PerCpuArray<Cursor> = PerCpuArray::with_max_entries(1, 0);

#[map]
pub static LAYOUTS: Array<BatchLayout> = Array::with_max_entries(LAYOUTS_ENTRIES, 0);
#[map]
pub static RINGS: HashMap<u32, Ring> = HashMap::with_max_entries(SERVER_PROCESSES, NO_PREALLOC);
#[map]
pub static IDLE_RECEIVES: LruHashMap<u32, u64> = LruHashMap::with_max_entries(SERVER_PROCESSES, 0);

#[map]
pub static VARIABLES: HashMap<u32, Variable> = HashMap::with_max_entries(PUBLISHING_PROCESSES, NO_PREALLOC);
#[map]
pub static PUBLISHERS: Array<u64> = Array::with_max_entries(1, 0);
#[map]
pub static TOLD: LruHashMap<u64, Told> = LruHashMap::with_max_entries(TOLD_THREADS, 0);

#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(GROUPS, 0);
#[map]
pub static RUNS: PerCpuArray<u64> = PerCpuArray::with_max_entries(GROUPS * 2, 0);
#[map]
pub static COUNTS: PerCpuHashMap<CountKey, Count> = PerCpuHashMap::with_max_entries(COUNTED, NO_PREALLOC);
#[map]
pub static THREADS: HashMap<u64, Thread> = HashMap::with_max_entries(COUNTED, NO_PREALLOC);
#[map]
pub static CAPTURING: HashMap<u32, u64> = HashMap::with_max_entries(CAPTURING_PROCESSES, NO_PREALLOC);

/// A program runs for a target group: what that costs the group is reckoned from how often.
///
/// A uprobe can be preempted and go on while another runs on its CPU, so it is counted by atomics all the same.
#[inline(always)]
pub fn ran(cookie: Cookie) {
    if let Some(runs) = RUNS.get_ptr_mut(runs(cookie.group, cookie.dear)) {
        // SAFETY: the value is a live, aligned u64 of an array map, and everybody changes it by atomics.
        unsafe { Word::new(runs) }.add(1);
    }
}

/// Whether the task's bit is set in [`TARGETS`].
#[inline(always)]
pub fn is_target(pid: u32) -> bool {
    TARGETS.get(pid >> 6).is_some_and(|word| *word >> (pid & 63) & 1 != 0)
}

/// Makes a task a target.
#[inline(always)]
pub fn add_target(pid: u32) {
    if let Some(word) = target_word(pid) {
        word.or(1 << (pid & 63));
    }
}

/// Forgets a task.
#[inline(always)]
pub fn remove_target(pid: u32) {
    if let Some(word) = target_word(pid) {
        word.and(!(1 << (pid & 63)));
    }
}

#[inline(always)]
fn target_word(pid: u32) -> Option<Word<u64>> {
    // SAFETY: the value is a live, aligned u64 of an array map, and everybody changes it by atomics.
    TARGETS.get_ptr_mut(pid >> 6).map(|word| unsafe { Word::new(word) })
}

/// An id for a new connection, never used before; the first is 1.
#[inline(always)]
pub fn next_connection() -> Option<u64> {
    let next = NEXT_CONNECTION.get_ptr_mut(0)?;
    // SAFETY: the value is a live, aligned u64 of an array map, and everybody changes it by atomics.
    Some(unsafe { Word::new(next) }.fetch_add(1) + 1)
}
