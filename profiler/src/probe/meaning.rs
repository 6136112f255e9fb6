//! What a probed function does, and which of its arguments tell: the vocabulary of the catalogue.
//!
//! Positions of arguments count from 0. Positions from 6 on exist only in wide records.

use super::copy::{Size, Way};

/// Which stream an operation goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamAt {
    /// The handle in this argument; the call returns before the operation is done.
    Arg(u8),
    /// The default stream; the call returns when the operation is done.
    Default,
    /// The default stream; the call does not wait (sets, copies within the device).
    DefaultAsync,
}

/// What a synchronisation or query is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// The stream in this argument.
    Stream(u8),
    /// Everything on the device or context.
    Device,
    /// The event in this argument.
    Event(u8),
}

/// Kinds of memory that are accounted for by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Memory {
    /// On a device: `cudaMalloc` and its like, `cuMemCreate` with a location on a device.
    Device,
    /// Moves between host and device.
    Managed,
    /// Page-locked host memory, allocated or registered.
    Pinned,
    /// Address space without memory (`cuMemAddressReserve`).
    Reserved,
}

impl Memory {
    /// The name in summaries.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Managed => "managed",
            Self::Pinned => "pinned",
            Self::Reserved => "reserved",
        }
    }
}

/// How an allocation's key (its address or handle) is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAt {
    /// The call hands it back.
    Out,
    /// The caller gives it.
    Arg(u8),
}

/// A node of a graph that is built by calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// A kernel; its function is the second word read at return.
    Kernel,
    /// A copy.
    Copy {
        /// Size.
        size: Size,
        /// Which way.
        way: Way,
    },
    /// A fill.
    Set(Size),
    /// Another graph's nodes: the graph in this argument.
    Child(u8),
    /// A host function.
    Host,
    /// Allocation or free of memory, event, semaphore, or nothing: no work of interest.
    Other,
    /// What the [`Structure::GraphNode`] says.
    Described,
}

