//! The catalogue of GPU functions: which symbols are probed, how their arguments lie and what they mean.
//!
//! The single source for `attach` (what to look for), `decode` (what a record's `api` index stands for) and
//! `docs/probes.md`. Adding a function is adding a row. Argument positions are those of the public CUDA headers
//! (`cuda_runtime_api.h` 12.9 and 13.5, `cuda.h` 12.9 and 13.5).

use profiler_common::cookie::{Cookie, NO_OUT, shape};

/// Which library a function belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer {
    /// libcudart: what applications call.
    Runtime,
    /// libcuda: what the runtime, cuBLAS, cuDNN and Triton call.
    Driver,
}

/// Which way a copy goes, by the names of `cudaMemcpyKind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Host to device.
    HtoD,
    /// Device to host.
    DtoH,
    /// Device to device.
    DtoD,
    /// Host to host.
    HtoH,
    /// The call leaves it to the addresses (`cudaMemcpyDefault`, `cuMemcpyAsync`).
    Unknown,
}

impl Direction {
    /// All of them, in the order of the summary.
    pub const ALL: [Self; 5] = [Self::HtoD, Self::DtoH, Self::DtoD, Self::HtoH, Self::Unknown];

    /// The name in summaries and attributes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HtoD => "HtoD",
            Self::DtoH => "DtoH",
            Self::DtoD => "DtoD",
            Self::HtoH => "HtoH",
            Self::Unknown => "unknown",
        }
    }

    /// From the value of a `cudaMemcpyKind` argument.
    #[must_use]
    pub fn from_memcpy_kind(kind: u64) -> Self {
        match kind as u32 {
            0 => Self::HtoH,
            1 => Self::HtoD,
            2 => Self::DtoH,
            3 => Self::DtoD,
            _ => Self::Unknown,
        }
    }
}

/// Where a copy's direction is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the function's name.
    Fixed(Direction),
    /// From the `cudaMemcpyKind` in this argument.
    Kind(u8),
}

/// Which stream an operation goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamAt {
    /// The handle in this argument.
    Arg(u8),
    /// The default stream.
    Default,
}

/// What a synchronisation waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// The stream in this argument.
    Stream(u8),
    /// Everything on the device or context.
    Device,
    /// The event in this argument.
    Event(u8),
}

/// What a function does, with the positions of the arguments that tell. Positions count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Launches one kernel.
    Launch,
    /// Launches an executable graph.
    GraphLaunch {
        /// Argument with the executable graph.
        exec: u8,
        /// Argument with the stream.
        stream: u8,
    },
    /// Copies `bytes`.
    Copy {
        /// Argument with the size.
        bytes: u8,
        /// Which way.
        way: Way,
        /// Where.
        stream: StreamAt,
    },
    /// Sets `bytes` of device memory.
    Set {
        /// Argument with the size.
        bytes: u8,
        /// Where.
        stream: StreamAt,
    },
    /// Allocates device memory; the address comes back through the out argument.
    Allocate {
        /// Argument with the size.
        bytes: u8,
    },
    /// Frees device memory.
    Free {
        /// Argument with the address.
        address: u8,
    },
    /// Waits.
    Synchronize(Waits),
    /// Records an event in a stream.
    EventRecord {
        /// Argument with the event.
        event: u8,
        /// Argument with the stream.
        stream: u8,
    },
    /// Makes a stream wait for an event.
    StreamWait {
        /// Argument with the stream.
        stream: u8,
        /// Argument with the event.
        event: u8,
    },
    /// From here on the stream records instead of running.
    BeginCapture {
        /// Argument with the stream.
        stream: u8,
    },
    /// The stream runs again; the graph comes back through the out argument.
    EndCapture {
        /// Argument with the stream.
        stream: u8,
    },
    /// Makes an executable graph; it comes back through the out argument.
    Instantiate {
        /// Argument with the graph.
        graph: u8,
    },
}

