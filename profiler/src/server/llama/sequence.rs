//! One sequence of a llama.cpp context, which is a slot of its server.
//!
//! In: runs of tokens, removals from the memory. Out: whether a run goes on with a request or begins another, and how
//! many tokens came out. Read in llama.cpp c392e50 and 0c1e570, `tools/server/server-context.cpp`: a slot's prompt
//! begins with `llama_memory_seq_rm(mem, slot, cached, -1)`, each further chunk of it with the same call at its own
//! position, a generated token has no such call, and the tokens of a draft that were not accepted are taken back with
//! one. Deliberately absent: what the tokens are.

use crate::server::adapter::Run;
use crate::server::said::{Inner, Part};

/// What a slot is doing, as far as its runs tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its prompt is computed; no token has come out.
    Prompt,
    /// Tokens come out.
    Generating,
    /// Every token of its prompt had an output, and none is to follow: an embedding or a score.
    Embedding,
}

/// A request in a sequence.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) inner: Inner,
    pub(super) phase: Phase,
    /// Where its prompt began to be computed: what lies before was in the cache. `None`: its beginning was not heard.
    pub(super) cached: Option<i32>,
    /// Position behind its prompt.
    pub(super) prompt: Option<i32>,
    /// Tokens that came out.
    pub(super) generated: u64,
    /// When the first one did.
    pub(super) first_ns: Option<u64>,
    /// When something of it was last heard.
    pub(super) last_ns: u64,
    /// Batches of its context since, without it.
    pub(super) absent: u32,
    /// Positions are those of its tokens: no image lies between.
    pub(super) plain: bool,
    /// The last attempt to compute something of it failed.
    pub(super) failed: bool,
}

impl Request {
    pub(super) fn new(inner: Inner, now_ns: u64) -> Self {
        Self {
            inner,
            phase: Phase::Prompt,
            cached: None,
            prompt: None,
            generated: 0,
            first_ns: None,
            last_ns: now_ns,
            absent: 0,
            plain: true,
            failed: false,
        }
    }
}

/// A sequence.
#[derive(Clone, Debug, Default)]
pub(super) struct Sequence {
    /// What is in it.
    pub(super) request: Option<Request>,
    /// The position that comes next. `None`: not known.
    pub(super) expected: Option<i32>,
    /// It was cut off here, and nothing was computed since.
    truncated: Option<i32>,
    /// What the next removal or run tells of the last one.
    pub(super) open: Option<Open>,
}

/// What is not known of a run until the next removal or run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Open {
    /// A draft was tried in these positions: how much of it stood.
    Draft(i32, i32),
    /// A part of a prompt had outputs everywhere, as some drafts need it: whether it was the last part, which ends here.
    Prompt(i32),
}

/// What a removal from a sequence says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removed {
    /// Of the tokens that were tried, so many came out.
    Accepted(u32),
    /// The whole sequence is gone.
    Cleared,
    /// Anything else: the next run tells.
    Noted,
}

/// What a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Going {
    /// The request in it goes on.
    On,
    /// It goes on, and something in between was not heard.
    Missed,
    /// Another one begins, and this many tokens of its prompt are there already.
    Begins(i32),
    /// Another one is there whose beginning was not heard.
    Joined,
}

impl Sequence {
    /// `llama_memory_seq_rm(mem, sequence, from, to)`: negative ends are open.
    pub(super) fn remove(&mut self, from: i32, to: i32) -> Removed {
        if to >= 0 {
            // A shift of the context: what lies behind moves down (`llama_memory_seq_add` follows). In a sequence
            // whose next prompt reuses chunks the last removal, with an open end, says where it stands.
            let removed = to.saturating_sub(from.max(0)).max(0);
            self.expected = self.expected.map(|expected| expected.saturating_sub(removed).max(0));
            return Removed::Noted;
        }
        let open = self.open.take();
        match open {
            Some(Open::Draft(begin, end)) if (begin..=end).contains(&from) => {
                self.expected = Some(from);
                return Removed::Accepted(u32::try_from(from.saturating_sub(begin)).unwrap_or(0));
            }
            Some(Open::Prompt(end)) if from == end => {
                self.truncated = Some(from);
                return Removed::Accepted(0);
            }
            _ => {}
        }
        self.truncated = Some(from.max(0));
        match (open, from < 0) {
            (Some(_), _) => Removed::Accepted(1),
            (None, true) => Removed::Cleared,
            (None, false) => Removed::Noted,
        }
    }

