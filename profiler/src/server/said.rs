//! What servers say inside, in one vocabulary: whatever the server, its adapter ends in these events.
//!
//! Times are `CLOCK_MONOTONIC` nanoseconds. An adapter says what it heard and how sure it is of it; who a request is to
//! the outside, and what steps did on the GPU, is found out by `correlate`.

use crate::evidence::Evidence;

/// A request inside a server. The adapter makes the number, and never uses one twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Inner(pub u64);

/// One thing that a server said.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Said {
    /// Process that said it: the engine, where there are several processes.
    pub pid: u32,
    /// When it was said; moments inside have times of their own.
    pub time_ns: u64,
    /// What.
    pub saying: Saying,
}

/// What was said.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Saying {
    /// A request is heard of for the first time.
    Met {
        /// Its number from now on.
        inner: Inner,
        /// What ties it to a request from outside.
        tie: Tie,
        /// It has something to generate: tokens will be counted. Embeddings and scores have none.
        generates: bool,
    },
    /// A request reached a state.
    Reached {
        /// Which.
        inner: Inner,
        /// What happened.
        moment: Moment,
        /// When: as the server stamped it, else when it was heard.
        at_ns: u64,
        /// [`Evidence::E0`] where the server's own stamp says so for this id, [`Evidence::E1`] where a message or
        /// call with the request in it was seen then, weaker where the moment is inferred.
        evidence: Evidence,
    },
    /// Tokens came out of a step.
    Tokens {
        /// Whose.
        inner: Inner,
        /// How many.
        count: u32,
        /// When the engine had them.
        at_ns: u64,
    },
    /// Counts of tokens as the engine keeps them; each `None` says nothing.
    Counts {
        /// Whose.
        inner: Inner,
        /// What.
        counts: Counts,
    },
    /// The engine is done with a request, or was told to give it up.
    Ended {
        /// Which.
        inner: Inner,
        /// Why.
        reason: Reason,
        /// When.
        at_ns: u64,
    },
    /// One iteration of an engine.
    Step(Box<EngineStep>),
    /// Numbers of an engine as it reports them.
    Gauges(Gauges),
    /// The engine died: everything in it is lost.
    EngineDead,
}

/// What ties a request inside to one outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tie {
    /// The id by which clients know it: that of the response, or the one that the client sent along.
    pub outer_id: Option<Box<str>>,
    /// The server made a client's request into several: this one's place among them (`n` > 1, a list of prompts).
    pub part: Option<u32>,
    /// Process and thread that read the request and handed it over.
    pub thread: Option<(u32, u32)>,
    /// Length of its prompt, tokens: what the response will count must agree.
    pub prompt_tokens: Option<u64>,
}

/// A state that a request can reach inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Moment {
    /// The engine's queue has it.
    Enqueued,
    /// A step was made with it in.
    Scheduled,
    /// A step with a part of its prompt began.
    Prefilling,
    /// It lost its place, and waits again.
    Preempted,
}

/// Token counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Of the prompt.
    pub prompt: Option<u64>,
    /// Of these, found in the prefix cache.
    pub cached: Option<u64>,
    /// Generated so far, as a total.
    pub generated: Option<u64>,
}

/// Why an engine was done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Reason {
    /// A stop token, or a stop string.
    Stop,
    /// The limit of tokens.
    Length,
    /// It was given up, by the client or by its front end.
    Abort,
    /// It failed.
    Error,
    /// It repeated itself.
    Repetition,
    /// The front end ended it: the client left, or a stop string was found there. Only the response tells which.
    FrontEnd,
    /// It is not in the engine any more, and nobody said why.
    Unsaid,
}

impl Reason {
    /// The value of `gen_ai.response.finish_reasons`, where it has one.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Abort => "abort",
            Self::Error => "error",
            Self::Repetition => "repetition",
            Self::FrontEnd => "front_end",
            Self::Unsaid => "unsaid",
        }
    }
}

/// One iteration of an engine.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct EngineStep {
    /// Which engine of the process: a data-parallel rank, a llama.cpp context, a Triton model instance.
    pub engine: u64,
    /// Its beginning, where something marks it.
    pub start_ns: Option<u64>,
    /// Its end: when its results were there.
    pub end_ns: u64,
    /// Who was in it.
    pub members: Vec<Member>,
    /// All members are known. Otherwise some may be missing, such as prompts of which only a part was computed.
    pub is_complete: bool,
    /// Tokens computed in it, all members together, if known.
    pub tokens: Option<u64>,
    /// Of a failed attempt, which is made again.
    pub failed: bool,
    /// The thread of the process that ran it and sent its GPU work, where that is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<u32>,
}

/// A member of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// Which.
    pub inner: Inner,
    /// What the step did for it.
    pub part: Part,
    /// Tokens of it that the step computed: a prompt's, or those that were generated before. 0 where not known.
    pub computed: u32,
    /// Tokens that came out.
    pub generated: u32,
    /// How sure its membership is.
    pub evidence: Evidence,
}

/// What a step does for a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Part {
    /// Computes its prompt, or a part of it.
    Prefill,
    /// Generates.
    Decode,
    /// One of both.
    Unknown,
}

impl Part {
    /// The name in outputs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Unknown => "unknown",
        }
    }
}

/// Numbers of an engine; each `None` says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Gauges {
    /// Which engine of the process, as in [`EngineStep::engine`].
    pub engine: u64,
    /// Requests that run.
    pub running: Option<u64>,
    /// Requests that wait.
    pub waiting: Option<u64>,
    /// Share of the KV cache in use, 0 to 1.
    pub kv_usage: Option<f64>,
}
