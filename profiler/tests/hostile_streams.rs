//! Hostile bytes under the HTTP/1 observer: it ends, soon, in bounded memory, and says each exchange's end once. In:
//! pieces of messages, lies about them, endless repetition, gaps, compressed lies. `PROPTEST_CASES` sets how long it
//! goes on.

#![expect(clippy::unwrap_used, reason = "a test ends at its first surprise")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;

use profiler::http::{Connection, Direction, End, Signal, SignalKind};
use proptest::prelude::*;

/// Counts what a thread holds at once. Each test runs on a thread of its own.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends frees what it holds when its counters are gone.
    let _ = HELD.try_with(|held| held.set(held.get() + bytes));
}

// SAFETY: everything is left to the system's allocator; only sizes are added up.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What the observer of one connection may hold: two heads of 64 KiB in buffers that double, a document's tail, an
/// event's facts, and a deflate window with its pieces for each direction.
const MOST: isize = 1 << 20;
/// With brotli: a window of 4 MiB and the tables of its trees for each direction.
const MOST_WITH_BROTLI: isize = 14 << 20;

#[derive(Clone, Debug)]
struct Step {
    request: bool,
    piece: usize,
    repeat: usize,
    /// Cut out of it, from where, as a gap of which kind.
    cut: Option<(prop::sample::Index, u32, bool)>,
    noise: Vec<u8>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let repeat = prop_oneof![5 => Just(1_usize), 2 => 1..40_usize, 1 => Just(3000_usize)];
    let cut = prop::option::weighted(0.2, (any::<prop::sample::Index>(), 1..90_000_u32, any::<bool>()));
    let noise = prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(any::<u8>(), 0..64)];
    let step = (any::<bool>(), 0..PIECES.len(), repeat, cut, noise)
        .prop_map(|(request, piece, repeat, cut, noise)| Step { request, piece, repeat, cut, noise });
    prop::collection::vec(step, 1..40)
}

/// What a connection begins with, so that bodies are reached; the first of each is nothing.
const REQUESTS: [&str; 6] = [
    "",
    "POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n{\"messages\":[",
    "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 99999999\r\n\r\n",
    "POST / HTTP/1.1\r\nContent-Encoding: deflate\r\nContent-Length: 99999999\r\n\r\n",
    "POST / HTTP/1.1\r\nContent-Encoding: br\r\nContent-Length: 99999999\r\n\r\n",
];
const RESPONSES: [&str; 8] = [
    "",
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n",
    "HTTP/1.1 200 OK\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: br\r\n\r\n",
];

const PIECES: [&[u8]; 40] = [
    b"POST /v1/chat/completions HTTP/1.1\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 x\r\nUpgrade: h2c\r\n\r\n",
    b"Content-Type: text/event-stream\r\n",
    b"Content-Type: application/x-ndjson\r\n",
    b"Content-Type: application/json\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 18446744073709551615\r\n",
    b"Content-Length: 100000\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Content-Encoding: deflate\r\n",
    b"Content-Encoding: br\r\n",
    b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy",
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=b\r\n",
    b"\r\n",
    b"\n",
    b"ffffffffffffffff\r\n",
    b"1000\r\n",
    b"5;a=b\r\nhello\r\n",
    b"0\r\n\r\n",
    b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n",
    b"data: {\"id\":\"",
    b"event: error\n",
    b": ping\n\n",
    b"data:",
    b"{\"choices\":[",
    b"{\"index\":1,\"finish_reason\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\",\"delta\":{\"content\":\"a\"}},",
    b"{\"usage\":{\"prompt_tokens\":1e308,\"completion_tokens\":-1}}\n",
    b"[[[[[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":{\"a\":",
    b"\"model\":\"m\",\"stream\":true}",
    b"\\ud83d\\\"\\",
    b"\xff\xfe\x00\x1f\x8b\x08\x00",
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
    // A deflate block of one byte a thousand times, a brotli window of 4 MiB and the beginning of a block.
    b"\x4b\x4c\x1c\x05\xa3\x60\x14\x0c\x77\x00\x00",
    b"\x0b\x80\xff\xff\x07",
    b"\x16\x03\x01\x02\x00",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
];

/// What a run showed.
struct Seen {
    /// The most that the connection held between two chunks.
    held: isize,
    brotli: bool,
    /// Ends of each exchange.
    ends: BTreeMap<u32, u32>,
}

fn run(mid_stream: bool, heads: [&str; 2], steps: &[Step]) -> Seen {
    let mut seen = Seen { held: 0, brotli: false, ends: BTreeMap::new() };
    let mut positions = [0_u64; 2];
    let mut apart = HELD.get();
    let mut connection = Connection::new(mid_stream);
    for ((direction, head), position) in
        [Direction::Response, Direction::Request].into_iter().zip(heads).zip(&mut positions).rev()
    {
        let mut out = Vec::new();
        connection.on_bytes(direction, 0, 0, head.as_bytes(), 0, &mut out);
        *position = head.len() as u64;
        seen.brotli |= head.contains("br");
        let before = HELD.get();
        tally(&mut seen.ends, &out);
        apart += HELD.get() - before;
    }
    for (time_ns, step) in (1..).zip(steps) {
        let mut bytes = PIECES.get(step.piece).copied().unwrap_or_default().repeat(step.repeat);
        bytes.extend(&step.noise);
        seen.brotli |= bytes.windows(2).any(|pair| pair == b"br");
        let position = positions.get_mut(usize::from(step.request)).unwrap();
        let direction = if step.request { Direction::Request } else { Direction::Response };
        let mut lost = 0;
        if let Some((at, len, inside)) = &step.cut {
            bytes.truncate(at.index(bytes.len() + 1));
            if *inside {
                lost = *len;
            } else {
                *position += u64::from(*len);
            }
        }
        let mut out = Vec::new();
        connection.on_bytes(direction, *position, time_ns, &bytes, lost, &mut out);
        *position += bytes.len() as u64 + u64::from(lost);
        drop(bytes);
        let before = HELD.get();
        tally(&mut seen.ends, &out);
        apart += HELD.get() - before;
        drop(out);
        seen.held = seen.held.max(HELD.get() - apart);
    }
    let mut out = Vec::new();
    connection.on_end(End::Closed, steps.len() as u64, &mut out);
    tally(&mut seen.ends, &out);
    seen
}

fn tally(ends: &mut BTreeMap<u32, u32>, out: &[Signal]) {
    for signal in out {
        let ended = ends.entry(signal.exchange).or_default();
        *ended += u32::from(matches!(signal.kind, SignalKind::ResponseEnd(_)));
    }
}

/// Enough for every run of the tests; `PROPTEST_CASES` asks for others (`cargo xtask fuzz`).
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn a_hostile_stream_ends_in_bounded_memory(mid_stream in prop::bool::weighted(0.2), request in prop::sample::select(&REQUESTS[..]), response in prop::sample::select(&RESPONSES[..]), steps in steps()) {
        let seen = run(mid_stream, [response, request], &steps);
        let bound = if seen.brotli { MOST_WITH_BROTLI } else { MOST };
        prop_assert!(seen.held < bound, "held {}", seen.held);
        prop_assert!(seen.ends.values().all(|ended| *ended == 1), "{:?}", seen.ends);
    }
}