/// A probed function.
#[derive(Clone, Copy, Debug)]
pub struct Api {
    /// The exported name.
    pub symbol: &'static str,
    /// Whose it is.
    pub layer: Layer,
    /// How the arguments lie.
    pub shape: u8,
    /// Argument that points to a result.
    pub out: u8,
    /// Reported at return, with the result and how long it took.
    pub paired: bool,
    /// What it does.
    pub meaning: Meaning,
}

impl Api {
    const fn new(symbol: &'static str, layer: Layer, shape: u8, meaning: Meaning) -> Self {
        Self { symbol, layer, shape, out: NO_OUT, paired: false, meaning }
    }

    /// Reported at return.
    const fn at_return(mut self) -> Self {
        self.paired = true;
        self
    }

    /// Reported at return, with what this argument points to.
    const fn returning(mut self, out: u8) -> Self {
        self.out = out;
        self.at_return()
    }

    /// The word that travels with the probe of catalogue entry `index`.
    #[must_use]
    pub fn cookie(&self, index: u16) -> Cookie {
        Cookie { api: index, shape: self.shape, out: self.out, paired: self.paired }
    }
}

/// The entry of a record's `api` index, if this program knows it.
#[must_use]
pub fn api(index: u16) -> Option<&'static Api> {
    CATALOG.get(usize::from(index))
}

/// The entries of one library with their indices.
pub fn of_layer(layer: Layer) -> impl Iterator<Item = (u16, &'static Api)> {
    (0u16..).zip(CATALOG).filter(move |(_, api)| api.layer == layer)
}

/// The table as a page of documentation (`docs/probes.md`).
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(
        "# Probed functions\n\nGenerated from `profiler/src/probe.rs`; do not edit. \"At return\" means that a \
         return probe reports the call once, with its result and duration; all others are reported at entry.\n\n\
         | function | library | reported | meaning |\n|---|---|---|---|\n",
    );
    for api in CATALOG {
        let library = match api.layer {
            Layer::Runtime => "libcudart",
            Layer::Driver => "libcuda",
        };
        let when = if api.paired { "at return" } else { "at entry" };
        page.push_str(&format!("| `{}` | {library} | {when} | {} |\n", api.symbol, api.meaning.sentence()));
    }
    page
}

impl Meaning {
    fn sentence(self) -> &'static str {
        match self {
            Self::Launch => "launches a kernel",
            Self::GraphLaunch { .. } => "launches an executable graph",
            Self::Copy { .. } => "copies",
            Self::Set { .. } => "sets memory",
            Self::Allocate { .. } => "allocates device memory",
            Self::Free { .. } => "frees device memory",
            Self::Synchronize(_) => "waits",
            Self::EventRecord { .. } => "records an event",
            Self::StreamWait { .. } => "makes a stream wait for an event",
            Self::BeginCapture { .. } => "starts to record a graph",
            Self::EndCapture { .. } => "ends the recording of a graph",
            Self::Instantiate { .. } => "makes an executable graph",
        }
    }
}

const fn runtime(symbol: &'static str, meaning: Meaning) -> Api {
    Api::new(symbol, Layer::Runtime, shape::CALL, meaning)
}

const fn driver(symbol: &'static str, meaning: Meaning) -> Api {
    Api::new(symbol, Layer::Driver, shape::CALL_WITH_CALLER, meaning)
}

const fn launch(symbol: &'static str, layer: Layer, shape: u8) -> Api {
    Api::new(symbol, layer, shape, Meaning::Launch)
}

/// `…(dst, src, bytes, …)`: the common shape of copies.
const fn copy(way: Way, stream: StreamAt) -> Meaning {
    Meaning::Copy { bytes: 2, way, stream }
}

