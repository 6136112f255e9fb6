//! What the documents of a response say, as facts and tokens.
//!
//! In: values at listed paths (from `json`, listed in `dialects`), and each document's end. Out: [`Fact`]s and
//! token signals. Deliberately absent: text of completions and error messages; only "is it empty" comes here.
//!
//! A token signal is an event with a non-empty delta, which may hold several tokens (speculative decoding, stream
//! intervals, text held back) or, with `echo`, the prompt as well. Roles, pings, empty deltas and usage-only
//! events are none.

use super::dialects::ResponseField;
use super::json::{Receiver, Value};
use super::parameters::whole;
use super::signal::{Fact, Signal, SignalKind, Usage};

/// Most choices, ends and counts of one event that are told apart.
const MAX_CHOICES: usize = 256;

/// Where a response's signals go.
pub(super) struct Emit<'a> {
    pub(super) time_ns: u64,
    pub(super) exchange: u32,
    pub(super) out: &'a mut Vec<Signal>,
}

impl Emit<'_> {
    pub(super) fn push(&mut self, kind: SignalKind) {
        self.out.push(Signal { time_ns: self.time_ns, exchange: self.exchange, kind });
    }
}

/// Gathers what the documents of one response say.
#[derive(Clone, Debug, Default)]
pub(super) struct ResponseFacts {
    /// Deltas count as tokens: it is a stream, and no replay of one.
    pub(super) tokens: bool,
    pub(super) saw_done: bool,
    /// Documents that were committed.
    pub(super) events: u32,
    id: Option<String>,
    model: Option<String>,
    usage: Usage,
    event: Event,
}

/// What the current document said so far. Its buffers are reused.
#[derive(Clone, Debug, Default)]
struct Event {
    id: Option<String>,
    model: Option<String>,
    usage: Usage,
    kind: Option<String>,
    index: Option<u32>,
    delta: bool,
    untyped_delta: bool,
    indexed: bool,
    error: bool,
    error_type: Option<String>,
    error_code: Option<String>,
    choice: Choice,
    tokens: Vec<(u32, Option<u32>)>,
    finishes: Vec<(u32, String)>,
    finish: Option<String>,
    facts: Vec<Fact>,
}

#[derive(Clone, Debug, Default)]
struct Choice {
    index: Option<u32>,
    delta: bool,
    token_ids: Option<u32>,
    finish: Option<String>,
}

impl ResponseFacts {
    pub(super) fn new(tokens: bool) -> Self {
        Self { tokens, ..Self::default() }
    }

    /// The event's name says that it is an error.
    pub(super) fn mark_error(&mut self) {
        self.event.error = true;
    }

    /// The stream's own end mark.
    pub(super) fn mark_done(&mut self) {
        self.saw_done = true;
    }

    /// The document is over, or cut: what it said holds.
    pub(super) fn commit(&mut self, emit: &mut Emit<'_>) {
        self.events = self.events.saturating_add(1);
        let mut event = std::mem::take(&mut self.event);
        self.commit_identity(&mut event, emit);
        self.commit_tokens(&mut event, emit);
        self.commit_ends(&mut event, emit);
        // Keeps the buffers, so that a token costs no allocation.
        let Event { mut tokens, mut finishes, mut facts, .. } = event;
        tokens.clear();
        finishes.clear();
        facts.clear();
        self.event = Event { tokens, finishes, facts, ..Event::default() };
    }

    fn commit_identity(&mut self, event: &mut Event, emit: &mut Emit<'_>) {
        for (known, new, fact) in [
            (&mut self.id, event.id.take(), Fact::Id as fn(String) -> Fact),
            (&mut self.model, event.model.take(), Fact::Model),
        ] {
            if let Some(new) = new {
                *known = Some(new.clone());
                emit.push(SignalKind::Fact(fact(new)));
            }
        }
    }

    fn commit_tokens(&mut self, event: &mut Event, emit: &mut Emit<'_>) {
        event.end_cut_choice();
        let index = event.index.filter(|_| event.indexed).unwrap_or(0);
        let untyped = event.kind.is_none();
        if event.delta || (event.untyped_delta && untyped) {
            event.tokens.push((index, None));
        }
        if self.tokens {
            for (choice, token_ids) in event.tokens.drain(..) {
                emit.push(SignalKind::Token { choice, event: self.events, token_ids });
            }
        }
        if let Some(reason) = event.finish.take() {
            event.finishes.push((index, reason));
        }
    }

    fn commit_ends(&mut self, event: &mut Event, emit: &mut Emit<'_>) {
        for (choice, reason) in event.finishes.drain(..) {
            emit.push(SignalKind::Fact(Fact::FinishReason { choice, reason }));
        }
        let usage = self.usage.updated(event.usage);
        if usage != self.usage {
            self.usage = usage;
            emit.push(SignalKind::Fact(Fact::Usage(usage)));
        }
        for fact in event.facts.drain(..) {
            emit.push(SignalKind::Fact(fact));
        }
        if event.error {
            let kind = event.error_type.take().or(event.kind.take().filter(|kind| kind != "error"));
            emit.push(SignalKind::Fact(Fact::Error { kind, code: event.error_code.take() }));
        }
    }
}

