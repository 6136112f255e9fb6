//! Functions of libcuda (`cuda.h` 12.9 and 13.5).
//!
//! Forms without `_v2` whose sizes were 32 bits wide (CUDA 3.1 and before) are absent: nothing built since links them.

use super::copy::{Direction, Size, Structure, Way};
use super::meaning::{KeyAt, Meaning, Memory, Node, StreamAt, Waits};
use super::row::{Layer, Row};
use super::short::{allocate, bytes, copy, node, set};
use profiler_common::cookie::shape;

/// A function without a per-thread form.
const fn one(symbol: &'static str, meaning: Meaning) -> Row {
    Row::new(symbol, "", Layer::Driver, meaning)
}

/// A function and its per-thread form.
macro_rules! two {
    ($symbol:literal $suffix:literal, $meaning:expr) => {
        Row::new($symbol, concat!($symbol, $suffix), Layer::Driver, $meaning)
    };
}

const SYNC: StreamAt = StreamAt::Default;
const ASYNC: StreamAt = StreamAt::DefaultAsync;
const H_TO_D: Way = Way::Fixed(Direction::HtoD);
const D_TO_H: Way = Way::Fixed(Direction::DtoH);
const D_TO_D: Way = Way::Fixed(Direction::DtoD);
const PLANE: Size = Size::In(Structure::DriverMemcpy2D);
const PLANE_WORDS: u8 = Structure::DriverMemcpy2D.words();
const SPACE: Size = Size::In(Structure::DriverMemcpy3D);
const SPACE_WORDS: u8 = Structure::DriverMemcpy3D.words();
const NODE_WORDS: u8 = Structure::GraphNode.words();

