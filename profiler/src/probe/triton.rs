//! Triton's C interfaces (`tritonserver.h`, `tritonbackend.h` of triton-inference-server/core, API 1.x): requests, the
//! batches of model instances, responses.
//!
//! `libtritonserver.so` exports all of them but `TRITONBACKEND_ModelInstanceExecute`, which it looks up in each backend.

use super::meaning::Meaning;
use super::row::{Layer, Row};
use profiler_common::cookie::server as function;

const fn row(symbol: &'static str, function: u8, sentence: &'static str) -> Row {
    Row::new(symbol, "", Layer::Triton, Meaning::Server(sentence)).shape(function)
}

/// The rows.
pub const ROWS: &[Row] = &[
    // (request **out, server, const char *model, int64_t version)
    row("TRITONSERVER_InferenceRequestNew", function::TEXT, "makes a request for a model")
        .copying(2)
        .returning(0),
    // (request, const char *id)
    row("TRITONSERVER_InferenceRequestSetId", function::TEXT, "gives a request its client's id").copying(1),
    // (request)
    row("TRITONSERVER_InferenceRequestDelete", function::CALL, "deletes a request"),
    // (server, request, trace)
    row("TRITONSERVER_ServerInferAsync", function::CALL, "queues a request").or_failing(),
    // (instance, request **requests, uint32_t count)
    Row::new(
        "TRITONBACKEND_ModelInstanceExecute",
        "",
        Layer::TritonBackend,
        Meaning::Server("executes a batch of requests"),
    )
    .shape(function::LIST)
    .copying(1)
    .at_return(),
    // (instance, request, success, exec_start, compute_start, compute_end, exec_end)
    row("TRITONBACKEND_ModelInstanceReportStatistics", function::WIDE, "says when a request was computed"),
    // (response **out, request)
    row("TRITONBACKEND_ResponseNew", function::CALL, "makes a response").returning(0),
    // (factory **out, request)
    row("TRITONBACKEND_ResponseFactoryNew", function::CALL, "makes a maker of responses").returning(0),
    // (response **out, factory)
    row("TRITONBACKEND_ResponseNewFromFactory", function::CALL, "makes one of several responses")
        .returning(0),
    // (response, output **out, const char *name, type, shape, dims)
    row("TRITONBACKEND_ResponseOutput", function::CALL, "puts an output into a response"),
    // (response, uint32_t flags, error)
    row("TRITONBACKEND_ResponseSend", function::CALL, "sends a response"),
    // (factory, uint32_t flags)
    row("TRITONBACKEND_ResponseFactorySendFlags", function::CALL, "says that no response follows"),
    // (factory)
    row("TRITONBACKEND_ResponseFactoryDelete", function::CALL, "deletes a maker of responses"),
    // (request, uint32_t flags)
    row("TRITONBACKEND_RequestRelease", function::CALL, "gives a request back"),
];
