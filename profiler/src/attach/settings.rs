//! What can be chosen about the kernel side, and the defaults with their reasons.

use crate::probe::Results;

/// Default size of the ring, bytes: 8 MiB hold 388 ms of launches at 300,000 a second, so a drain thread that the
/// scheduler forgets for a third of a second loses nothing.
pub const RING_BYTES: u32 = 8 << 20;

/// How uprobes are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LinkKind {
    /// Multi links where the kernel has them, else perf links.
    #[default]
    Auto,
    /// One link for all probes of a library: detaches in milliseconds. Needs Linux 6.10.
    Multi,
    /// One link a probe: works from Linux 5.15, takes 0.1 s a probe to detach.
    Perf,
}

/// What can be chosen about the kernel side.
#[derive(Clone, Debug)]
pub struct KernelSettings {
    /// Bytes of the ring, a power of two.
    pub ring_bytes: u32,
    /// How uprobes are attached.
    pub links: LinkKind,
    /// Use the raw tracepoint for system calls even where the BTF one is to be had.
    pub raw_tracepoint: bool,
    /// The socket and process hooks are put in place by [`watch`](super::Kernel::watch), not at once.
    pub hooks_wait: bool,
    /// Another object file than the built-in one (a debug build of the kernel side).
    pub object: Option<std::path::PathBuf>,
    /// Of which calls failures are reported.
    pub results: Results,
    /// How much is sent to begin with.
    pub detail: Detail,
    /// Whether servers are listened to inside.
    pub adapters: Adapters,
    /// The stack of each such launch is sent; 0 sends none.
    pub stack_every: u32,
}

/// Whether servers are listened to inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Adapters {
    /// Wherever an adapter understands one.
    #[default]
    Auto,
    /// Nowhere: queues, prefills and batches are inferred from the outside.
    Off,
}

/// How much of the GPU calls is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Detail {
    /// A record a call: steps know their kernels and copies.
    #[default]
    Events,
    /// Launches and plain copies are counted in the kernel: the same totals for less, steps know only how many.
    Aggregate,
}

impl Detail {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Events => Self::Aggregate,
            Self::Aggregate => Self::Events,
        }
    }
}

impl Default for KernelSettings {
    fn default() -> Self {
        Self {
            ring_bytes: RING_BYTES,
            links: LinkKind::Auto,
            raw_tracepoint: false,
            hooks_wait: false,
            object: None,
            results: Results::Some,
            detail: Detail::Events,
            adapters: Adapters::Auto,
            stack_every: 0,
        }
    }
}
