//! The table: servers in the order of the documentation.
//!
//! Where a server's own documents or sources say it, the adapter's files name them.

use super::Aspect as A;
use super::{Change, Holds, Proven, Seen, Server, exact, hidden, inferred};

const READ: Seen = exact("the request was read from its socket");
const ANSWER: Seen = exact("the answer's end, and the finish reason in it");
const USAGE: Seen = exact("the usage in the answer, where it has one");
const NO_WIRE: &str = "it is on no wire and in no call of the server";

/// What HTTP and the GPU show of any server.
pub const GENERIC: Server = Server {
    name: "generic",
    title: "any other server",
    proven: Proven::Edge(
        "what HTTP and the patterns of launches and copies show, all of it labelled as inferred",
    ),
    usual: [
        READ,
        hidden(NO_WIRE),
        hidden(NO_WIRE),
        inferred("the first GPU work after the arrival, where one request runs alone"),
        inferred("the first event of the stream with text in it"),
        inferred("the events of the stream: one can hold several tokens, or none"),
        ANSWER,
        inferred("the requests that were open while the step ran"),
        inferred("the requests that were open while the step ran"),
        USAGE,
        USAGE,
        hidden(NO_WIRE),
    ],
    changes: &[],
};

const VLLM: Server = Server {
    name: "vllm",
    title: "vLLM (V1)",
    proven: Proven::Real("vLLM 0.32 on the CPU; schemas 0.8.5 to 0.33 by recorded and made frames"),
    usual: [
        READ,
        exact("the engine's QUEUED event"),
        exact("the engine's SCHEDULED event"),
        exact("the engine's SCHEDULED event"),
        exact("the engine's first output for the request"),
        exact("the engine's outputs, step by step"),
        exact("the finish reason in the engine's output"),
        inferred("the requests that got a token; prompts of which only a part was computed are missing"),
        inferred("exact for those that got a token; prompts of which only a part was computed are inferred"),
        exact("the request's message; cached tokens by its prefill statistics"),
        exact("the engine's outputs"),
        exact("the engine's statistics"),
    ],
    changes: &[
        Change {
            when: Holds::NoStatistics,
            label: "with `--disable-log-stats`",
            seen: &[
                (A::QueueStart, inferred("when the engine received the request")),
                (A::QueueEnd, inferred("the step before its first output")),
                (A::PrefillStart, inferred("the step before its first output")),
                (A::KvUsage, hidden("the engine sends no statistics")),
            ],
        },
        Change {
            when: Holds::Ring,
            label: "with workers of their own, whose ring is read",
            seen: &[
                (A::BatchSize, exact("the engine's schedule in the ring to its workers")),
                (
                    A::Members,
                    exact(
                        "the engine's schedule in the ring to its workers, partial prompts included; after a preemption a few may be a neighbour's",
                    ),
                ),
            ],
        },
        Change {
            when: Holds::RustFrontEnd,
            label: "with the front end in Rust",
            // All of it is heard in the engine's process.
            seen: &[],
        },
    ],
};

const SGLANG: Server = Server {
    name: "sglang",
    title: "SGLang",
    proven: Proven::StandIn("the messages and the snapshot of 0.5.23 over a real libzmq"),
    usual: [
        READ,
        inferred("when the scheduler was sent the request"),
        inferred("the step before its first output"),
        inferred("the step before its first output"),
        inferred("exact where the answer streams; else tokens come 50 at a time"),
        inferred("exact where the answer streams; else tokens come 50 at a time"),
        exact("the finish reason in the scheduler's output"),
        inferred("exact where all answers stream; requests that do not are in every step until their end"),
        inferred("exact where all answers stream; requests that do not are in every step until their end"),
        exact("the scheduler's output"),
        exact("the scheduler's output, as a running total"),
        exact("the load snapshot in shared memory"),
    ],
    changes: &[
        Change {
            when: Holds::Metrics,
            label: "with `--enable-metrics`",
            seen: &[
                (A::QueueStart, exact("the scheduler's time statistics")),
                (A::QueueEnd, exact("the scheduler's time statistics")),
                (A::PrefillStart, exact("the scheduler's time statistics")),
            ],
        },
        Change {
            when: Holds::RustFrontEnd,
            label: "with `SGLANG_RUST_SERVER`",
            seen: &[
                (A::QueueStart, hidden("front end and scheduler share a process and no message")),
                (A::QueueEnd, hidden("front end and scheduler share a process and no message")),
                (
                    A::PrefillStart,
                    inferred("the first GPU work after the arrival, where one request runs alone"),
                ),
                (A::FirstToken, inferred("the first event of the stream with text in it")),
                (A::EachToken, inferred("the events of the stream")),
                (A::End, ANSWER),
                (A::BatchSize, exact("the running count in the load snapshot, as often as it is published")),
                (A::Members, inferred("the requests that were open while the step ran")),
                (A::PromptTokens, USAGE),
                (A::GeneratedTokens, USAGE),
            ],
        },
    ],
};

const NOT_TOLD: &str = "llama.cpp's library does not tell it";

