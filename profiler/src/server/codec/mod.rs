//! Formats in which processes of a server talk to each other. All of them are read where they lie, never executed, and
//! go as far as a copy that was cut goes.

pub mod msgpack;
pub mod pickle;
pub mod zmtp;
