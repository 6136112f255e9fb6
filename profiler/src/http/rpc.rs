//! What is said of gRPC calls, as plain data. Deliberately absent: text, tensors and status messages.

/// A gRPC call (gRPC, `doc/PROTOCOL-HTTP2.md`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rpc {
    /// `package.Service/Method`. Empty where its path is not known.
    pub method: String,
    /// `grpc-timeout`, nanoseconds.
    pub timeout_ns: Option<u64>,
}

/// Messages of one direction of a gRPC call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Messages {
    /// Complete ones.
    pub count: u64,
    /// Their bytes, as sent, without their prefixes.
    pub bytes: u64,
    /// Some went unseen: the counts are lower bounds.
    pub lost: bool,
}

/// How a gRPC call ended.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RpcEnd {
    /// `grpc-status`. `None`: the trailers had none, did not come, or are not known.
    pub status: Option<u32>,
    /// What the client sent.
    pub request: Messages,
    /// What the server sent.
    pub response: Messages,
    /// When the first response message was complete.
    pub first_response_ns: Option<u64>,
    /// Responses that were marked as the last of their request (Triton's decoupled models).
    pub last_responses: u32,
}

/// A batch of TGI's router and shards. Zeros are what proto3 does not send.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ShardBatch {
    /// Its id.
    pub id: u64,
    /// Requests in it.
    pub size: u64,
    /// Their ids, at most 1,024.
    pub requests: Vec<u64>,
    /// Tokens in the next forward pass.
    pub current_tokens: u64,
}

/// What a shard did for one request in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ShardGeneration {
    /// The request.
    pub request: u64,
    /// Tokens generated in the step.
    pub tokens: u32,
    /// It is finished.
    pub finish: Option<ShardFinish>,
}

/// How a request of a shard finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ShardFinish {
    /// Tokens generated in all.
    pub generated_tokens: u64,
    /// 0 length, 1 end-of-sequence token, 2 stop sequence.
    pub reason: u64,
}

/// One step of a shard: a prefill or a decode.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ShardStep {
    /// By request, at most 1,024.
    pub generations: Vec<ShardGeneration>,
    /// What goes on in the next step.
    pub batch: Option<ShardBatch>,
    /// Forward pass, nanoseconds.
    pub forward_ns: u64,
    /// Choice of tokens, nanoseconds.
    pub decode_ns: u64,
    /// The whole, nanoseconds.
    pub total_ns: u64,
    /// Joining of batches, nanoseconds.
    pub concat_ns: Option<u64>,
}