/// What a function does, with the positions of the arguments that tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// A function of a TLS library, which does this.
    Tls(&'static str),
    /// A function of a model server or of a library that it talks through, which does this.
    Server(&'static str),
    /// Launches one kernel; the record is a launch.
    Launch,
    /// Launches one kernel whose block was set before (`cuLaunch`, CUDA 1.x).
    LegacyLaunch {
        /// Where.
        stream: StreamAt,
    },
    /// Launches kernels described by an array of `cudaLaunchParams` or `CUDA_LAUNCH_PARAMS`.
    MultiLaunch {
        /// Words of an element, and which of them is the stream.
        element: (u8, u8),
    },
    /// Launches an executable graph.
    GraphLaunch {
        /// Argument with the executable graph.
        exec: u8,
        /// Argument with the stream.
        stream: u8,
    },
    /// Puts a host function into a stream.
    HostFunction {
        /// Argument with the stream.
        stream: u8,
    },
    /// Copies.
    Copy {
        /// How much.
        size: Size,
        /// Which way.
        way: Way,
        /// Where.
        stream: StreamAt,
    },
    /// Sets device memory.
    Set {
        /// How much.
        size: Size,
        /// Where.
        stream: StreamAt,
    },
    /// Allocates memory.
    Allocate {
        /// Of which kind.
        kind: Memory,
        /// How much.
        size: Size,
        /// What names the allocation from now on.
        key: KeyAt,
    },
    /// Allocates physical memory; its location is the second word read at return.
    Create {
        /// Argument with the size.
        bytes: u8,
    },
    /// Frees memory of any kind.
    Free {
        /// Argument with its address or handle.
        key: u8,
    },
    /// Maps or unmaps physical memory: no memory is handed out or given back.
    Map,
    /// Makes a device the thread's current one.
    SetDevice {
        /// Argument with the ordinal.
        device: u8,
    },
    /// Makes a context the thread's current one.
    SetContext {
        /// Argument with the context.
        context: u8,
    },
    /// Pushes a context on the thread's stack.
    PushContext {
        /// Argument with the context.
        context: u8,
    },
    /// Pops the thread's context.
    PopContext,
    /// A context of a device came to be; it comes back through the out argument.
    MakeContext {
        /// Argument with the device.
        device: u8,
        /// It is the thread's current one from now on.
        current: bool,
    },
    /// Waits.
    Synchronize(Waits),
    /// Asks whether work is done.
    Query(Waits),
    /// Asks how much time lies between two events; the answer comes back through the out argument.
    Elapsed,
    /// Records an event in a stream.
    EventRecord {
        /// Argument with the event.
        event: u8,
        /// Argument with the stream.
        stream: u8,
    },
    /// An event came to be.
    EventCreate,
    /// An event is gone.
    EventDestroy,
    /// Makes a stream wait for an event.
    StreamWait {
        /// Argument with the stream.
        stream: u8,
        /// Argument with the event.
        event: u8,
    },
    /// A stream came to be; it comes back through the out argument.
    StreamCreate,
    /// A stream is gone.
    StreamDestroy,
    /// From here on the stream records instead of running.
    BeginCapture {
        /// Argument with the stream.
        stream: u8,
        /// Argument with the graph that it records into, if there is one already.
        into: Option<u8>,
    },
    /// The stream runs again; the graph comes back through the out argument.
    EndCapture {
        /// Argument with the stream.
        stream: u8,
    },
    /// An empty graph; it comes back through the out argument.
    GraphCreate,
    /// A copy of a graph; it comes back through the out argument.
    GraphClone {
        /// Argument with the original.
        of: u8,
    },
    /// A graph is gone.
    GraphDestroy,
    /// Adds a node to a graph.
    AddNode {
        /// Argument with the graph.
        graph: u8,
        /// What.
        node: Node,
    },
    /// Changes a kernel node of a graph, whose new function is the second word read at return, or removes a node.
    ChangeNode {
        /// It is gone.
        removes: bool,
    },
    /// Makes an executable graph; it comes back through the out argument.
    Instantiate {
        /// Argument with the graph.
        graph: u8,
    },
    /// Changes an executable graph into another graph's likeness.
    ExecUpdate {
        /// Argument with the executable graph.
        exec: u8,
        /// Argument with the graph.
        graph: u8,
    },
    /// Changes one node of an executable graph.
    ExecChangeNode {
        /// The node is a kernel, whose function is the second word read at return.
        kernel: bool,
    },
    /// Switches a node of an executable graph on or off.
    ExecEnableNode,
    /// An executable graph is gone.
    ExecDestroy,
    /// Prepares an executable graph for its launch.
    GraphUpload,
    /// A collective or a message between devices.
    Collective {
        /// Argument with the number of elements, and the one after it with their `ncclDataType_t`.
        count: u8,
        /// Argument with the stream.
        stream: u8,
    },
    /// A communicator, or the bracket around several collectives.
    Communicator,
    /// What came back has a name, which is in the record.
    Named,
    /// What came back stands for the kernel in this argument.
    Alias {
        /// Argument with the host function or kernel.
        of: u8,
    },
    /// A host function and the address of its kernel's name.
    Registered {
        /// Argument with the host function.
        host: u8,
        /// Argument with the address of the name.
        name: u8,
    },
    /// Device code was loaded.
    LoadModule,
}

impl Meaning {
    /// For the page of probes.
    #[must_use]
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::Tls(sentence) | Self::Server(sentence) => sentence,
            Self::Launch | Self::LegacyLaunch { .. } => "launches a kernel",
            Self::MultiLaunch { .. } => "launches kernels on several devices",
            Self::GraphLaunch { .. } => "launches an executable graph",
            Self::HostFunction { .. } => "puts a host function into a stream",
            Self::Copy { .. } => "copies",
            Self::Set { .. } => "sets memory",
            Self::Allocate { kind, .. } => match kind {
                Memory::Device => "allocates device memory",
                Memory::Managed => "allocates managed memory",
                Memory::Pinned => "pins host memory",
                Memory::Reserved => "reserves addresses",
            },
            Self::Create { .. } => "allocates physical memory",
            Self::Free { .. } => "frees memory",
            Self::Map => "maps or unmaps physical memory",
            Self::SetDevice { .. } => "chooses a device",
            Self::SetContext { .. } | Self::PushContext { .. } | Self::PopContext => "chooses a context",
            Self::MakeContext { .. } => "makes a context",
            Self::Synchronize(_) => "waits",
            Self::Query(_) => "asks whether work is done",
            Self::Elapsed => "asks for the time between two events",
            Self::EventRecord { .. } => "records an event",
            Self::EventCreate => "makes an event",
            Self::EventDestroy => "destroys an event",
            Self::StreamWait { .. } => "makes a stream wait for an event",
            Self::StreamCreate => "makes a stream",
            Self::StreamDestroy => "destroys a stream",
            Self::BeginCapture { .. } => "starts to record a graph",
            Self::EndCapture { .. } => "ends the recording of a graph",
            Self::GraphCreate => "makes a graph",
            Self::GraphClone { .. } => "copies a graph",
            Self::GraphDestroy => "destroys a graph",
            Self::AddNode { .. } => "adds a node to a graph",
            Self::ChangeNode { .. } => "changes a node of a graph",
            Self::Instantiate { .. } => "makes an executable graph",
            Self::ExecUpdate { .. } => "changes an executable graph",
            Self::ExecChangeNode { .. } => "changes a node of an executable graph",
            Self::ExecEnableNode => "switches a node of an executable graph on or off",
            Self::ExecDestroy => "destroys an executable graph",
            Self::GraphUpload => "prepares an executable graph",
            Self::Collective { .. } => "communicates between devices",
            Self::Communicator => "makes or ends a communicator or a group of collectives",
            Self::Named => "tells a kernel's name",
            Self::Alias { .. } => "tells which kernel a handle stands for",
            Self::Registered { .. } => "tells a host function's kernel",
            Self::LoadModule => "loads device code",
        }
    }
}