/// The rows.
pub const ROWS: &[Row] = &[
    // Launches.
    two!("cuLaunchKernel" "_ptsz", Meaning::Launch).shape(shape::LAUNCH_DRIVER),
    two!("cuLaunchKernelEx" "_ptsz", Meaning::Launch).shape(shape::LAUNCH_DRIVER_EX),
    two!("cuLaunchCooperativeKernel" "_ptsz", Meaning::Launch).shape(shape::LAUNCH_DRIVER),
    // CUDA_LAUNCH_PARAMS: function, six sizes, shared memory, stream, arguments (cuda.h).
    one("cuLaunchCooperativeKernelMultiDevice", Meaning::MultiLaunch { element: (7, 5) }).pointing(0, 28),
    one("cuLaunch", Meaning::LegacyLaunch { stream: ASYNC }),
    one("cuLaunchGrid", Meaning::LegacyLaunch { stream: ASYNC }),
    one("cuLaunchGridAsync", Meaning::LegacyLaunch { stream: StreamAt::Arg(3) }),
    two!("cuGraphLaunch" "_ptsz", Meaning::GraphLaunch { exec: 0, stream: 1 }),
    two!("cuLaunchHostFunc" "_ptsz", Meaning::HostFunction { stream: 0 }),
    two!("cuLaunchHostFunc_v2" "_ptsz", Meaning::HostFunction { stream: 0 }),
    two!("cuStreamAddCallback" "_ptsz", Meaning::HostFunction { stream: 0 }),
    // Copies.
    two!("cuMemcpy" "_ptds", copy(bytes(2), Way::Addresses(0, 1), SYNC)),
    two!("cuMemcpyAsync" "_ptsz", copy(bytes(2), Way::Addresses(0, 1), StreamAt::Arg(3))),
    two!("cuMemcpyHtoD_v2" "_ptds", copy(bytes(2), H_TO_D, SYNC)),
    two!("cuMemcpyHtoDAsync_v2" "_ptsz", copy(bytes(2), H_TO_D, StreamAt::Arg(3))),
    two!("cuMemcpyDtoH_v2" "_ptds", copy(bytes(2), D_TO_H, SYNC)),
    two!("cuMemcpyDtoHAsync_v2" "_ptsz", copy(bytes(2), D_TO_H, StreamAt::Arg(3))),
    two!("cuMemcpyDtoD_v2" "_ptds", copy(bytes(2), D_TO_D, ASYNC)),
    two!("cuMemcpyDtoDAsync_v2" "_ptsz", copy(bytes(2), D_TO_D, StreamAt::Arg(3))),
    two!("cuMemcpyAtoD_v2" "_ptds", copy(bytes(3), D_TO_D, ASYNC)),
    two!("cuMemcpyDtoA_v2" "_ptds", copy(bytes(3), D_TO_D, ASYNC)),
    two!("cuMemcpyAtoA_v2" "_ptds", copy(bytes(4), D_TO_D, ASYNC)),
    two!("cuMemcpyAtoH_v2" "_ptds", copy(bytes(3), D_TO_H, SYNC)),
    two!("cuMemcpyAtoHAsync_v2" "_ptsz", copy(bytes(3), D_TO_H, StreamAt::Arg(4))),
    two!("cuMemcpyHtoA_v2" "_ptds", copy(bytes(3), H_TO_D, SYNC)),
    two!("cuMemcpyHtoAAsync_v2" "_ptsz", copy(bytes(3), H_TO_D, StreamAt::Arg(4))),
    two!("cuMemcpyPeer" "_ptds", copy(bytes(4), D_TO_D, SYNC)),
    two!("cuMemcpyPeerAsync" "_ptsz", copy(bytes(4), D_TO_D, StreamAt::Arg(5))),
    two!("cuMemcpy2D_v2" "_ptds", copy(PLANE, Way::Structure, SYNC)).pointing(0, PLANE_WORDS),
    two!("cuMemcpy2DUnaligned_v2" "_ptds", copy(PLANE, Way::Structure, SYNC)).pointing(0, PLANE_WORDS),
    two!("cuMemcpy2DAsync_v2" "_ptsz", copy(PLANE, Way::Structure, StreamAt::Arg(1)))
        .pointing(0, PLANE_WORDS),
    two!("cuMemcpy3D_v2" "_ptds", copy(SPACE, Way::Structure, SYNC)).pointing(0, SPACE_WORDS),
    two!("cuMemcpy3DAsync_v2" "_ptsz", copy(SPACE, Way::Structure, StreamAt::Arg(1)))
        .pointing(0, SPACE_WORDS),
    two!("cuMemcpy3DPeer" "_ptds", copy(SPACE, Way::Structure, SYNC)).pointing(0, SPACE_WORDS),
    two!("cuMemcpy3DPeerAsync" "_ptsz", copy(SPACE, Way::Structure, StreamAt::Arg(1)))
        .pointing(0, SPACE_WORDS),
    two!("cuMemcpyBatchAsync" "_ptsz", copy(Size::Summed, Way::Structure, StreamAt::Arg(8)))
        .pointing(2, 0)
        .shape(shape::WIDE_SUM),
    two!("cuMemcpyBatchAsync_v2" "_ptsz", copy(Size::Summed, Way::Structure, StreamAt::Arg(7)))
        .pointing(2, 0)
        .shape(shape::WIDE_SUM),
    two!("cuMemcpy3DBatchAsync" "_ptsz", copy(Size::Summed, Way::Structure, StreamAt::Arg(4)))
        .pointing(1, 0)
        .shape(shape::WIDE_VOLUMES),
    two!("cuMemcpy3DBatchAsync_v2" "_ptsz", copy(Size::Summed, Way::Structure, StreamAt::Arg(3)))
        .pointing(1, 0)
        .shape(shape::WIDE_VOLUMES),
    two!("cuMemcpyWithAttributesAsync" "_ptsz", copy(bytes(2), Way::Addresses(0, 1), StreamAt::Arg(4))),
    two!("cuMemcpy3DWithAttributesAsync" "_ptsz",
        copy(Size::In(Structure::Memcpy3DOp), Way::Structure, StreamAt::Arg(2)))
    .pointing(0, Structure::Memcpy3DOp.words()),
    // Sets.
    two!("cuMemsetD8_v2" "_ptds", set(Size::Arg(2, 1), ASYNC)),
    two!("cuMemsetD16_v2" "_ptds", set(Size::Arg(2, 2), ASYNC)),
    two!("cuMemsetD32_v2" "_ptds", set(Size::Arg(2, 4), ASYNC)),
    two!("cuMemsetD8Async" "_ptsz", set(Size::Arg(2, 1), StreamAt::Arg(3))),
    two!("cuMemsetD16Async" "_ptsz", set(Size::Arg(2, 2), StreamAt::Arg(3))),
    two!("cuMemsetD32Async" "_ptsz", set(Size::Arg(2, 4), StreamAt::Arg(3))),
    two!("cuMemsetD2D8_v2" "_ptds", set(Size::Area(3, 4, 1), ASYNC)),
    two!("cuMemsetD2D16_v2" "_ptds", set(Size::Area(3, 4, 2), ASYNC)),
    two!("cuMemsetD2D32_v2" "_ptds", set(Size::Area(3, 4, 4), ASYNC)),
    two!("cuMemsetD2D8Async" "_ptsz", set(Size::Area(3, 4, 1), StreamAt::Arg(5))),
    two!("cuMemsetD2D16Async" "_ptsz", set(Size::Area(3, 4, 2), StreamAt::Arg(5))),
    two!("cuMemsetD2D32Async" "_ptsz", set(Size::Area(3, 4, 4), StreamAt::Arg(5))),
    // Memory.
    one("cuMemAlloc_v2", allocate(Memory::Device, bytes(1))).returning(0),
    two!("cuMemAllocAsync" "_ptsz", allocate(Memory::Device, bytes(1))).returning(0),
    two!("cuMemAllocFromPoolAsync" "_ptsz", allocate(Memory::Device, bytes(1))).returning(0),
    one("cuMemAllocManaged", allocate(Memory::Managed, bytes(1))).returning(0),
    one("cuMemAllocPitch_v2", allocate(Memory::Device, Size::PitchTimes(3))).returning(0).second(1),
    one("cuMemAllocHost_v2", allocate(Memory::Pinned, bytes(1))).returning(0),
    one("cuMemHostAlloc", allocate(Memory::Pinned, bytes(1))).returning(0),
    one(
        "cuMemHostRegister_v2",
        Meaning::Allocate { kind: Memory::Pinned, size: bytes(1), key: KeyAt::Arg(0) },
    )
    .at_return(),
    one("cuMemHostUnregister", Meaning::Free { key: 0 }),
    one("cuMemFree_v2", Meaning::Free { key: 0 }),
    two!("cuMemFreeAsync" "_ptsz", Meaning::Free { key: 0 }),
    one("cuMemFreeHost", Meaning::Free { key: 0 }),
    // CUmemAllocationProp: type and handle types in 8 bytes, then the location's type and id.
    one("cuMemCreate", Meaning::Create { bytes: 1 }).returning(0).second_behind(2),
    one("cuMemRelease", Meaning::Free { key: 0 }),
    one("cuMemAddressReserve", allocate(Memory::Reserved, bytes(1))).returning(0),
    one("cuMemAddressFree", Meaning::Free { key: 0 }),
    one("cuMemMap", Meaning::Map),
    one("cuMemUnmap", Meaning::Map),
    // Contexts and streams.
    one("cuCtxSetCurrent", Meaning::SetContext { context: 0 }),
    one("cuCtxPushCurrent_v2", Meaning::PushContext { context: 0 }),
    one("cuCtxPopCurrent_v2", Meaning::PopContext),
    one("cuDevicePrimaryCtxRetain", Meaning::MakeContext { device: 1, current: false }).returning(0),
    one("cuCtxCreate_v2", Meaning::MakeContext { device: 2, current: true }).returning(0),
    one("cuCtxCreate_v3", Meaning::MakeContext { device: 4, current: true }).returning(0),
    one("cuCtxCreate_v4", Meaning::MakeContext { device: 3, current: true }).returning(0),
    one("cuStreamCreate", Meaning::StreamCreate).returning(0),
    one("cuStreamCreateWithPriority", Meaning::StreamCreate).returning(0),
    one("cuStreamDestroy_v2", Meaning::StreamDestroy),
    // Events and waits.
    one("cuEventCreate", Meaning::EventCreate),
    one("cuEventDestroy_v2", Meaning::EventDestroy),
    two!("cuEventRecord" "_ptsz", Meaning::EventRecord { event: 0, stream: 1 }),
    two!("cuEventRecordWithFlags" "_ptsz", Meaning::EventRecord { event: 0, stream: 1 }),
    one("cuEventQuery", Meaning::Query(Waits::Event(0))),
    one("cuEventSynchronize", Meaning::Synchronize(Waits::Event(0))),
    one("cuEventElapsedTime", Meaning::Elapsed).returning(0),
    one("cuEventElapsedTime_v2", Meaning::Elapsed).returning(0),
    two!("cuStreamWaitEvent" "_ptsz", Meaning::StreamWait { stream: 0, event: 1 }),
    two!("cuStreamQuery" "_ptsz", Meaning::Query(Waits::Stream(0))),
    two!("cuStreamSynchronize" "_ptsz", Meaning::Synchronize(Waits::Stream(0))),
    one("cuCtxSynchronize", Meaning::Synchronize(Waits::Device)),
    one("cuCtxSynchronize_v2", Meaning::Synchronize(Waits::Device)),
    // Graphs.
    two!("cuStreamBeginCapture" "_ptsz", Meaning::BeginCapture { stream: 0, into: None }),
    two!("cuStreamBeginCapture_v2" "_ptsz", Meaning::BeginCapture { stream: 0, into: None }),
    two!("cuStreamBeginCaptureToGraph" "_ptsz", Meaning::BeginCapture { stream: 0, into: Some(1) }),
    two!("cuStreamBeginRecaptureToGraph" "_ptsz", Meaning::BeginCapture { stream: 0, into: None }),
    two!("cuStreamEndCapture" "_ptsz", Meaning::EndCapture { stream: 0 }).returning(1),
    one("cuGraphCreate", Meaning::GraphCreate).returning(0),
    one("cuGraphClone", Meaning::GraphClone { of: 1 }).returning(0),
    one("cuGraphDestroy", Meaning::GraphDestroy),
    one("cuGraphAddKernelNode", node(Node::Kernel)).returning(0).second(4),
    one("cuGraphAddKernelNode_v2", node(Node::Kernel)).returning(0).second(4),
    one("cuGraphAddMemcpyNode", node(Node::Copy { size: SPACE, way: Way::Structure }))
        .pointing(4, SPACE_WORDS),
    one("cuGraphAddMemsetNode", node(Node::Set(Size::In(Structure::Memset))))
        .pointing(4, Structure::Memset.words()),
    one("cuGraphAddHostNode", node(Node::Host)),
    one("cuGraphAddChildGraphNode", node(Node::Child(4))),
    one("cuGraphAddEmptyNode", node(Node::Other)),
    one("cuGraphAddEventRecordNode", node(Node::Other)),
    one("cuGraphAddEventWaitNode", node(Node::Other)),
    one("cuGraphAddMemAllocNode", node(Node::Other)),
    one("cuGraphAddMemFreeNode", node(Node::Other)),
    one("cuGraphAddBatchMemOpNode", node(Node::Other)),
    one("cuGraphAddNode", node(Node::Described)).pointing(4, NODE_WORDS),
    one("cuGraphAddNode_v2", node(Node::Described)).pointing(5, NODE_WORDS),
    one("cuGraphKernelNodeSetParams", Meaning::ChangeNode { removes: false }).at_return().second(1),
    one("cuGraphKernelNodeSetParams_v2", Meaning::ChangeNode { removes: false }).at_return().second(1),
    one("cuGraphDestroyNode", Meaning::ChangeNode { removes: true }).at_return(),
    one("cuGraphInstantiate", Meaning::Instantiate { graph: 1 }).returning(0),
    one("cuGraphInstantiate_v2", Meaning::Instantiate { graph: 1 }).returning(0),
    one("cuGraphInstantiateWithFlags", Meaning::Instantiate { graph: 1 }).returning(0),
    two!("cuGraphInstantiateWithParams" "_ptsz", Meaning::Instantiate { graph: 1 }).returning(0),
    one("cuGraphExecUpdate", Meaning::ExecUpdate { exec: 0, graph: 1 }).at_return(),
    one("cuGraphExecUpdate_v2", Meaning::ExecUpdate { exec: 0, graph: 1 }).at_return(),
    one("cuGraphExecKernelNodeSetParams", Meaning::ExecChangeNode { kernel: true }).at_return().second(2),
    one("cuGraphExecKernelNodeSetParams_v2", Meaning::ExecChangeNode { kernel: true }).at_return().second(2),
    one("cuGraphExecMemcpyNodeSetParams", Meaning::ExecChangeNode { kernel: false }),
    one("cuGraphExecMemsetNodeSetParams", Meaning::ExecChangeNode { kernel: false }),
    one("cuGraphExecHostNodeSetParams", Meaning::ExecChangeNode { kernel: false }),
    one("cuGraphExecChildGraphNodeSetParams", Meaning::ExecChangeNode { kernel: false }),
    one("cuGraphExecNodeSetParams", Meaning::ExecChangeNode { kernel: false }),
    one("cuGraphNodeSetEnabled", Meaning::ExecEnableNode).at_return(),
    one("cuGraphExecDestroy", Meaning::ExecDestroy),
    two!("cuGraphUpload" "_ptsz", Meaning::GraphUpload),
    // Names and code.
    one("cuModuleGetFunction", Meaning::Named).naming(0, 2),
    one("cuLibraryGetKernel", Meaning::Named).naming(0, 2),
    one("cuKernelGetFunction", Meaning::Alias { of: 1 }).returning(0),
    one("cuModuleLoad", Meaning::LoadModule),
    one("cuModuleLoadData", Meaning::LoadModule),
    one("cuModuleLoadDataEx", Meaning::LoadModule),
    one("cuModuleLoadFatBinary", Meaning::LoadModule),
    one("cuLibraryLoadData", Meaning::LoadModule),
    one("cuLibraryLoadFromFile", Meaning::LoadModule),
];
