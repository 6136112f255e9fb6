//! What the client saw of one request.

use serde::{Deserialize, Serialize};

/// The server's own count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens of the completion.
    pub completion_tokens: u64,
}

/// One request and its answer; all times are `CLOCK_MONOTONIC` nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientRecord {
    /// From 0, in order of sending.
    pub index: usize,
    /// The client's port: with `ordinal` it identifies the exchange from both ends.
    pub local_port: u16,
    /// Ordinal of the request on its connection, from 0.
    pub ordinal: u64,
    /// Whether a streamed answer was asked for.
    pub stream: bool,
    /// Words of the prompt.
    pub prompt_words: usize,
    /// Tokens asked for.
    pub max_tokens: usize,
    /// Trace id of the `traceparent` that was sent.
    pub trace_id: Option<String>,
    /// Span id of the `traceparent` that was sent.
    pub parent_id: Option<String>,
    /// After the write of the request's last byte.
    pub sent_ns: u64,
    /// After the read that brought the first byte of the answer.
    pub first_byte_ns: Option<u64>,
    /// After the read that completed the first event with non-empty text.
    pub first_delta_ns: Option<u64>,
    /// The same for each event with non-empty text.
    pub deltas_ns: Vec<u64>,
    /// When the answer was complete, or failed.
    pub end_ns: u64,
    /// Status of the answer; 0 when there was none.
    pub status: u16,
    /// `id` in the answer.
    pub id: Option<String>,
    /// `model` in the answer.
    pub model: Option<String>,
    /// The server's count, where it gave one.
    pub usage: Option<Usage>,
    /// Why the completion ended.
    pub finish_reason: Option<String>,
    /// Bytes of text.
    pub text_bytes: u64,
    /// SSE comments.
    pub comments: u64,
    /// The stream ended with `[DONE]` or `"done":true`.
    pub done: bool,
    /// The client closed the connection on purpose.
    pub aborted: bool,
    /// What went wrong, if anything did.
    pub error: Option<String>,
}

impl ClientRecord {
    /// Status 200, complete, without an error. Servers that send no `[DONE]` (transformers) still say why they end.
    pub fn is_ok(&self) -> bool {
        self.status == 200
            && self.error.is_none()
            && !self.aborted
            && (self.done || self.finish_reason.is_some())
    }

    /// Nanoseconds from the request's last byte to the first text.
    pub fn time_to_first_token_ns(&self) -> Option<u64> {
        Some(self.first_delta_ns?.saturating_sub(self.sent_ns))
    }
}
