//! What the observer says about a connection, as plain data without any text of prompts or completions.

use super::connection::End;
use super::rpc::{Rpc, RpcEnd, ShardBatch, ShardStep};
use super::traceparent::TraceParent;

/// One thing that happened in one exchange of a connection.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Signal {
    /// When, in the clock of the bytes' times, nanoseconds.
    pub time_ns: u64,
    /// Number of the exchange on its connection, from 0, in order of its first byte seen; of HTTP/2, the stream.
    pub exchange: u32,
    /// What.
    pub kind: SignalKind,
}

/// The kinds of [`Signal`], in the order in which an exchange shows them.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum SignalKind {
    /// The first byte of a request reached the server. Told with its head, or with whatever ended it before.
    RequestStart,
    /// The head is complete.
    RequestHead(Box<RequestHead>),
    /// It is a gRPC call. Told behind its head.
    RpcStart(Box<Rpc>),
    /// The first message of a gRPC call is complete: what it says. From then on the server may work on it, whether
    /// its client sends more or not.
    RpcRequest(Box<RequestFacts>),
    /// The last byte of the request reached the server, or nothing more of it can be known.
    RequestEnd(Box<RequestEnd>),
    /// Response bytes of an exchange whose request was not seen (older than the attach, or lost). It takes the
    /// place of `RequestStart`; its outcome is [`Outcome::Partial`].
    RequestUnseen,
    /// An interim response (100, 102, 103). The exchange goes on.
    Informational {
        /// Its status.
        status: u16,
    },
    /// The first byte of the final response left the server.
    ResponseStart,
    /// The final response's head is complete.
    ResponseHead(Box<ResponseHead>),
    /// A stream's event with a non-empty delta. Not always one token: see `facts.rs`.
    Token {
        /// `choices[].index`, 0 where the dialect has none.
        choice: u32,
        /// Ordinal of the event on this response, from 1. Gaps between ordinals are events without a delta.
        event: u32,
        /// Tokens in the event, where the server listed their ids.
        token_ids: Option<u32>,
    },
    /// Something learnt from the response's body, told when new or changed.
    Fact(Fact),
    /// The client sends nothing more while this exchange awaits the end of its response: it left, or half-closed.
    InputEnded,
    /// 101, or 2xx to CONNECT: what follows on the connection is not HTTP/1 and is not read here.
    Upgraded(Protocol),
    /// The bytes are not HTTP/1 as RFC 9112 has it. Nothing more is read in that direction.
    Malformed(MalformedReason),
    /// A gRPC call is over. The end of its exchange follows.
    RpcEnd(Box<RpcEnd>),
    /// The exchange is over. Every exchange that started has exactly one.
    ResponseEnd(ResponseEnd),
}

/// Request methods of RFC 9110 and RFC 5789. Others are not told apart, as the HTTP conventions ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// DELETE.
    Delete,
    /// CONNECT.
    Connect,
    /// OPTIONS.
    Options,
    /// TRACE.
    Trace,
    /// PATCH.
    Patch,
    /// Any other token.
    Other,
}

impl Method {
    /// Every method with a name.
    pub(super) const NAMED: [(&'static str, Self); 9] = [
        ("GET", Self::Get),
        ("HEAD", Self::Head),
        ("POST", Self::Post),
        ("PUT", Self::Put),
        ("DELETE", Self::Delete),
        ("CONNECT", Self::Connect),
        ("OPTIONS", Self::Options),
        ("TRACE", Self::Trace),
        ("PATCH", Self::Patch),
    ];

    /// The value of `http.request.method`.
    pub fn as_str(self) -> &'static str {
        Self::NAMED.iter().find(|(_, method)| *method == self).map_or("_OTHER", |(name, _)| name)
    }

    pub(crate) fn from_token(token: &str) -> Self {
        Self::NAMED.iter().find(|(name, _)| *name == token).map_or(Self::Other, |(_, method)| *method)
    }
}

/// The version in a start line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum HttpVersion {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

