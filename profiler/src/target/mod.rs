//! Which processes belong to a target, and what is known about them without disturbing them.
//!
//! In: a pid. Out: the process tree under it, each process with its executable mappings, name, environment's
//! service name and open sockets. Everything is read from procfs; nothing is written, stopped or traced here.

mod maps;
mod process;
mod reach;
mod socket;

pub use maps::{FileId, Mapping, gpu_layer, layer, mappings};
pub use process::{
    Identity, ProcessError, children_of, descendants, identity, is_process, require, start_ticks, threads,
};
pub use reach::{InReach, StatId, in_reach};
pub use socket::{Address, OpenSocket, has_io_uring, listener_address, listeners, open_connections};

/// A process of the target group.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Member {
    /// Process id in this pid namespace.
    pub pid: u32,
    /// Its short name.
    pub comm: String,
    /// `root` for the pid that was asked for, else `child`.
    pub role: &'static str,
    /// A GPU library is mapped and probed. A mapped library alone is no proof of GPU use.
    pub gpu: bool,
}
