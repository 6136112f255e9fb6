//! What truly goes to the GPU, each thing once, whatever layers it crossed: the vocabulary between [`super::reader`] and
//! the steps.

use super::graph::Nodes;
use super::kernel::{KernelKey, Naming};
use crate::decode::Burst;
use crate::probe::{Direction, Memory};
use std::sync::Arc;

/// Something the GPU was asked to do, or a wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A kernel.
    Launch {
        /// Which.
        kernel: KernelKey,
        /// Where.
        stream: u64,
    },
    /// Kernels by one call, each with its stream.
    Launches(Vec<(KernelKey, u64)>),
    /// An executable graph; its nodes when its making was seen.
    GraphLaunch {
        /// What it consists of, if known.
        nodes: Option<Arc<Nodes>>,
        /// Where.
        stream: u64,
    },
    /// A host function that the stream calls.
    HostFunction {
        /// Where.
        stream: u64,
    },
    /// A copy; `blocks` when the call returns only after it is done.
    Copy {
        /// Which way.
        direction: Direction,
        /// How many: a batch is one call.
        count: u64,
        /// How much altogether.
        bytes: u64,
        /// Where.
        stream: u64,
        /// The call waits for it.
        blocks: bool,
    },
    /// A memory set.
    Set {
        /// How much.
        bytes: u64,
        /// Where.
        stream: u64,
    },
    /// A collective or a message between devices. Its kernels are launches of their own.
    Collective {
        /// How much this rank gives or takes.
        bytes: u64,
    },
    /// An event was recorded: a mark in a stream that can be waited for.
    Marked {
        /// Where.
        stream: u64,
        /// Which: numbers rise in the order in which marks were made.
        mark: u64,
    },
    /// The program was told how much time lies between two marks of a stream.
    Timed {
        /// Where.
        stream: u64,
        /// The first and the second.
        marks: (u64, u64),
        /// The time between them, nanoseconds.
        took_ns: u64,
    },
    /// What is sent to a stream from now on begins after a mark in another.
    Follows {
        /// The stream that waits.
        stream: u64,
        /// The stream and the mark that it waits for.
        of: (u64, u64),
    },
    /// A wait that returned.
    Synchronized {
        /// For what.
        what: Waited,
        /// When it was entered.
        entered_ns: u64,
    },
    /// Memory was handed out.
    Allocated {
        /// Address or handle.
        key: u64,
        /// Size.
        bytes: u64,
        /// Of which kind.
        kind: Memory,
        /// On which device, if known.
        device: Option<u32>,
        /// Who asked: a return address, or 0.
        caller: u64,
    },
    /// Memory was given back.
    Freed {
        /// Address or handle.
        key: u64,
        /// Of which kind the function frees, on which device the thread is.
        kind: Memory,
        /// The thread's device, if known.
        device: Option<u32>,
    },
    /// Memory was asked for and not given.
    AllocationFailed {
        /// How much.
        bytes: u64,
        /// On which device, if known.
        device: Option<u32>,
        /// Why.
        result: i64,
    },
    /// What a kernel is called was told.
    Named(Naming),
    /// What a thread sent since the last time this was told, counted in the kernel.
    Burst(Burst),
}

/// What a wait waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// A stream.
    Stream(u64),
    /// The whole device.
    Device,
    /// An event: the stream that it was recorded in and its mark there, if that was seen.
    Event(Option<(u64, u64)>),
}

/// Why a call is no operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ignored {
    /// The driver's half of a runtime call.
    Nested,
    /// Recorded into a graph, not run.
    Captured,
    /// Book-keeping that asks nothing of the GPU.
    Bookkeeping,
    /// The call failed.
    Failed,
}

impl Ignored {
    /// All reasons, in the order of the summary.
    pub const ALL: [Self; 4] = [Self::Nested, Self::Captured, Self::Bookkeeping, Self::Failed];

    /// The name in summaries and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nested => "nested",
            Self::Captured => "captured",
            Self::Bookkeeping => "bookkeeping",
            Self::Failed => "failed",
        }
    }
}