/// What a request's head says. Texts are cut to the bounds of `head.rs`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RequestHead {
    /// Method.
    pub method: Method,
    /// Version.
    pub version: HttpVersion,
    /// Target without scheme, authority and query. Empty where it is not known (HTTP/2, when it stands in a part of
    /// the header table that was not seen).
    pub path: String,
    /// `Host` or `:authority`.
    pub host: Option<String>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// The caller's trace context, when valid.
    pub traceparent: Option<TraceParent>,
    /// All `tracestate` headers joined; only beside a valid `traceparent`.
    pub tracestate: Option<String>,
    /// `X-Request-Id`.
    pub request_id: Option<String>,
    /// `Content-Length`, bytes.
    pub content_length: Option<u64>,
}

/// What a connection carries behind an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Protocol {
    /// `Upgrade: websocket` (RFC 6455).
    WebSocket,
    /// `Upgrade: h2c` (RFC 7540, section 3.2): HTTP/2, whose stream 1 answers the request that asked for it.
    Http2,
    /// CONNECT.
    Tunnel,
    /// Another one, or none named.
    Other,
}

/// Why content was not read although its bytes were seen. Framing goes on all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Unread {
    /// A content coding that is not read, or several on top of each other.
    Coding,
    /// Its compressed bytes break the rules of their format.
    Corrupt,
    /// It unpacks to more than honest content does, or asks for more memory than it gets.
    Bomb,
    /// Compressed bytes are missing: nothing behind the gap can be unpacked.
    Gap,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RequestEnd {
    /// False when the client left, or a gap hid the end: `facts` is what was learnt before.
    pub complete: bool,
    /// Bytes of the body without framing, those in gaps included.
    pub body_bytes: u64,
    /// How many of them were not copied.
    pub lost_bytes: u64,
    /// Why content behind some place was not read though it was seen.
    pub unread: Option<Unread>,
    /// What its JSON body says.
    pub facts: RequestFacts,
}

/// Parameters of a generation request. `None` is "not said, or not seen".
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RequestFacts {
    /// The body was one JSON document, seen to its end.
    pub whole: bool,
    /// `model`, `model_name`.
    pub model: Option<String>,
    /// `model_version` of KServe's gRPC.
    pub model_version: Option<String>,
    /// `request_id` (vLLM), `rid` (SGLang) or `id` (KServe) in the body.
    pub request_id: Option<String>,
    /// `stream`.
    pub stream: Option<bool>,
    /// `stream_options.include_usage`.
    pub include_usage: Option<bool>,
    /// `echo`: the first delta repeats the prompt.
    pub echo: Option<bool>,
    /// `max_tokens` and its names in other dialects. Negative (llama.cpp's "no limit") is left out.
    pub max_tokens: Option<u64>,
    /// `n`: completions per prompt.
    pub n: Option<u64>,
    /// `temperature`.
    pub temperature: Option<f64>,
    /// `top_p`.
    pub top_p: Option<f64>,
    /// `top_k`. Negative ("off") is left out.
    pub top_k: Option<u64>,
    /// `frequency_penalty`.
    pub frequency_penalty: Option<f64>,
    /// `presence_penalty`.
    pub presence_penalty: Option<f64>,
    /// Items of `messages`.
    pub messages_count: Option<u32>,
    /// Prompts in `prompt`, `input`, `inputs` or `text`: 1 for a text or a list of token ids, else the items.
    pub prompt_count: Option<u32>,
    /// Token ids given as the prompt.
    pub prompt_token_ids: Option<u32>,
    /// Items of `tools`.
    pub tools_count: Option<u32>,
}

/// How a response's body is streamed, by its content type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Streaming {
    /// One document.
    #[default]
    None,
    /// Server-sent events.
    Sse,
    /// One JSON document per line.
    NdJson,
}

/// What a response's head says.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ResponseHead {
    /// Status.
    pub status: u16,
    /// By the content type.
    pub streaming: Streaming,
    /// The body is of a kind, or compressed in a way, that is not read: its framing and times are known, its tokens and
    /// facts are not.
    pub opaque: bool,
    /// `X-Request-Id`.
    pub request_id: Option<String>,
    /// `Content-Length`, bytes.
    pub content_length: Option<u64>,
}

