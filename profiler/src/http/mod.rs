//! From the bytes of one server connection to what happened in its HTTP/1.x exchanges.
//!
//! In: chunks of both directions with their kernel byte position, and the end of the connection. Out: [`Signal`]s.
//! ```text
//! bytes ─► connection ─► head ────────────────► RequestHead, ResponseHead
//!          (gaps, FIFO)  │ (httparse, traceparent)
//!          request,      └► body (length, chunked, close)
//!          response           └► content ─► coding (gzip, deflate, br)
//!                                  ├► document ─► json ─► parameters ─────────► RequestEnd
//!                                  └► payload ─► sse, ndjson, document ─► json ─► facts ─► Token, Fact
//! ```
//! Deliberately absent: I/O, clocks, HTTP/2 (`content` serves it too), and text. Prompts and completions pass through
//! the scanner byte by byte and are never stored; the last 4 KiB of a document with a hole wait for its end, see
//! `document`. Memory per connection is bounded by the constants of these files.
//!
//! A gap makes the bytes behind it unknown, never guessed. A body framed by length, or a gap inside one chunk's data,
//! stays exact in framing (`lost_bytes` says that its contents are a lower bound). A gap inside one system call that
//! hides where chunks lie leaves the body adrift until a write begins with a chunk, or ends with the last one. Records
//! that never came may have held other messages: they end the exchange as partial, and reading goes on at the next
//! head that starts a read.

mod body;
mod coding;
mod connection;
pub(crate) mod content;
mod dialects;
mod document;
mod facts;
pub(crate) mod head;
mod json;
mod ndjson;
mod parameters;
mod paths;
mod payload;
mod request;
mod response;
mod rpc;
mod signal;
mod sse;
mod traceparent;
mod trailer;

pub use connection::{Connection, Direction, End, NotHttp, Upgrade, Verdict};
pub use rpc::{Messages, Rpc, RpcEnd, ShardBatch, ShardFinish, ShardGeneration, ShardStep};
pub use signal::{
    Fact, HttpVersion, MalformedReason, Method, Outcome, Protocol, RequestEnd, RequestFacts, RequestHead,
    ResponseEnd, ResponseHead, ServerCount, ServerTime, Signal, SignalKind, Streaming, Unread, Usage,
};
pub use traceparent::TraceParent;

#[cfg(test)]
mod tests;
