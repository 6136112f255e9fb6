//! Which processes belong to a target, and what is known about them without disturbing them.
//!
//! In: a pid. Out: the process tree under it, each process with its executable mappings, name, environment's
//! service name and open sockets. Everything is read from procfs; nothing is written, stopped or traced here.

mod context;
mod file;
mod gpu;
mod group;
mod maps;
mod model;
mod package;
mod peers;
mod process;
mod reach;
mod ring;
mod socket;
mod usage;

pub use context::{ProcessContext, process_context};
pub use file::open_regular;
pub use gpu::{Gpu, gpus, open_gpus};
pub use group::{group, role};
pub use maps::{FileId, Mapping, gpu_layer, layer, mappings};
pub use model::kv_bytes;
pub use package::{Package, package};
pub use process::{
    Identity, ProcessError, children_of, comm, created, descendants, executable, identity, is_process,
    parent_of, require, start_ticks, threads,
};
pub use reach::{InReach, StatId, in_reach};
pub use ring::{FoundRing, rings, shared_memory};
pub use socket::{
    Address, OpenSocket, has_io_uring, listener_address, listeners, listening, open_connections,
    socket_inodes,
};
pub use usage::{ProcessUse, usage};

/// A process of the target group.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// Process id in this pid namespace.
    pub pid: u32,
    /// Its short name.
    pub comm: String,
    /// How it came into the group, one of [`role`].
    #[serde(deserialize_with = "crate::interned::one")]
    pub role: crate::interned::Name,
    /// A GPU library is mapped and probed. A mapped library alone is no proof of GPU use.
    pub gpu: bool,
}
