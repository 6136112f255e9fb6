//! What the messages have in common, whichever format they are in.

use crate::server::said::Reason;

/// A message about requests, or about something else.
#[derive(Debug, PartialEq)]
pub(super) enum Message<'a> {
    /// Requests for a scheduler.
    Inputs(Vec<Input<'a>>),
    /// What a step of a scheduler made.
    Outputs(Outputs<'a>),
    /// The front end wants a request to be given up, or the scheduler has done so.
    Abort(&'a str),
    /// One that says nothing about requests.
    Other,
}

/// `TokenizedGenerateReqInput` or `TokenizedEmbeddingReqInput`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Input<'a> {
    pub(super) rid: &'a str,
    /// Length of the prompt; unknown where images and the like will be put in.
    pub(super) prompt: Option<u64>,
    /// Its tokens are sent as they come. Unknown behind a cut.
    pub(super) streams: Option<bool>,
    pub(super) generates: bool,
}

/// `BatchTokenIDOutput` or `BatchEmbeddingOutput`: columns, a row a request. A column behind a cut is empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Outputs<'a> {
    pub(super) rids: Vec<&'a str>,
    pub(super) reasons: Vec<Option<Reason>>,
    pub(super) prompt: Vec<u64>,
    /// Tokens generated so far.
    pub(super) generated: Vec<u64>,
    pub(super) cached: Vec<u64>,
    /// Tokens in this message.
    pub(super) new: Vec<u64>,
    /// How often it lost its place.
    pub(super) retractions: Vec<u64>,
    pub(super) times: Vec<Option<Times>>,
    /// Data-parallel rank of the scheduler.
    pub(super) rank: u64,
    /// A step may make several tokens of a request.
    pub(super) is_speculative: bool,
    pub(super) generates: bool,
    /// The copy ended before the message did.
    pub(super) is_cut: bool,
}

/// Stamps of `SchedulerReqTimeStats`, `CLOCK_MONOTONIC` nanoseconds (Python's `perf_counter`); 0 where not set.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Times {
    pub(super) queued: u64,
    pub(super) scheduled: u64,
    pub(super) first: u64,
}

impl Times {
    pub(super) fn of_seconds(queued: f64, scheduled: f64, first: f64) -> Self {
        // Negative and absurd values saturate, and fail the checks behind.
        let ns = |seconds: f64| (seconds * 1e9).round() as u64;
        Self { queued: ns(queued), scheduled: ns(scheduled), first: ns(first) }
    }
}

/// Classes of messages that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Generate,
    Embed,
    /// Several of one of both.
    Batch,
    Tokens,
    Embeddings,
    Abort,
    Other,
}

impl Class {
    pub(super) fn of(name: &str) -> Self {
        match name {
            "TokenizedGenerateReqInput" => Self::Generate,
            "TokenizedEmbeddingReqInput" => Self::Embed,
            "BatchTokenizedGenerateReqInput" | "BatchTokenizedEmbeddingReqInput" => Self::Batch,
            "BatchTokenIDOutput" => Self::Tokens,
            "BatchEmbeddingOutput" => Self::Embeddings,
            "AbortReq" => Self::Abort,
            _ => Self::Other,
        }
    }
}

/// `BaseFinishReason.to_json()["type"]` (`schedule_batch.py`).
pub(super) fn reason(kind: &str) -> Option<Reason> {
    match kind {
        "stop" => Some(Reason::Stop),
        "length" => Some(Reason::Length),
        "abort" => Some(Reason::Abort),
        _ => None,
    }
}

/// Size of an item of Python's `array` on machines of 64 bits.
pub(super) fn item_size(typecode: &str) -> Option<u64> {
    match typecode {
        "b" | "B" => Some(1),
        "h" | "H" => Some(2),
        "i" | "I" | "f" => Some(4),
        "l" | "L" | "q" | "Q" | "d" => Some(8),
        _ => None,
    }
}

/// An id as the server makes them or lets clients give them: some text, not a page.
pub(super) fn is_id(rid: &str) -> bool {
    (1..=256).contains(&rid.len()) && rid.bytes().all(|byte| byte.is_ascii_graphic())
}

impl Outputs<'_> {
    /// Every column has a value for every row, if it has any; without a cut the needed ones are there.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let rows = self.rids.len();
        if !self.rids.iter().all(|rid| is_id(rid)) {
            return Err("an id that is none");
        }
        let numbers = [&self.prompt, &self.generated, &self.cached, &self.new, &self.retractions];
        let mut lengths =
            numbers.iter().map(|column| column.len()).chain([self.times.len(), self.reasons.len()]);
        if !lengths.all(|length| length == 0 || length == rows) {
            return Err("columns of different length");
        }
        let needed = [self.reasons.len(), self.prompt.len(), self.generated.len(), self.cached.len()];
        let is_whole =
            needed.iter().enumerate().all(|(n, length)| *length == rows || n == 2 && !self.generates);
        if !is_whole && !self.is_cut {
            return Err("a column is missing");
        }
        if self.cached.iter().zip(&self.prompt).any(|(cached, prompt)| cached > prompt) {
            return Err("more cached than prompted");
        }
        Ok(())
    }
}
