//! A row of the catalogue and how rows become the table that records index.

use super::copy::{Size, Way};
use super::meaning::{Meaning, StreamAt};
use profiler_common::cookie::{BEHIND, Cookie, capture, class, report, shape};

/// Which library a function belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layer {
    /// libcudart: what applications call.
    Runtime,
    /// libcuda: what the runtime, cuBLAS, cuDNN and Triton call.
    Driver,
    /// libnccl: collectives between devices.
    Nccl,
    /// libssl, or another library with its interface: what requests arrive in.
    Tls,
    /// libzmq: what the processes of vLLM and SGLang tell each other.
    Zmq,
    /// libllama: the batches of llama.cpp's servers.
    Llama,
    /// llama.cpp's own server: who asks for what is in a slot.
    LlamaServer,
    /// libtritonserver: the requests and responses of Triton.
    Triton,
    /// A backend of Triton: the batches of its model instances.
    TritonBackend,
}

/// What a library is for: each family has kernel-side programs of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// Work on a GPU.
    Gpu,
    /// What is deciphered.
    Tls,
    /// What a server does inside.
    Server,
}

impl Layer {
    /// All of them, in the order of the page of probes.
    pub const ALL: [Self; 9] = [
        Self::Runtime,
        Self::Driver,
        Self::Nccl,
        Self::Tls,
        Self::Zmq,
        Self::Llama,
        Self::LlamaServer,
        Self::Triton,
        Self::TritonBackend,
    ];

    /// Whether it is one of a GPU.
    #[must_use]
    pub fn is_gpu(self) -> bool {
        self.family() == Family::Gpu
    }

    /// What it is for.
    #[must_use]
    pub fn family(self) -> Family {
        match self {
            Self::Runtime | Self::Driver | Self::Nccl => Family::Gpu,
            Self::Tls => Family::Tls,
            Self::Zmq | Self::Llama | Self::LlamaServer | Self::Triton | Self::TritonBackend => {
                Family::Server
            }
        }
    }

    /// The library's name.
    #[must_use]
    pub fn library(self) -> &'static str {
        match self {
            Self::Runtime => "libcudart",
            Self::Driver => "libcuda",
            Self::Nccl => "libnccl",
            Self::Tls => "libssl",
            Self::Zmq => "libzmq",
            Self::Llama => "libllama",
            Self::LlamaServer => "llama-server",
            Self::Triton => "libtritonserver",
            Self::TritonBackend => "libtriton_*",
        }
    }
}

/// In which versions of the runtime a row holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    /// All.
    Any,
    /// CUDA 12 and before.
    Before13,
    /// CUDA 13 and later.
    From13,
}

impl Only {
    /// Whether a library of this major version has it so. What is not known is taken for the newest.
    #[must_use]
    pub fn fits(self, major: Option<u32>) -> bool {
        match self {
            Self::Any => true,
            Self::Before13 => major.is_some_and(|major| major < 13),
            Self::From13 => major.is_none_or(|major| major >= 13),
        }
    }
}

/// Of which calls failures are reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Results {
    /// Of those that are reported at return anyway: allocations, waits, graphs.
    #[default]
    Some,
    /// Of launches, copies and sets too, by a return probe at each.
    All,
}

/// A probed function.
#[derive(Clone, Copy, Debug)]
pub struct Api {
    /// The exported name.
    pub symbol: &'static str,
    /// Whose it is.
    pub layer: Layer,
    /// Where this row holds.
    pub only: Only,
    /// A `_ptsz` or `_ptds` form: stream 0 is the thread's own.
    pub per_thread: bool,
    /// What it does.
    pub meaning: Meaning,
    /// What the kernel side is told, but for the index and the group.
    pub(super) cookie: Cookie,
}

impl Api {
    /// Reported once, at return.
    #[must_use]
    pub fn is_paired(&self) -> bool {
        matches!(self.cookie.report, report::RETURN | report::RETURN_UNLESS_NOT_READY)
    }

    /// It receives from a message queue, and may find nothing.
    #[must_use]
    pub fn is_receive(&self) -> bool {
        self.layer == Layer::Zmq && self.cookie.shape == profiler_common::cookie::server::RECEIVE
    }

    /// The word that travels with the probe of catalogue entry `index`, for target group `group`.
    #[must_use]
    pub fn cookie(&self, index: u16, group: u8, results: Results) -> Cookie {
        let asks = matches!(
            self.meaning,
            Meaning::Launch
                | Meaning::LegacyLaunch { .. }
                | Meaning::MultiLaunch { .. }
                | Meaning::GraphLaunch { .. }
                | Meaning::HostFunction { .. }
                | Meaning::Copy { .. }
                | Meaning::Set { .. }
                | Meaning::Free { .. }
        );
        let report = match (self.cookie.report, results) {
            (report::ENTRY, Results::All) if asks => report::ENTRY_AND_FAILURE,
            (report, _) => report,
        };
        Cookie { api: index, group, report, ..self.cookie }
    }
}

/// A function and its per-thread form.
pub struct Row {
    api: Api,
    per_thread: &'static str,
}