/// Token counts in a response, as reported; with continuous usage they grow with every event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub input: Option<u64>,
    /// Tokens generated.
    pub output: Option<u64>,
    /// Prompt tokens served from a cache (Anthropic reports them beside `input`, the others inside it).
    pub cached: Option<u64>,
    /// Generated tokens that were reasoning.
    pub reasoning: Option<u64>,
}

/// Counts that only one server family reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ServerCount {
    /// Ollama `prompt_eval_count`.
    PromptEvalCount,
    /// Ollama `eval_count`.
    EvalCount,
    /// llama.cpp `timings.prompt_n`: prompt tokens evaluated, without cached ones.
    PromptN,
    /// llama.cpp `timings.predicted_n`.
    PredictedN,
    /// llama.cpp `timings.cache_n`.
    CacheN,
    /// llama.cpp `timings.draft_n`.
    DraftN,
    /// llama.cpp `tokens_evaluated`: prompt tokens, cached ones included.
    TokensEvaluated,
    /// llama.cpp `tokens_predicted`.
    TokensPredicted,
    /// llama.cpp `tokens_cached`.
    TokensCached,
    /// llama.cpp `id_slot`: the slot is the `seq_id` in its batches.
    IdSlot,
    /// TGI `details.generated_tokens`.
    GeneratedTokens,
}

/// Durations that only one server family reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ServerTime {
    /// Ollama `load_duration`.
    Load,
    /// Ollama `prompt_eval_duration`, llama.cpp `timings.prompt_ms`.
    Prompt,
    /// Ollama `eval_duration`, llama.cpp `timings.predicted_ms`.
    Predicted,
    /// Ollama `total_duration`.
    Total,
}

/// Something that a response's body says.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Fact {
    /// `id`.
    Id(String),
    /// `model`.
    Model(String),
    /// Token counts so far.
    Usage(Usage),
    /// Why a choice ended.
    FinishReason {
        /// `choices[].index`, 0 where the dialect has none.
        choice: u32,
        /// As the server names it.
        reason: String,
    },
    /// A count of one server family.
    Count(ServerCount, u64),
    /// A duration of one server family, nanoseconds.
    Time(ServerTime, u64),
    /// What TGI's router asks a shard to work on, or keeps of it.
    ShardBatches(Vec<ShardBatch>),
    /// What a shard of TGI did.
    ShardStep(Box<ShardStep>),
    /// The body is or has an error, also after a 200. Messages may quote a prompt and are never kept.
    Error {
        /// Its type.
        kind: Option<String>,
        /// Its code.
        code: Option<String>,
    },
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Outcome {
    /// The response's framing ended.
    Complete,
    /// The connection ended first; `EndOfInput` when the client was the first to go.
    Truncated(End),
    /// The server did not process it, and said so: `REFUSED_STREAM`, or a GOAWAY below it (RFC 9113, section 8.7).
    Refused,
    /// A gap, or an attach in its middle, hides a part of the request or of the response.
    Partial,
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ResponseEnd {
    /// How.
    pub outcome: Outcome,
    /// Bytes of the body without framing, those in gaps included.
    pub body_bytes: u64,
    /// How many of them were not copied: when not 0, tokens and events are lower bounds.
    pub lost_bytes: u64,
    /// Why content behind some place was not read though it was seen: tokens and events are lower bounds then too.
    pub unread: Option<Unread>,
    /// Events with data (SSE) or lines (NDJSON).
    pub events: u32,
    /// The dialect's own end mark was seen: `[DONE]`, `message_stop`, `response.completed`, `done`, `stop`. Not a
    /// sign of success: vLLM sends `[DONE]` after an error too.
    pub saw_done: bool,
}

/// What was not HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum MalformedReason {
    /// The request's start line or headers.
    RequestHead,
    /// The response's start line or headers (also obsolete line folding).
    ResponseHead,
    /// A head larger than 64 KiB or with more than 128 headers.
    HeadTooLarge,
    /// Content-Length values that are no number or contradict each other, or an unknown Transfer-Encoding.
    Length,
    /// A chunk size, a chunk's end or trailers.
    Chunk,
    /// More unanswered pipelined requests than are kept.
    Pipeline,
    /// A frame or a header block that HTTP/2 does not allow (RFC 9113, RFC 7541).
    Frame,
}
