//! libllama (`llama.h` of llama.cpp, 2023 to 2026): batches, and what happens to the sequences between them. Of its
//! server two functions that tell which HTTP thread asked for what is in a slot, where symbols of C++ are left.

use super::meaning::Meaning;
use super::row::{Layer, Row};
use profiler_common::cookie::server as function;
use profiler_common::event::BatchLayout;

const fn row(symbol: &'static str, function: u8, sentence: &'static str) -> Row {
    Row::new(symbol, "", Layer::Llama, Meaning::Server(sentence)).shape(function)
}

/// The rows.
pub const ROWS: &[Row] = &[
    // (ctx, batch by value) -> 0, 1: no room in the cache
    row("llama_decode", function::BATCH, "computes a batch").at_return(),
    row("llama_encode", function::BATCH, "encodes a batch").at_return(),
    // (ctx, type, batch)
    row("llama_process", function::OPAQUE_BATCH, "computes a batch").layout(0).at_return(),
    // (ctx)
    row("llama_synchronize", function::CALL, "waits for a batch").at_return(),
    // (memory, sequence, from, to)
    row("llama_memory_seq_rm", function::CALL, "forgets a part of a sequence"),
    // (memory, source, destination, from, to)
    row("llama_memory_seq_cp", function::CALL, "copies a sequence"),
    // (memory, sequence, from, to, delta)
    row("llama_memory_seq_add", function::CALL, "moves a sequence"),
    // (ctx, sequence, from, to): the names before 2025
    row("llama_kv_self_seq_rm", function::CALL, "forgets a part of a sequence"),
    row("llama_kv_self_seq_cp", function::CALL, "copies a sequence"),
    row("llama_kv_cache_seq_rm", function::CALL, "forgets a part of a sequence"),
    row("llama_kv_cache_seq_cp", function::CALL, "copies a sequence"),
];

/// `int server_queue::get_new_id()`: the id of a task, on the thread that serves its HTTP request.
pub const NEW_ID: &str = "_ZN12server_queue10get_new_idEv";
/// `bool server_context_impl::launch_slot_with_task(server_slot&, server_task&&)`. Both objects begin with their ids
/// (`tools/server/server-context.cpp`, `server-task.h`), and no more of them is read.
pub const LAUNCH: &str = "_ZN19server_context_impl21launch_slot_with_taskER11server_slotO11server_task";

/// The rows of the server.
pub const SERVER_ROWS: &[Row] = &[
    server_row(NEW_ID, "gives a task its id").at_return(),
    server_row(LAUNCH, "puts a task into a slot").returning(1).second(2),
];

const fn server_row(symbol: &'static str, sentence: &'static str) -> Row {
    Row::new(symbol, "", Layer::LlamaServer, Meaning::Server(sentence)).shape(function::CALL)
}

/// Layouts of opaque batches, by number.
///
/// The first is that of `llama_batch_ext` of llama.cpp 2026 (src/llama-batch.h), built with libstdc++ for 64-bit
/// machines: the vector `tokens` at 64, in its elements `id` at 0, `output` at 16, `seq_ids` (an `unordered_set`: first
/// node at 16 of it, size at 24) at 24 and `pos` at 80; in a node the value at 8.
pub const LAYOUTS: &[BatchLayout] = &[BatchLayout {
    begin: 64,
    end: 72,
    element: 96,
    token: 0,
    output: 16,
    node: 40,
    sequences: 48,
    position: 80,
    sequence: 8,
    reserved: 0,
}];
