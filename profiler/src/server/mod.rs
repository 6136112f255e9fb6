//! What is particular to a model server: how it is recognised and which routes it has.
//!
//! Data only. The codecs that listen to a server's inside will stand here, one file per server.

pub mod known;
pub mod route;
