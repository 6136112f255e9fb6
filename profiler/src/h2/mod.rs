//! From the bytes of one server connection to what happened in its HTTP/2 streams.
//!
//! In: chunks of both directions with their kernel byte position, and the end of the connection. Out: the
//! [`Signal`](crate::http::Signal)s of `http`, whose exchange is the stream's number.
//! ```text
//! bytes ─► reader ─► frames ─► connection ─► stream ─► http::content (JSON, SSE, NDJSON) ─► Token, Fact
//!          (gaps)    │         (loss)        │    └► grpc ─► protobuf ─► Token, Fact, RpcEnd
//!                    └► hpack ─► fields ─────┴► head ─► RequestHead, ResponseHead
//! ```
//! Deliberately absent: I/O, clocks, flow control, priorities, the validity of what a peer may send when (a server does
//! that), and text.
//!
//! A gap inside the payload of a frame whose header was seen is exact in framing. Any other makes the direction unknown
//! until a read or write starts that can only be frames, and its header table until entries are inserted anew.

mod connection;
mod frame;
mod grpc;
mod head;
mod header;
mod hpack;
mod loss;
mod reader;
mod status;
mod stream;

pub use connection::{Connection, Counts};
pub use frame::{client_begins, continues, server_begins};
pub use status::{RpcStatus, status_name};

#[cfg(test)]
mod tests;
