//! The fields of messages that are asked for, by their numbers.
//!
//! KServe and Triton: `inference.GRPCInferenceService`, triton-inference-server/common,
//! `protobuf/grpc_service.proto`, which goes on from KServe's `open_inference_grpc.proto` (same numbers). TGI between
//! router and shards: `generate.v3.TextGenerationService`, huggingface/text-generation-inference,
//! `proto/v3/generate.proto`. Deliberately absent: tensors, prompts, generated text.

use super::protobuf::{Rule, Want};

/// What a field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Model,
    ModelVersion,
    Id,
    /// A parameter: a map's entry.
    Parameter,
    ParameterName,
    ParameterValue,
    ParameterBool,
    /// An output tensor, or its content.
    Output,
    Response,
    Error,
    Batch,
    BatchId,
    BatchSize,
    BatchRequest,
    BatchRequestId,
    BatchTokens,
    Generation,
    GenerationRequest,
    Tokens,
    TokenId,
    Finished,
    FinishedTokens,
    FinishReason,
    ForwardNs,
    DecodeNs,
    TotalNs,
    ConcatNs,
}

const fn rule(number: u64, want: Want<Field>) -> Rule<Field> {
    Rule { number, want }
}

/// `ModelInferRequest`.
const INFER_REQUEST: &[Rule<Field>] = &[
    rule(1, Want::Text(Field::Model)),
    rule(2, Want::Text(Field::ModelVersion)),
    rule(3, Want::Text(Field::Id)),
];

/// An entry of `map<string, InferParameter>`.
const PARAMETER: &[Rule<Field>] = &[
    rule(1, Want::Text(Field::ParameterName)),
    rule(2, Want::Message(Field::ParameterValue, &[rule(1, Want::Number(Field::ParameterBool))])),
];

/// `ModelInferResponse`.
const INFER_RESPONSE: &[Rule<Field>] = &[
    rule(1, Want::Text(Field::Model)),
    rule(2, Want::Text(Field::ModelVersion)),
    rule(3, Want::Text(Field::Id)),
    rule(4, Want::Message(Field::Parameter, PARAMETER)),
    rule(5, Want::Filled(Field::Output)),
    rule(6, Want::Filled(Field::Output)),
];

/// `ModelStreamInferResponse`.
const STREAM_RESPONSE: &[Rule<Field>] =
    &[rule(1, Want::Filled(Field::Error)), rule(2, Want::Message(Field::Response, INFER_RESPONSE))];

/// `Batch`, with the ids of its requests.
const BATCH: &[Rule<Field>] = &[
    rule(1, Want::Number(Field::BatchId)),
    rule(2, Want::Message(Field::BatchRequest, &[rule(1, Want::Number(Field::BatchRequestId))])),
    rule(3, Want::Number(Field::BatchSize)),
];

/// `CachedBatch`.
const CACHED_BATCH: &[Rule<Field>] = &[
    rule(1, Want::Number(Field::BatchId)),
    rule(2, Want::Number(Field::BatchRequestId)),
    rule(3, Want::Number(Field::BatchSize)),
    rule(5, Want::Number(Field::BatchTokens)),
];

/// `PrefillRequest`.
const PREFILL_REQUEST: &[Rule<Field>] =
    &[rule(1, Want::Message(Field::Batch, BATCH)), rule(2, Want::Message(Field::Batch, CACHED_BATCH))];

/// `DecodeRequest`, and `FilterBatchResponse`.
const BATCHES: &[Rule<Field>] = &[rule(1, Want::Message(Field::Batch, CACHED_BATCH))];

/// `FilterBatchRequest`.
const FILTER_REQUEST: &[Rule<Field>] =
    &[rule(1, Want::Number(Field::BatchId)), rule(2, Want::Number(Field::BatchRequestId))];

/// `PrefillResponse` and `DecodeResponse`.
const STEP_RESPONSE: &[Rule<Field>] = &[
    rule(
        1,
        Want::Message(
            Field::Generation,
            &[
                rule(1, Want::Number(Field::GenerationRequest)),
                rule(3, Want::Message(Field::Tokens, &[rule(1, Want::Number(Field::TokenId))])),
                rule(
                    4,
                    Want::Message(
                        Field::Finished,
                        &[
                            rule(2, Want::Number(Field::FinishedTokens)),
                            rule(3, Want::Number(Field::FinishReason)),
                        ],
                    ),
                ),
            ],
        ),
    ),
    rule(2, Want::Message(Field::Batch, CACHED_BATCH)),
    rule(3, Want::Number(Field::ForwardNs)),
    rule(4, Want::Number(Field::DecodeNs)),
    rule(5, Want::Number(Field::TotalNs)),
    rule(6, Want::Number(Field::ConcatNs)),
];

/// How the messages of a method are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method {
    pub(super) path: &'static str,
    pub(super) request: &'static [Rule<Field>],
    pub(super) response: &'static [Rule<Field>],
    /// It speaks of batches, not of one request.
    pub(super) shard: bool,
    /// Each response message with an output counts as a token.
    pub(super) streams: bool,
}

const fn infer(path: &'static str, response: &'static [Rule<Field>], streams: bool) -> Method {
    Method { path, request: INFER_REQUEST, response, shard: false, streams }
}

const fn shard(
    path: &'static str,
    request: &'static [Rule<Field>],
    response: &'static [Rule<Field>],
) -> Method {
    Method { path, request, response, shard: true, streams: false }
}

const METHODS: &[Method] = &[
    infer("/inference.GRPCInferenceService/ModelInfer", INFER_RESPONSE, false),
    infer("/inference.GRPCInferenceService/ModelStreamInfer", STREAM_RESPONSE, true),
    shard("/generate.v3.TextGenerationService/Prefill", PREFILL_REQUEST, STEP_RESPONSE),
    shard("/generate.v3.TextGenerationService/Decode", BATCHES, STEP_RESPONSE),
    shard("/generate.v3.TextGenerationService/FilterBatch", FILTER_REQUEST, BATCHES),
];

/// The method with this path, if its messages are read.
pub(super) fn find(path: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.path == path)
}