const SET: Meaning = Meaning::Set { bytes: 2, stream: StreamAt::Default };
const SET_ASYNC: Meaning = Meaning::Set { bytes: 2, stream: StreamAt::Arg(3) };
const RECORD: Meaning = Meaning::EventRecord { event: 0, stream: 1 };
const WAIT_EVENT: Meaning = Meaning::StreamWait { stream: 0, event: 1 };
const GRAPH: Meaning = Meaning::GraphLaunch { exec: 0, stream: 1 };
const KIND: Way = Way::Kind(3);
const STREAM_SYNC: Meaning = Meaning::Synchronize(Waits::Stream(0));
const DEVICE_SYNC: Meaning = Meaning::Synchronize(Waits::Device);
const EVENT_SYNC: Meaning = Meaning::Synchronize(Waits::Event(0));

/// Every probed function. A record's `api` is an index into this table.
///
/// `__cudaLaunchKernel` of CUDA 13 is absent on purpose: it jumps into `cudaLaunchKernel`, so a probe there would
/// count each launch twice. `_ptsz` and `_ptds` forms do not pass through the plain ones and stand beside them.
pub const CATALOG: &[Api] = &[
    launch("cudaLaunchKernel", Layer::Runtime, shape::LAUNCH_RUNTIME),
    launch("cudaLaunchKernel_ptsz", Layer::Runtime, shape::LAUNCH_RUNTIME),
    launch("cudaLaunchKernelExC", Layer::Runtime, shape::LAUNCH_RUNTIME_EX),
    launch("cudaLaunchKernelExC_ptsz", Layer::Runtime, shape::LAUNCH_RUNTIME_EX),
    launch("cudaLaunchCooperativeKernel", Layer::Runtime, shape::LAUNCH_RUNTIME),
    launch("cudaLaunchCooperativeKernel_ptsz", Layer::Runtime, shape::LAUNCH_RUNTIME),
    runtime("cudaGraphLaunch", GRAPH),
    runtime("cudaGraphLaunch_ptsz", GRAPH),
    runtime("cudaMemcpy", copy(KIND, StreamAt::Default)),
    runtime("cudaMemcpy_ptds", copy(KIND, StreamAt::Default)),
    runtime("cudaMemcpyAsync", copy(KIND, StreamAt::Arg(4))),
    runtime("cudaMemcpyAsync_ptsz", copy(KIND, StreamAt::Arg(4))),
    runtime("cudaMemset", SET),
    runtime("cudaMemset_ptds", SET),
    runtime("cudaMemsetAsync", SET_ASYNC),
    runtime("cudaMemsetAsync_ptsz", SET_ASYNC),
    runtime("cudaMalloc", Meaning::Allocate { bytes: 1 }).returning(0),
    runtime("cudaMallocAsync", Meaning::Allocate { bytes: 1 }).returning(0),
    runtime("cudaMallocAsync_ptsz", Meaning::Allocate { bytes: 1 }).returning(0),
    runtime("cudaFree", Meaning::Free { address: 0 }),
    runtime("cudaFreeAsync", Meaning::Free { address: 0 }),
    runtime("cudaFreeAsync_ptsz", Meaning::Free { address: 0 }),
    runtime("cudaStreamSynchronize", STREAM_SYNC).at_return(),
    runtime("cudaStreamSynchronize_ptsz", STREAM_SYNC).at_return(),
    runtime("cudaDeviceSynchronize", DEVICE_SYNC).at_return(),
    runtime("cudaEventRecord", RECORD),
    runtime("cudaEventRecord_ptsz", RECORD),
    runtime("cudaEventRecordWithFlags", RECORD),
    runtime("cudaEventRecordWithFlags_ptsz", RECORD),
    runtime("cudaEventSynchronize", EVENT_SYNC).at_return(),
    runtime("cudaStreamWaitEvent", WAIT_EVENT),
    runtime("cudaStreamWaitEvent_ptsz", WAIT_EVENT),
    runtime("cudaStreamBeginCapture", Meaning::BeginCapture { stream: 0 }).at_return(),
    runtime("cudaStreamBeginCapture_ptsz", Meaning::BeginCapture { stream: 0 }).at_return(),
    runtime("cudaStreamBeginCaptureToGraph", Meaning::BeginCapture { stream: 0 }).at_return(),
    runtime("cudaStreamBeginCaptureToGraph_ptsz", Meaning::BeginCapture { stream: 0 }).at_return(),
    runtime("cudaStreamEndCapture", Meaning::EndCapture { stream: 0 }).returning(1),
    runtime("cudaStreamEndCapture_ptsz", Meaning::EndCapture { stream: 0 }).returning(1),
    runtime("cudaGraphInstantiate", Meaning::Instantiate { graph: 1 }).returning(0),
    runtime("cudaGraphInstantiateWithFlags", Meaning::Instantiate { graph: 1 }).returning(0),
    runtime("cudaGraphInstantiateWithParams", Meaning::Instantiate { graph: 1 }).returning(0),
    runtime("cudaGraphInstantiateWithParams_ptsz", Meaning::Instantiate { graph: 1 }).returning(0),
    launch("cuLaunchKernel", Layer::Driver, shape::LAUNCH_DRIVER),
    launch("cuLaunchKernel_ptsz", Layer::Driver, shape::LAUNCH_DRIVER),
    launch("cuLaunchKernelEx", Layer::Driver, shape::LAUNCH_DRIVER_EX),
    launch("cuLaunchKernelEx_ptsz", Layer::Driver, shape::LAUNCH_DRIVER_EX),
    launch("cuLaunchCooperativeKernel", Layer::Driver, shape::LAUNCH_DRIVER),
    launch("cuLaunchCooperativeKernel_ptsz", Layer::Driver, shape::LAUNCH_DRIVER),
    driver("cuGraphLaunch", GRAPH),
    driver("cuGraphLaunch_ptsz", GRAPH),
    driver("cuMemcpyHtoDAsync_v2", copy(Way::Fixed(Direction::HtoD), StreamAt::Arg(3))),
    driver("cuMemcpyHtoDAsync_v2_ptsz", copy(Way::Fixed(Direction::HtoD), StreamAt::Arg(3))),
    driver("cuMemcpyDtoHAsync_v2", copy(Way::Fixed(Direction::DtoH), StreamAt::Arg(3))),
    driver("cuMemcpyDtoHAsync_v2_ptsz", copy(Way::Fixed(Direction::DtoH), StreamAt::Arg(3))),
    driver("cuMemcpyAsync", copy(Way::Fixed(Direction::Unknown), StreamAt::Arg(3))),
    driver("cuMemcpyAsync_ptsz", copy(Way::Fixed(Direction::Unknown), StreamAt::Arg(3))),
    driver("cuStreamSynchronize", STREAM_SYNC).at_return(),
    driver("cuStreamSynchronize_ptsz", STREAM_SYNC).at_return(),
    driver("cuCtxSynchronize", DEVICE_SYNC).at_return(),
    driver("cuCtxSynchronize_v2", DEVICE_SYNC).at_return(),
    driver("cuEventSynchronize", EVENT_SYNC).at_return(),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_symbol_stands_twice() {
        let names: BTreeSet<_> = CATALOG.iter().map(|api| api.symbol).collect();
        assert_eq!(names.len(), CATALOG.len());
        assert!(!names.contains("__cudaLaunchKernel"), "it jumps into cudaLaunchKernel");
    }

    #[test]
    fn what_hands_back_an_address_is_reported_at_return() {
        for api in CATALOG {
            let hands_back = matches!(
                api.meaning,
                Meaning::Allocate { .. } | Meaning::EndCapture { .. } | Meaning::Instantiate { .. }
            );
            assert_eq!(hands_back, api.out != NO_OUT, "{}", api.symbol);
            assert!(!hands_back || api.paired, "{}", api.symbol);
        }
    }

    #[test]
    fn the_page_of_probes_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/probes.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(page, markdown(), "run the tests with UPDATE=1 to renew docs/probes.md");
    }
}