const LLAMA: [Seen; 12] = [
    READ,
    inferred("when the request was read: tokenizing it comes before"),
    exact("the first batch with its sequence"),
    exact("the first batch with its sequence"),
    exact("the batch with the last token of its prompt, once the GPU was waited for"),
    exact("outputs of its sequence, batch by batch; tokens of drafts by what is taken back"),
    ANSWER,
    exact("the sequences of the batch"),
    exact(
        "the sequences of the batch; which request a sequence is, is inferred by order and checked by counts",
    ),
    exact("positions: where its prompt began to be computed is what was cached; not with images"),
    exact("outputs of its sequence"),
    hidden(NOT_TOLD),
];

const LLAMA_CHANGES: &[Change] = &[Change {
    when: Holds::ServerSymbols,
    label: "with symbols of its server",
    seen: &[
        (A::QueueStart, exact("the task got its id on the thread that serves the request")),
        (A::Members, exact("the sequences of the batch, and the task that was put into each slot")),
    ],
}];

const LLAMA_CPP: Server = Server {
    name: "llama.cpp",
    title: "llama.cpp's server",
    proven: Proven::Real("llama-server of llama.cpp 0.5.0 (0c1e570), on the CPU and over ggml-cuda"),
    usual: LLAMA,
    changes: LLAMA_CHANGES,
};

const OLLAMA: Server = Server {
    name: "ollama",
    title: "Ollama, through the llama-server that it starts",
    proven: Proven::Real("that llama-server; Ollama itself was not tried"),
    usual: LLAMA,
    changes: LLAMA_CHANGES,
};

const TRANSFORMERS: Server = Server {
    name: "transformers",
    title: "transformers serve",
    proven: Proven::Real("transformers 5.23.0 with `--continuous-batching`"),
    usual: [
        READ,
        inferred("when the request was read"),
        inferred("the first GPU work after it was read"),
        inferred("the first GPU work after it was read"),
        inferred("the first event of the stream with text in it: the role comes before anything is computed"),
        inferred("the events of the stream"),
        ANSWER,
        inferred("the lengths that are copied to the GPU for a step"),
        inferred("the answers that were written between two steps"),
        USAGE,
        USAGE,
        hidden("the engine is a thread of the server, and its state is in Python's objects"),
    ],
    changes: &[],
};

const TRITON: Server = Server {
    name: "triton",
    title: "Triton Inference Server",
    proven: Proven::StandIn("a library and a backend with the functions of Triton's C interface"),
    usual: [
        READ,
        exact("`TRITONSERVER_ServerInferAsync`"),
        exact("`TRITONBACKEND_ModelInstanceExecute` with the request among its arguments"),
        exact("the compute start that the backend reports"),
        exact("`TRITONBACKEND_ResponseSend`"),
        exact(
            "`TRITONBACKEND_ResponseSend` of a decoupled model: each response with outputs counts as a token",
        ),
        exact("the response with the final flag; of an ensemble, the deletion of its request"),
        exact("the count that `TRITONBACKEND_ModelInstanceExecute` is given"),
        exact(
            "the requests that `TRITONBACKEND_ModelInstanceExecute` is given; steps of an ensemble are requests \
               of their own",
        ),
        hidden("tensors mean what each model says"),
        inferred("responses of a decoupled model"),
        hidden("backends keep it to themselves"),
    ],
    changes: &[Change {
        when: Holds::EngineInside,
        label: "with a backend that batches by itself",
        seen: &[
            (A::PrefillStart, hidden("`Execute` returns at once: the engine's own adapter tells")),
            (A::BatchSize, hidden("`Execute` returns at once: the engine's own adapter tells")),
            (A::Members, hidden("`Execute` returns at once: the engine's own adapter tells")),
        ],
    }],
};

const TGI: Server = Server {
    name: "tgi",
    title: "Text Generation Inference",
    proven: Proven::StandIn("a router and two shards that speak `generate.v3` over unix sockets with grpcio"),
    usual: [
        READ,
        inferred("when the request was read: the router's queue is inside of it"),
        exact("the `Prefill` call with the request in it"),
        exact("the `Prefill` call with the request in it"),
        exact("the answer of the last shard to the call with its first token"),
        exact("tokens of its generations, call by call"),
        exact("the finish reason in its last generation, or the filter that leaves it out"),
        exact("the batch of the call"),
        exact("the ids in the batch; which request an id is, is inferred by order and checked by counts"),
        exact("the usage or a header of the answer, where it has one"),
        exact("the shard's own count"),
        hidden("blocks are the router's own account"),
    ],
    changes: &[],
};

const TENSORRT: Server = Server {
    name: "tensorrt-llm",
    title: "TensorRT-LLM",
    proven: Proven::Edge("its executor's messages are not read"),
    usual: GENERIC.usual,
    changes: &[],
};

/// All of them.
pub const SERVERS: &[Server] =
    &[VLLM, SGLANG, LLAMA_CPP, OLLAMA, TRANSFORMERS, TRITON, TGI, TENSORRT, GENERIC];
