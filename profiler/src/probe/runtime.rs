//! Functions of libcudart (`cuda_runtime_api.h` 12.9 and 13.5).

use super::copy::{Direction, Size, Structure, Way};
use super::meaning::{KeyAt, Meaning, Memory, Node, StreamAt, Waits};
use super::row::{Layer, Only, Row};
use super::short::{allocate, bytes, copy, node, set};
use profiler_common::cookie::shape;

/// A function without a per-thread form.
const fn one(symbol: &'static str, meaning: Meaning) -> Row {
    Row::new(symbol, "", Layer::Runtime, meaning)
}

/// A function and its per-thread form.
macro_rules! two {
    ($symbol:literal $suffix:literal, $meaning:expr) => {
        Row::new($symbol, concat!($symbol, $suffix), Layer::Runtime, $meaning)
    };
}

const fn area(width: u8, height: u8) -> Size {
    Size::Area(width, height, 1)
}

const SYNC: StreamAt = StreamAt::Default;
const BETWEEN_DEVICES: Way = Way::Fixed(Direction::DtoD);
const CHANGED_NODE: Meaning = Meaning::ChangeNode { removes: false };

/// The rows.
pub const ROWS: &[Row] = &[
    // Launches.
    two!("cudaLaunchKernel" "_ptsz", Meaning::Launch).shape(shape::LAUNCH_RUNTIME),
    two!("cudaLaunchKernelExC" "_ptsz", Meaning::Launch).shape(shape::LAUNCH_RUNTIME_EX),
    two!("cudaLaunchCooperativeKernel" "_ptsz", Meaning::Launch).shape(shape::LAUNCH_RUNTIME),
    // cudaLaunchParams: function, grid, block, arguments, shared memory, stream (driver_types.h 12.9).
    one("cudaLaunchCooperativeKernelMultiDevice", Meaning::MultiLaunch { element: (7, 6) }).pointing(0, 28),
    two!("cudaGraphLaunch" "_ptsz", Meaning::GraphLaunch { exec: 0, stream: 1 }),
    two!("cudaLaunchHostFunc" "_ptsz", Meaning::HostFunction { stream: 0 }),
    two!("cudaLaunchHostFunc_v2" "_ptsz", Meaning::HostFunction { stream: 0 }),
    two!("cudaStreamAddCallback" "_ptsz", Meaning::HostFunction { stream: 0 }),
    // Copies.
    two!("cudaMemcpy" "_ptds", copy(bytes(2), Way::Kind(3), SYNC)),
    two!("cudaMemcpyAsync" "_ptsz", copy(bytes(2), Way::Kind(3), StreamAt::Arg(4))),
    two!("cudaMemcpy2D" "_ptds", copy(area(4, 5), Way::Kind(6), SYNC)).wide(),
    two!("cudaMemcpy2DAsync" "_ptsz", copy(area(4, 5), Way::Kind(6), StreamAt::Arg(7))).wide(),
    two!("cudaMemcpy2DToArray" "_ptds", copy(area(5, 6), Way::Kind(7), SYNC)).wide(),
    two!("cudaMemcpy2DToArrayAsync" "_ptsz", copy(area(5, 6), Way::Kind(7), StreamAt::Arg(8))).wide(),
    two!("cudaMemcpy2DFromArray" "_ptds", copy(area(5, 6), Way::Kind(7), SYNC)).wide(),
    two!("cudaMemcpy2DFromArrayAsync" "_ptsz", copy(area(5, 6), Way::Kind(7), StreamAt::Arg(8))).wide(),
    two!("cudaMemcpy2DArrayToArray" "_ptds", copy(area(6, 7), Way::Kind(8), SYNC)).wide(),
    two!("cudaMemcpyToArray" "_ptds", copy(bytes(4), Way::Kind(5), SYNC)),
    two!("cudaMemcpyToArrayAsync" "_ptsz", copy(bytes(4), Way::Kind(5), StreamAt::Arg(6))).wide(),
    two!("cudaMemcpyFromArray" "_ptds", copy(bytes(4), Way::Kind(5), SYNC)),
    two!("cudaMemcpyFromArrayAsync" "_ptsz", copy(bytes(4), Way::Kind(5), StreamAt::Arg(6))).wide(),
    two!("cudaMemcpyArrayToArray" "_ptds", copy(bytes(6), Way::Kind(7), SYNC)).wide(),
    two!("cudaMemcpy3D" "_ptds", copy(Size::In(Structure::Memcpy3D), Way::Structure, SYNC))
        .pointing(0, Structure::Memcpy3D.words()),
    two!("cudaMemcpy3DAsync" "_ptsz", copy(Size::In(Structure::Memcpy3D), Way::Structure, StreamAt::Arg(1)))
        .pointing(0, Structure::Memcpy3D.words()),
    two!("cudaMemcpy3DPeer" "_ptds", copy(Size::In(Structure::Memcpy3DPeer), BETWEEN_DEVICES, SYNC))
        .pointing(0, Structure::Memcpy3DPeer.words()),
    two!("cudaMemcpy3DPeerAsync" "_ptsz",
        copy(Size::In(Structure::Memcpy3DPeer), BETWEEN_DEVICES, StreamAt::Arg(1)))
    .pointing(0, Structure::Memcpy3DPeer.words()),
    one("cudaMemcpyPeer", copy(bytes(4), BETWEEN_DEVICES, SYNC)),
    one("cudaMemcpyPeerAsync", copy(bytes(4), BETWEEN_DEVICES, StreamAt::Arg(5))),
    two!("cudaMemcpyToSymbol" "_ptds", copy(bytes(2), Way::Kind(4), SYNC)),
    two!("cudaMemcpyToSymbolAsync" "_ptsz", copy(bytes(2), Way::Kind(4), StreamAt::Arg(5))),
    two!("cudaMemcpyFromSymbol" "_ptds", copy(bytes(2), Way::Kind(4), SYNC)),
    two!("cudaMemcpyFromSymbolAsync" "_ptsz", copy(bytes(2), Way::Kind(4), StreamAt::Arg(5))),
    // CUDA 13 left the index of the failing copy out.
    two!("cudaMemcpyBatchAsync" "_ptsz", copy(Size::Summed, Way::Structure, StreamAt::Arg(8)))
        .pointing(2, 0)
        .shape(shape::WIDE_SUM)
        .only(Only::Before13),
    two!("cudaMemcpyBatchAsync" "_ptsz", copy(Size::Summed, Way::Structure, StreamAt::Arg(7)))
        .pointing(2, 0)
        .shape(shape::WIDE_SUM)
        .only(Only::From13),
    two!("cudaMemcpy3DBatchAsync" "_ptsz", copy(Size::Summed, Way::Structure, StreamAt::Arg(4)))
        .pointing(1, 0)
        .shape(shape::WIDE_VOLUMES)
        .only(Only::Before13),
    two!("cudaMemcpy3DBatchAsync" "_ptsz", copy(Size::Summed, Way::Structure, StreamAt::Arg(3)))
        .pointing(1, 0)
        .shape(shape::WIDE_VOLUMES)
        .only(Only::From13),
    two!("cudaMemcpyWithAttributesAsync" "_ptsz", copy(bytes(2), Way::Addresses(0, 1), StreamAt::Arg(4))),
    two!("cudaMemcpy3DWithAttributesAsync" "_ptsz",
        copy(Size::In(Structure::Memcpy3DOp), Way::Structure, StreamAt::Arg(2)))
    .pointing(0, Structure::Memcpy3DOp.words()),
    // Sets.
    two!("cudaMemset" "_ptds", set(bytes(2), StreamAt::DefaultAsync)),
    two!("cudaMemsetAsync" "_ptsz", set(bytes(2), StreamAt::Arg(3))),
    two!("cudaMemset2D" "_ptds", set(area(3, 4), StreamAt::DefaultAsync)),
    two!("cudaMemset2DAsync" "_ptsz", set(area(3, 4), StreamAt::Arg(5))),
    two!("cudaMemset3D" "_ptds", set(Size::Volume(1, 2, 3), StreamAt::DefaultAsync)).shape(shape::MEMSET_3D),
    two!("cudaMemset3DAsync" "_ptsz", set(Size::Volume(1, 2, 3), StreamAt::Arg(4))).shape(shape::MEMSET_3D),
    // Memory.
    one("cudaMalloc", allocate(Memory::Device, bytes(1))).returning(0).with_caller(),
    two!("cudaMallocAsync" "_ptsz", allocate(Memory::Device, bytes(1))).returning(0).with_caller(),
    two!("cudaMallocFromPoolAsync" "_ptsz", allocate(Memory::Device, bytes(1))).returning(0).with_caller(),
    one("cudaMallocManaged", allocate(Memory::Managed, bytes(1))).returning(0).with_caller(),
    one("cudaMallocPitch", allocate(Memory::Device, Size::PitchTimes(3)))
        .returning(0)
        .second(1)
        .with_caller(),
    one("cudaMalloc3D", allocate(Memory::Device, Size::PitchTimesArea(2, 3)))
        .returning(0)
        .second_behind(0)
        .shape(shape::MALLOC_3D),
    one("cudaMallocHost", allocate(Memory::Pinned, bytes(1))).returning(0).with_caller(),
    one("cudaHostAlloc", allocate(Memory::Pinned, bytes(1))).returning(0).with_caller(),
    one("cudaHostRegister", Meaning::Allocate { kind: Memory::Pinned, size: bytes(1), key: KeyAt::Arg(0) })
        .at_return()
        .with_caller(),
    one("cudaHostUnregister", Meaning::Free { key: 0 }),
    one("cudaFree", Meaning::Free { key: 0 }),
    two!("cudaFreeAsync" "_ptsz", Meaning::Free { key: 0 }),
    one("cudaFreeHost", Meaning::Free { key: 0 }),
    // Devices and streams.
    one("cudaSetDevice", Meaning::SetDevice { device: 0 }),
    one("cudaStreamCreate", Meaning::StreamCreate).returning(0),
    one("cudaStreamCreateWithFlags", Meaning::StreamCreate).returning(0),
    one("cudaStreamCreateWithPriority", Meaning::StreamCreate).returning(0),
    one("cudaStreamDestroy", Meaning::StreamDestroy),
    // Events and waits.
    one("cudaEventCreate", Meaning::EventCreate),
    one("cudaEventCreateWithFlags", Meaning::EventCreate),
    one("cudaEventDestroy", Meaning::EventDestroy),
    two!("cudaEventRecord" "_ptsz", Meaning::EventRecord { event: 0, stream: 1 }),
    two!("cudaEventRecordWithFlags" "_ptsz", Meaning::EventRecord { event: 0, stream: 1 }),
    one("cudaEventQuery", Meaning::Query(Waits::Event(0))),
    one("cudaEventSynchronize", Meaning::Synchronize(Waits::Event(0))),
    one("cudaEventElapsedTime", Meaning::Elapsed).returning(0),
    one("cudaEventElapsedTime_v2", Meaning::Elapsed).returning(0),
    two!("cudaStreamWaitEvent" "_ptsz", Meaning::StreamWait { stream: 0, event: 1 }),
    two!("cudaStreamQuery" "_ptsz", Meaning::Query(Waits::Stream(0))),
    two!("cudaStreamSynchronize" "_ptsz", Meaning::Synchronize(Waits::Stream(0))),
    one("cudaDeviceSynchronize", Meaning::Synchronize(Waits::Device)),
    one("cudaThreadSynchronize", Meaning::Synchronize(Waits::Device)),
    one("cudaExecutionCtxSynchronize", Meaning::Synchronize(Waits::Device)),
    // Graphs.
    two!("cudaStreamBeginCapture" "_ptsz", Meaning::BeginCapture { stream: 0, into: None }),
    two!("cudaStreamBeginCaptureToGraph" "_ptsz", Meaning::BeginCapture { stream: 0, into: Some(1) }),
    two!("cudaStreamBeginRecaptureToGraph" "_ptsz", Meaning::BeginCapture { stream: 0, into: None }),
    two!("cudaStreamEndCapture" "_ptsz", Meaning::EndCapture { stream: 0 }).returning(1),
    one("cudaGraphCreate", Meaning::GraphCreate).returning(0),
    one("cudaGraphClone", Meaning::GraphClone { of: 1 }).returning(0),
    one("cudaGraphDestroy", Meaning::GraphDestroy),
    one("cudaGraphAddKernelNode", node(Node::Kernel)).returning(0).second(4),
    one(
        "cudaGraphAddMemcpyNode",
        node(Node::Copy { size: Size::In(Structure::Memcpy3D), way: Way::Structure }),
    )
    .pointing(4, Structure::Memcpy3D.words()),
    // (node, graph, dependencies, their number, destination, source, bytes, kind)
    one("cudaGraphAddMemcpyNode1D", node(Node::Copy { size: bytes(6), way: Way::Kind(7) })).wide(),
    // (node, graph, dependencies, their number, symbol, source, bytes, offset, kind)
    one("cudaGraphAddMemcpyNodeToSymbol", node(Node::Copy { size: bytes(6), way: Way::Kind(8) })).wide(),
    one("cudaGraphAddMemcpyNodeFromSymbol", node(Node::Copy { size: bytes(6), way: Way::Kind(8) })).wide(),
    one("cudaGraphAddMemsetNode", node(Node::Set(Size::In(Structure::Memset))))
        .pointing(4, Structure::Memset.words()),
    one("cudaGraphAddHostNode", node(Node::Host)),
    one("cudaGraphAddChildGraphNode", node(Node::Child(4))),
    one("cudaGraphAddEmptyNode", node(Node::Other)),
    one("cudaGraphAddEventRecordNode", node(Node::Other)),
    one("cudaGraphAddEventWaitNode", node(Node::Other)),
    one("cudaGraphAddMemAllocNode", node(Node::Other)),
    one("cudaGraphAddMemFreeNode", node(Node::Other)),
    // CUDA 13 gave the plain name to the form with edge data.
    one("cudaGraphAddNode", node(Node::Described))
        .pointing(4, Structure::GraphNode.words())
        .only(Only::Before13),
    one("cudaGraphAddNode", node(Node::Described))
        .pointing(5, Structure::GraphNode.words())
        .only(Only::From13),
    one("cudaGraphAddNode_v2", node(Node::Described)).pointing(5, Structure::GraphNode.words()),
    one("cudaGraphKernelNodeSetParams", CHANGED_NODE).at_return().second(1),
    one("cudaGraphDestroyNode", Meaning::ChangeNode { removes: true }).at_return(),
    one("cudaGraphInstantiate", Meaning::Instantiate { graph: 1 }).returning(0),
    one("cudaGraphInstantiateWithFlags", Meaning::Instantiate { graph: 1 }).returning(0),
    two!("cudaGraphInstantiateWithParams" "_ptsz", Meaning::Instantiate { graph: 1 }).returning(0),
    one("cudaGraphExecUpdate", Meaning::ExecUpdate { exec: 0, graph: 1 }).at_return(),
    one("cudaGraphExecKernelNodeSetParams", Meaning::ExecChangeNode { kernel: true }).at_return().second(2),
    one("cudaGraphExecMemcpyNodeSetParams", Meaning::ExecChangeNode { kernel: false }),
    one("cudaGraphExecMemcpyNodeSetParams1D", Meaning::ExecChangeNode { kernel: false }),
    one("cudaGraphExecMemsetNodeSetParams", Meaning::ExecChangeNode { kernel: false }),
    one("cudaGraphExecHostNodeSetParams", Meaning::ExecChangeNode { kernel: false }),
    one("cudaGraphExecChildGraphNodeSetParams", Meaning::ExecChangeNode { kernel: false }),
    one("cudaGraphExecNodeSetParams", Meaning::ExecChangeNode { kernel: false }),
    one("cudaGraphNodeSetEnabled", Meaning::ExecEnableNode).at_return(),
    one("cudaGraphExecDestroy", Meaning::ExecDestroy),
    two!("cudaGraphUpload" "_ptsz", Meaning::GraphUpload),
    // Names and code.
    one("__cudaRegisterFunction", Meaning::Registered { host: 1, name: 3 }),
    one("__cudaGetKernel", Meaning::Alias { of: 1 }).returning(0),
    one("cudaGetKernel", Meaning::Alias { of: 1 }).returning(0),
    one("cudaGetFuncBySymbol", Meaning::Alias { of: 1 }).returning(0),
    one("cudaLibraryGetKernel", Meaning::Named).naming(0, 2),
    one("cudaLibraryLoadData", Meaning::LoadModule),
    one("cudaLibraryLoadFromFile", Meaning::LoadModule),
];