    /// The next batch is there: what the last run left open is told by it, or by its absence there.
    pub(super) fn settle(&mut self, next: Option<&Run>) -> Option<u32> {
        let accepted = match (self.open.take()?, next) {
            (Open::Draft(begin, end), Some(run)) if (begin..=end).contains(&run.position) => {
                self.expected = Some(run.position);
                u32::try_from(run.position.saturating_sub(begin)).unwrap_or(0)
            }
            // One token comes out of each verification, whatever becomes of the draft.
            _ => 1,
        };
        self.came(accepted);
        Some(accepted)
    }

    /// So many tokens came out of what was open.
    pub(super) fn came(&mut self, tokens: u32) {
        if let Some(request) = &mut self.request
            && tokens > 0
            && request.phase == Phase::Prompt
        {
            request.phase = Phase::Generating;
            request.prompt = self.expected;
        }
    }

    /// What a run of this sequence is.
    pub(super) fn going(&self, run: &Run) -> Going {
        let at = run.position;
        let one = run.tokens == 1 && run.outputs == 1;
        let Some(request) = &self.request else {
            return match self.truncated {
                None if at > 0 => Going::Joined,
                _ => Going::Begins(at.max(0)),
            };
        };
        // Without a position a batch goes on where the sequence ends.
        if at < 0 {
            return if self.truncated == Some(0) { Going::Begins(0) } else { Going::On };
        }
        match (self.truncated, self.expected) {
            (Some(from), Some(expected)) if request.phase == Phase::Prompt && from == expected => Going::On,
            // Behind an image nobody knows where the prompt goes on.
            (Some(1..), None) if request.phase == Phase::Prompt => Going::On,
            // Its first attempt found no room, and is made again.
            (Some(_), _) if request.failed && request.cached == Some(at) => Going::On,
            (Some(_), _) => Going::Begins(at),
            (None, None) => Going::On,
            (None, Some(expected)) if at > expected => Going::Missed,
            (None, Some(expected)) if at < expected => Going::Begins(at),
            (None, Some(_)) => match request.phase {
                Phase::Generating if !one && run.outputs <= 1 => Going::Begins(at),
                Phase::Embedding => Going::Begins(at),
                _ => Going::On,
            },
        }
    }

    /// Nothing is in it.
    pub(super) fn is_cleared(&self) -> bool {
        self.truncated == Some(0)
    }

    /// A request begins in it.
    pub(super) fn begin(&mut self, request: Request) {
        self.request = Some(request);
        self.open = None;
    }

    /// A run of it was computed; `generates`: outputs of a whole prompt serve a draft, not an embedding.
    /// Returns what it was and how many tokens came out; `None` where the next removal or run tells.
    pub(super) fn computed(&mut self, run: &Run, embeddings: bool, generates: bool) -> (Part, Option<u32>) {
        let begin = if run.position < 0 { self.expected.unwrap_or(0) } else { run.position };
        let end = begin.saturating_add(i32::from(run.tokens));
        self.truncated = None;
        self.expected = if embeddings { None } else { Some(end) };
        let Some(request) = &mut self.request else { return (Part::Unknown, Some(0)) };
        request.failed = false;
        request.plain &= !embeddings;
        if request.phase == Phase::Generating {
            if run.tokens > 1 && run.outputs > 1 {
                self.open = Some(Open::Draft(begin, end));
                return (Part::Decode, None);
            }
            return (Part::Decode, Some(u32::from(run.outputs.min(1))));
        }
        if run.outputs == 0 {
            return (Part::Prefill, Some(0));
        }
        if run.outputs == run.tokens && run.tokens > 1 && generates {
            self.open = Some(Open::Prompt(end));
            return (Part::Prefill, None);
        }
        request.prompt = Some(end);
        if run.outputs == run.tokens && run.tokens > 1 {
            request.phase = Phase::Embedding;
            return (Part::Prefill, Some(0));
        }
        request.phase = Phase::Generating;
        (Part::Prefill, Some(1))
    }

    /// Its state was copied from another: it goes on behind the same prompt.
    pub(super) fn copied(&mut self, from: &Self, mut request: Request) {
        if let Some(source) = &from.request {
            request.phase = source.phase;
            request.cached = source.cached;
            request.prompt = source.prompt;
            request.plain = source.plain;
        }
        self.expected = from.expected;
        self.truncated = None;
        self.open = None;
        self.request = Some(request);
    }
}
