//! What may happen, drawn at random.

use proptest::prelude::*;

/// The process with two threads, whose engine an adapter may hear, and one more.
pub const ENGINE: u32 = 10;
pub const OTHER: u32 = 11;
/// Process and thread of each thread that sends work.
pub const THREADS: [(u32, u32); 3] = [(ENGINE, 20), (ENGINE, 21), (OTHER, 22)];

/// One thing that somebody does.
#[derive(Clone, Debug)]
pub enum Act {
    /// A kernel; `nested`: the driver's half shows, too.
    Launch {
        thread: usize,
        stream: u64,
        kernel: u64,
        took_us: u64,
        nested: bool,
    },
    /// Launches and copies that are counted in the kernel.
    Burst {
        thread: usize,
        launches: u64,
        copies: u64,
    },
    Copy {
        thread: usize,
        stream: u64,
        kind: u64,
        bytes: u64,
        took_us: u64,
    },
    BlockingCopy {
        thread: usize,
        kind: u64,
        bytes: u64,
    },
    Set {
        thread: usize,
        stream: u64,
        bytes: u64,
        took_us: u64,
    },
    HostFunction {
        thread: usize,
        stream: u64,
    },
    /// Kernels are recorded and made executable.
    Capture {
        thread: usize,
        graph: u64,
        kernels: u64,
    },
    Graph {
        thread: usize,
        stream: u64,
        graph: u64,
        took_us: u64,
    },
    Record {
        thread: usize,
        stream: u64,
        event: u64,
    },
    Follow {
        thread: usize,
        stream: u64,
        event: u64,
    },
    /// Events around some kernels, a wait, and the question how much time lies between the events.
    Timed {
        thread: usize,
        stream: u64,
        kernels: u64,
        took_us: u64,
    },
    /// The question how much time lies between two events.
    Elapsed {
        thread: usize,
        events: (u64, u64),
    },
    Wait {
        thread: usize,
        what: What,
    },
    Allocate {
        thread: usize,
        slot: u64,
        bytes: u64,
    },
    Free {
        thread: usize,
        slot: u64,
    },
    Ask {
        connection: usize,
        streams: bool,
    },
    Speak {
        connection: usize,
        tokens: usize,
    },
    Finish {
        connection: usize,
    },
    Leave {
        connection: usize,
    },
    /// The engine tells an iteration.
    Tell {
        computed: u32,
        complete: bool,
        failed: bool,
    },
    /// The engine says what nobody understands, and is not believed any more.
    Babble,
    Pause {
        us: u64,
    },
}

/// What a thread waits for.
#[derive(Clone, Copy, Debug)]
pub enum What {
    Stream(u64),
    Event(u64),
    Device,
}

fn thread() -> impl Strategy<Value = usize> + Clone {
    0..THREADS.len()
}

fn gpu_act() -> impl Strategy<Value = Act> {
    let (thread, stream, took) = (thread(), 0u64..3, 1u64..3000);
    let on = (thread.clone(), stream, took);
    let waited = prop_oneof![
        4 => (0u64..3).prop_map(What::Stream),
        3 => (0u64..6).prop_map(What::Event),
        1 => Just(What::Device)
    ];
    prop_oneof![
        12 => (on.clone(), 1u64..6, any::<bool>()).prop_map(|((thread, stream, took_us), kernel, nested)| {
            Act::Launch { thread, stream, kernel, took_us, nested }
        }),
        1 => (thread.clone(), 0u64..9, 0u64..3)
            .prop_map(|(thread, launches, copies)| Act::Burst { thread, launches, copies }),
        4 => (on.clone(), 0u64..5, 1u64..100_000).prop_map(|((thread, stream, took_us), kind, bytes)| {
            Act::Copy { thread, stream, kind, bytes, took_us }
        }),
        1 => (thread.clone(), 0u64..5, 1u64..9)
            .prop_map(|(thread, kind, bytes)| Act::BlockingCopy { thread, kind, bytes }),
        1 => (on.clone(), 1u64..9)
            .prop_map(|((thread, stream, took_us), bytes)| Act::Set { thread, stream, bytes, took_us }),
        1 => on.clone().prop_map(|(thread, stream, _)| Act::HostFunction { thread, stream }),
        1 => (thread.clone(), 0u64..3, 0u64..5)
            .prop_map(|(thread, graph, kernels)| Act::Capture { thread, graph, kernels }),
        2 => (on.clone(), 0u64..4).prop_map(|((thread, stream, took_us), graph)| {
            Act::Graph { thread, stream, graph, took_us }
        }),
        4 => (on.clone(), 0u64..6)
            .prop_map(|((thread, stream, _), event)| Act::Record { thread, stream, event }),
        2 => (on.clone(), 1u64..6).prop_map(|((thread, stream, took_us), kernels)| {
            Act::Timed { thread, stream, kernels, took_us }
        }),
        2 => (thread.clone(), 0u64..6, 0u64..6)
            .prop_map(|(thread, first, second)| Act::Elapsed { thread, events: (first, second) }),
        2 => (on, 0u64..6).prop_map(|((thread, stream, _), event)| Act::Follow { thread, stream, event }),
        6 => (thread.clone(), waited).prop_map(|(thread, what)| Act::Wait { thread, what }),
        1 => (thread.clone(), 0u64..4, 1u64..0x8000)
            .prop_map(|(thread, slot, bytes)| Act::Allocate { thread, slot, bytes }),
        1 => (thread, 0u64..4).prop_map(|(thread, slot)| Act::Free { thread, slot }),
    ]
}

fn server_act() -> impl Strategy<Value = Act> {
    let connection = 0usize..4;
    prop_oneof![
        4 => (connection.clone(), any::<bool>())
            .prop_map(|(connection, streams)| Act::Ask { connection, streams }),
        6 => (connection.clone(), 1usize..4)
            .prop_map(|(connection, tokens)| Act::Speak { connection, tokens }),
        2 => connection.clone().prop_map(|connection| Act::Finish { connection }),
        1 => connection.prop_map(|connection| Act::Leave { connection }),
        4 => (0u32..600, any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(computed, complete, failed)| Act::Tell { computed, complete, failed }),
    ]
}

/// Anything that may happen.
pub fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        30 => gpu_act(),
        12 => server_act(),
        4 => (1u64..5000).prop_map(|us| Act::Pause { us }),
        1 => (100_000u64..2_500_000).prop_map(|us| Act::Pause { us }),
    ]
}
