//! Functions of libnccl (`nccl.h` 2.32): collectives with their sizes.
//!
//! The kernels that a collective launches are seen as launches, in the driver or in the runtime that libnccl has
//! linked in; these rows say what they are for.

use super::meaning::Meaning;
use super::row::{Layer, Row};

const fn nccl(symbol: &'static str, meaning: Meaning) -> Row {
    Row::new(symbol, "", Layer::Nccl, meaning)
}

/// `…(…, count, datatype, …, stream)`.
const fn collective(symbol: &'static str, count: u8, stream: u8) -> Row {
    nccl(symbol, Meaning::Collective { count, stream }).wide()
}

const COMMUNICATOR: Meaning = Meaning::Communicator;

/// The rows.
pub const ROWS: &[Row] = &[
    // (sendbuff, recvbuff, count, datatype, op, comm, stream)
    collective("ncclAllReduce", 2, 6),
    collective("ncclReduceScatter", 2, 6),
    // (sendbuff, recvbuff, count, datatype, op, root, comm, stream)
    collective("ncclReduce", 2, 7),
    // (sendbuff, recvbuff, count, datatype, root, comm, stream)
    collective("ncclBroadcast", 2, 6),
    collective("ncclGather", 2, 6),
    collective("ncclScatter", 2, 6),
    // (buff, count, datatype, root, comm, stream)
    collective("ncclBcast", 1, 5),
    // (sendbuff, recvbuff, sendcount, datatype, comm, stream)
    collective("ncclAllGather", 2, 5),
    collective("ncclAlltoAll", 2, 5),
    // (buff, count, datatype, peer, comm, stream)
    collective("ncclSend", 1, 5),
    collective("ncclRecv", 1, 5),
    // The same with a configuration at the end.
    collective("ncclAllReduceConfig", 2, 6),
    collective("ncclReduceScatterConfig", 2, 6),
    collective("ncclReduceConfig", 2, 7),
    collective("ncclBroadcastConfig", 2, 6),
    collective("ncclGatherConfig", 2, 6),
    collective("ncclScatterConfig", 2, 6),
    collective("ncclAllGatherConfig", 2, 5),
    collective("ncclAlltoAllConfig", 2, 5),
    // (localbuff, count, datatype, peer, window, offset, signal, context, flags, comm, stream)
    collective("ncclPutSignal", 1, 10),
    nccl("ncclSignal", COMMUNICATOR),
    nccl("ncclWaitSignal", COMMUNICATOR),
    nccl("ncclGroupStart", COMMUNICATOR),
    nccl("ncclGroupEnd", COMMUNICATOR),
    nccl("ncclCommInitRank", COMMUNICATOR),
    nccl("ncclCommInitRankConfig", COMMUNICATOR),
    nccl("ncclCommInitAll", COMMUNICATOR),
    nccl("ncclCommSplit", COMMUNICATOR),
    nccl("ncclCommDestroy", COMMUNICATOR),
    nccl("ncclCommAbort", COMMUNICATOR),
];
