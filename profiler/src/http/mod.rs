//! From the bytes of one server connection to what happened in its HTTP/1.x exchanges.
//!
//! In: chunks of both directions with their kernel byte position, and the end of the connection. Out: [`Signal`]s.
//! ```text
//! bytes ─► connection ─► head ────────────────► RequestHead, ResponseHead
//!          (gaps, FIFO)  │ (httparse, traceparent)
//!          request,      └► body (length, chunked, close)
//!          response           ├► json ─► parameters ───────────────► RequestEnd
//!                             └► payload ─► sse, ndjson ─► json ─► facts ─► Token, Fact
//! ```
//! Deliberately absent: I/O, clocks, decompression, HTTP/2, and text. Prompts and completions pass through the
//! scanner byte by byte and are never stored; memory per connection is bounded by the constants of these files.
//!
//! A gap makes the bytes behind it unknown, never guessed: a body framed by length, or a gap inside one chunk's
//! data, stays exact in framing (`lost_bytes` says that its contents are a lower bound); everything else ends the
//! exchange as partial, and reading goes on at the next head that starts a read.

mod body;
mod connection;
pub(crate) mod content;
mod dialects;
mod facts;
pub(crate) mod head;
mod json;
mod ndjson;
mod parameters;
mod paths;
mod payload;
mod request;
mod response;
mod signal;
mod sse;
mod traceparent;

pub use connection::{Connection, Direction, End, NotHttp, Verdict};
pub use signal::{
    Fact, HttpVersion, MalformedReason, Method, Outcome, Protocol, RequestEnd, RequestFacts, RequestHead,
    ResponseEnd, ResponseHead, ServerCount, ServerTime, Signal, SignalKind, Streaming, Unread, Usage,
};
pub use traceparent::TraceParent;

#[cfg(test)]
mod tests;