impl Usage {
    fn updated(self, new: Self) -> Self {
        Self {
            input: new.input.or(self.input),
            output: new.output.or(self.output),
            cached: new.cached.or(self.cached),
            reasoning: new.reasoning.or(self.reasoning),
        }
    }
}

fn changed(text: &str, known: Option<&str>) -> Option<String> {
    (known != Some(text)).then(|| text.to_owned())
}

/// Whether a delta holds something.
fn holds(value: Value<'_>) -> bool {
    matches!(value, Value::Filled(true) | Value::Items(1..))
}

impl Receiver<ResponseField> for ResponseFacts {
    fn value(&mut self, field: ResponseField, value: Value<'_>) {
        use ResponseField as F;
        let event = &mut self.event;
        match (field, value) {
            (F::Choice | F::ChoiceIndex | F::ChoiceDelta | F::ChoiceTokenIds | F::ChoiceFinish, value) => {
                event.choice_value(field, value);
            }
            // Every event repeats them.
            (F::Id, Value::Text(text)) => event.id = changed(text, self.id.as_deref()),
            (F::Model, Value::Text(text)) => event.model = changed(text, self.model.as_deref()),
            (F::Input, Value::Number(number)) => event.usage.input = whole(number),
            (F::Output, Value::Number(number)) => event.usage.output = whole(number),
            (F::Cached, Value::Number(number)) => event.usage.cached = whole(number),
            (F::Reasoning, Value::Number(number)) => event.usage.reasoning = whole(number),
            (F::Delta, value) => event.delta |= holds(value),
            (F::UntypedDelta, value) => event.untyped_delta |= holds(value),
            (F::Token, Value::Begin) => event.delta = true,
            (F::IndexedDelta, Value::Filled(filled)) => {
                event.delta |= filled;
                event.indexed = true;
            }
            (F::Index, Value::Number(number)) => event.index = small(number),
            (F::Finish, Value::Text(text)) => event.finish = Some(text.to_owned()),
            (F::Type, Value::Text(text)) => self.kind(text),
            (F::Object, Value::Text("error")) | (F::Error, Value::Filled(_) | Value::Begin) => {
                event.error = true
            }
            (F::ErrorType, Value::Text(text)) => event.error_type = Some(text.to_owned()),
            (F::ErrorCode, Value::Text(text)) => event.error_code = Some(text.to_owned()),
            (F::ErrorCode, Value::Number(number)) => event.error_code = Some(number.to_string()),
            (F::Done, Value::Bool(true)) | (F::GeneratedText, Value::Filled(_)) => self.saw_done = true,
            (F::Count(count), Value::Number(number)) => {
                event.fact(whole(number).map(|n| Fact::Count(count, n)))
            }
            (F::Nanoseconds(time), Value::Number(number)) => {
                event.fact(whole(number).map(|nanoseconds| Fact::Time(time, nanoseconds)));
            }
            (F::Milliseconds(time), Value::Number(number)) => {
                event.fact(whole((number * 1e6).round()).map(|nanoseconds| Fact::Time(time, nanoseconds)));
            }
            _ => {}
        }
    }
}

impl ResponseFacts {
    fn kind(&mut self, text: &str) {
        self.saw_done |= matches!(text, "message_stop" | "response.completed" | "response.incomplete");
        self.event.error |= matches!(text, "error" | "response.failed");
        self.event.kind = Some(text.to_owned());
    }
}

impl Event {
    fn choice_value(&mut self, field: ResponseField, value: Value<'_>) {
        use ResponseField as F;
        match (field, value) {
            (F::Choice, Value::Begin) => self.choice = Choice::default(),
            (F::Choice, Value::End) => self.end_choice(),
            (F::ChoiceIndex, Value::Number(number)) => self.choice.index = small(number),
            // `function_call` is an object.
            (F::ChoiceDelta, value) => self.choice.delta |= holds(value) || value == Value::Begin,
            (F::ChoiceTokenIds, Value::Items(items)) => self.choice.token_ids = Some(items),
            (F::ChoiceFinish, Value::Text(text)) => self.choice.finish = Some(text.to_owned()),
            _ => {}
        }
    }

    /// A gap cut the choice. What it said holds if it said whose it is.
    fn end_cut_choice(&mut self) {
        if self.choice.index.is_some() {
            self.end_choice();
        }
    }

    fn end_choice(&mut self) {
        let choice = std::mem::take(&mut self.choice);
        let index = choice.index.unwrap_or(0);
        if choice.delta && self.tokens.len() < MAX_CHOICES {
            self.tokens.push((index, choice.token_ids));
        }
        if let Some(reason) = choice.finish.filter(|_| self.finishes.len() < MAX_CHOICES) {
            self.finishes.push((index, reason));
        }
    }

    fn fact(&mut self, fact: Option<Fact>) {
        self.facts.extend(fact.filter(|_| self.facts.len() < MAX_CHOICES));
    }
}

fn small(number: f64) -> Option<u32> {
    whole(number).and_then(|number| u32::try_from(number).ok())
}
