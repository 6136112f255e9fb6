//! SGLang: what its processes tell each other over ZeroMQ, and the load that its scheduler publishes.
//!
//! ```text
//! front end ─ TokenizedGenerateReqInput, AbortReq ─► scheduler ─ BatchTokenIDOutput ─► detokenizer ─► front end
//! ```
//! In: frames that these processes send; of those that they receive only the scheduler's, where they are heard (its
//! loop spins on a receive that does not wait, and a probe there may have been taken away). Out: what was said. Facts
//! are from SGLang 0.5.23 (`sglang/srt/managers/io_struct.py`, `scheduler_components/output_streamer.py`): messages are
//! `msgspec` structs, pickled with their names by default, or positional on msgpack; the id of a request is that of the
//! response; `completion_tokens` are totals; a request that does not stream is reported every 50 tokens only.
//! Deliberately absent: beams, disaggregated prefill, and the server in Rust, in which nothing passes a queue.

mod adapter;
pub mod load;
mod message;
mod packed;
mod pickled;
mod request;
mod step;

#[cfg(test)]
mod tests;

pub use adapter::SgLang;