impl Row {
    /// A function, and its per-thread form where `per_thread` is not empty.
    pub const fn new(symbol: &'static str, per_thread: &'static str, layer: Layer, meaning: Meaning) -> Self {
        let driver = matches!(layer, Layer::Driver);
        let shape = if driver { shape::CALL_WITH_CALLER } else { shape::CALL };
        let cookie = with_meaning(Cookie { shape, driver, ..Cookie::PLAIN }, meaning);
        Self { api: Api { symbol, layer, only: Only::Any, per_thread: false, meaning, cookie }, per_thread }
    }

    /// Holds only there.
    pub const fn only(mut self, only: Only) -> Self {
        self.api.only = only;
        self
    }

    /// The arguments lie so.
    pub const fn shape(mut self, shape: u8) -> Self {
        self.api.cookie.shape = shape;
        self
    }

    /// Fourteen arguments are wanted.
    pub const fn wide(self) -> Self {
        self.shape(shape::WIDE)
    }

    /// As wide, with `words` words of what argument `pointee` points to.
    pub const fn pointing(mut self, pointee: u8, words: u8) -> Self {
        self.api.cookie.pointee = pointee;
        self.api.cookie.words = words;
        self.wide()
    }

    /// An opaque batch lies so: number of a layout.
    pub const fn layout(mut self, number: u8) -> Self {
        self.api.cookie.words = number;
        self
    }

    /// Argument `pointee` points to what is copied as the shape says.
    pub const fn copying(mut self, pointee: u8) -> Self {
        self.api.cookie.pointee = pointee;
        self
    }

    /// Reported at return, with what argument `out` points to.
    pub const fn returning(mut self, out: u8) -> Self {
        self.api.cookie.out = out;
        self.at_return()
    }

    /// Reported at return.
    pub const fn at_return(mut self) -> Self {
        self.api.cookie.report = report::RETURN;
        self
    }

    /// Reported at entry, and at return again if it failed.
    pub const fn or_failing(mut self) -> Self {
        self.api.cookie.report = report::ENTRY_AND_FAILURE;
        self
    }

    /// Reads a second word at return: what argument `argument` points to.
    pub const fn second(mut self, argument: u8) -> Self {
        self.api.cookie.second = argument;
        self
    }

    /// Reads a second word at return: what lies 8 bytes behind where argument `argument` points.
    pub const fn second_behind(mut self, argument: u8) -> Self {
        self.api.cookie.second = argument | BEHIND;
        self
    }

    /// The return address is wanted, to name who asked.
    pub const fn with_caller(self) -> Self {
        self.shape(shape::CALL_WITH_CALLER)
    }

    /// What is returned through `out` has the name that argument `name` points to.
    pub const fn naming(mut self, out: u8, name: u8) -> Self {
        self.api.cookie.pointee = name;
        self.returning(out).shape(shape::NAMED)
    }
}

/// What follows from the meaning for the kernel side.
const fn with_meaning(mut cookie: Cookie, meaning: Meaning) -> Cookie {
    cookie.class = match meaning {
        Meaning::Launch | Meaning::LegacyLaunch { .. } | Meaning::MultiLaunch { .. } => class::LAUNCH,
        Meaning::Copy { .. } => class::COPY,
        _ => class::OTHER,
    };
    match meaning {
        Meaning::Synchronize(_) => {
            cookie.waits = true;
            cookie.report = report::RETURN;
        }
        Meaning::Query(_) => {
            cookie.waits = true;
            cookie.report = report::RETURN_UNLESS_NOT_READY;
        }
        Meaning::BeginCapture { .. } => {
            cookie.capture = capture::BEGINS;
            cookie.report = report::RETURN;
        }
        Meaning::EndCapture { .. } => cookie.capture = capture::ENDS,
        Meaning::Copy { stream: StreamAt::Default, .. } => cookie.waits = true,
        Meaning::Copy { size: Size::Arg(bytes, 1), way: Way::Kind(kind), stream: StreamAt::Arg(_) } => {
            cookie.bytes = bytes;
            cookie.kind = kind;
        }
        Meaning::Copy { size: Size::Arg(bytes, 1), way: Way::Fixed(_), stream: StreamAt::Arg(_) } => {
            cookie.bytes = bytes;
        }
        _ => {}
    }
    cookie
}

/// Rows with their per-thread forms.
#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, where a wrong index is a build error"
)]
pub const fn count(tables: &[&[Row]]) -> usize {
    let mut count = 0;
    let mut table = 0;
    while table < tables.len() {
        let mut row = 0;
        while row < tables[table].len() {
            count += if tables[table][row].per_thread.is_empty() { 1 } else { 2 };
            row += 1;
        }
        table += 1;
    }
    count
}

/// All rows and their per-thread forms as one table.
#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, where a wrong index is a build error"
)]
pub const fn flatten<const N: usize>(tables: &[&[Row]]) -> [Api; N] {
    let mut all = [tables[0][0].api; N];
    let (mut next, mut table) = (0, 0);
    while table < tables.len() {
        let mut row = 0;
        while row < tables[table].len() {
            let Row { api, per_thread } = &tables[table][row];
            all[next] = *api;
            next += 1;
            if !per_thread.is_empty() {
                all[next] = Api { symbol: per_thread, per_thread: true, ..*api };
                next += 1;
            }
            row += 1;
        }
        table += 1;
    }
    all
}
