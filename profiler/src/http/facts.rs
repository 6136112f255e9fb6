//! What JSON documents of the servers' dialects say, as facts: the listed paths and their meaning.
//!
//! In: values at listed paths (from `json`). Out: [`RequestFacts`]; [`Fact`]s and tokens of a response.
//! Deliberately absent: any path to a prompt, a completion or an error message other than "is it empty".
//!
//! A token signal is an event with a non-empty delta, which may hold several tokens (speculative decoding, stream
//! intervals, text held back) or, with `echo`, the prompt as well. Roles, pings, empty deltas and usage-only
//! events are none.
//!
//! Dialects: OpenAI chat, completions and responses; Anthropic messages; TGI; Ollama; llama.cpp; SGLang; Triton's
//! generate extension. Their keys do not collide, so one list serves all.

use std::sync::LazyLock;

use super::json::{Paths, Receiver, Value, Want};
use super::signal::{Fact, RequestFacts, ServerCount, ServerTime, Signal, SignalKind, Usage};

/// Most choices of one event that are told apart.
const MAX_CHOICES: usize = 256;

/// Fields of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestField {
    Model,
    RequestId,
    Stream,
    IncludeUsage,
    Echo,
    MaxTokens,
    N,
    Temperature,
    TopP,
    TopK,
    FrequencyPenalty,
    PresencePenalty,
    Messages,
    Prompt,
    PromptItem,
    Tools,
}

/// Sampling parameters, under the prefixes that dialects give them.
const SAMPLING: [(&str, RequestField, Want); 12] = [
    ("max_tokens", RequestField::MaxTokens, Want::Keep),
    ("max_completion_tokens", RequestField::MaxTokens, Want::Keep),
    ("max_output_tokens", RequestField::MaxTokens, Want::Keep),
    ("max_new_tokens", RequestField::MaxTokens, Want::Keep),
    ("n_predict", RequestField::MaxTokens, Want::Keep),
    ("num_predict", RequestField::MaxTokens, Want::Keep),
    ("n", RequestField::N, Want::Keep),
    ("temperature", RequestField::Temperature, Want::Keep),
    ("top_p", RequestField::TopP, Want::Keep),
    ("top_k", RequestField::TopK, Want::Keep),
    ("frequency_penalty", RequestField::FrequencyPenalty, Want::Keep),
    ("presence_penalty", RequestField::PresencePenalty, Want::Keep),
];

pub(super) static REQUEST: LazyLock<Paths<RequestField>> = LazyLock::new(|| {
    let mut paths = Paths::new([
        ("model", RequestField::Model, Want::Keep),
        ("model_name", RequestField::Model, Want::Keep),
        ("request_id", RequestField::RequestId, Want::Keep),
        ("rid", RequestField::RequestId, Want::Keep),
        ("stream", RequestField::Stream, Want::Keep),
        ("stream_options.include_usage", RequestField::IncludeUsage, Want::Keep),
        ("echo", RequestField::Echo, Want::Keep),
        ("messages", RequestField::Messages, Want::Presence),
        ("tools", RequestField::Tools, Want::Presence),
    ]);
    for prefix in ["", "options", "parameters", "sampling_params"] {
        paths.extend(prefix, SAMPLING);
    }
    for prefix in ["prompt", "input", "inputs", "text"] {
        paths.extend(prefix, [("", RequestField::Prompt, Want::Presence)]);
    }
    for items in ["prompt[]", "input[]", "inputs[]", "text[]"] {
        paths.extend(items, [("", RequestField::PromptItem, Want::Presence)]);
    }
    paths
});

impl Receiver<RequestField> for RequestFacts {
    fn value(&mut self, field: RequestField, value: Value<'_>) {
        use RequestField as F;
        match (field, value) {
            (F::Model, Value::Text(text)) => self.model = Some(text.to_owned()),
            (F::RequestId, Value::Text(text)) => self.request_id = Some(text.to_owned()),
            (F::Stream, Value::Bool(on)) => self.stream = Some(on),
            (F::IncludeUsage, Value::Bool(on)) => self.include_usage = Some(on),
            (F::Echo, Value::Bool(on)) => self.echo = Some(on),
            (F::MaxTokens, Value::Number(number)) => self.max_tokens = whole(number),
            (F::N, Value::Number(number)) => self.n = whole(number),
            (F::TopK, Value::Number(number)) => self.top_k = whole(number),
            (F::Temperature, Value::Number(number)) => self.temperature = Some(number),
            (F::TopP, Value::Number(number)) => self.top_p = Some(number),
            (F::FrequencyPenalty, Value::Number(number)) => self.frequency_penalty = Some(number),
            (F::PresencePenalty, Value::Number(number)) => self.presence_penalty = Some(number),
            (F::Messages, Value::Items(items)) => self.messages_count = Some(items),
            (F::Tools, Value::Items(items)) => self.tools_count = Some(items),
            (F::Prompt | F::PromptItem, value) => self.prompt(field, value),
            _ => {}
        }
    }
}

impl RequestFacts {
    /// A list of token ids, or of messages, is one prompt.
    fn prompt(&mut self, field: RequestField, value: Value<'_>) {
        match (field, value) {
            (RequestField::PromptItem, Value::Number(_)) => {
                self.prompt_token_ids = Some(self.prompt_token_ids.unwrap_or(0).saturating_add(1));
                self.prompt_count = Some(1);
            }
            (RequestField::PromptItem, Value::Begin) | (RequestField::Prompt, Value::Filled(_)) => {
                self.prompt_count = Some(1);
            }
            (RequestField::Prompt, Value::Items(items)) => {
                self.prompt_count = self.prompt_count.or(Some(items));
            }
            _ => {}
        }
    }
}

/// A count, when it is one. Above 2^53 a double no longer tells neighbours apart.
fn whole(number: f64) -> Option<u64> {
    (number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number)).then_some(number as u64)
}

/// Fields of a response, or of one event of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseField {
    Id,
    Model,
    Input,
    Output,
    Cached,
    Reasoning,
    /// One of `choices`.
    Choice,
    ChoiceIndex,
    /// A delta's text or calls.
    ChoiceDelta,
    ChoiceTokenIds,
    ChoiceFinish,
    /// A delta outside of choices.
    Delta,
    /// As `Delta`, in dialects whose events have no type: the Responses API repeats the whole text there.
    UntypedDelta,
    Index,
    Finish,
    /// The dialect's name of the event or error.
    Type,
    Object,
    Error,
    ErrorType,
    ErrorCode,
    Done,
    GeneratedText,
    Count(ServerCount),
    Nanoseconds(ServerTime),
    Milliseconds(ServerTime),
}

pub(super) static RESPONSE: LazyLock<Paths<ResponseField>> = LazyLock::new(|| {
    use ResponseField as F;
    use {ServerCount as C, ServerTime as T};
    let keep = |path, field| (path, field, Want::Keep);
    let presence = |path, field| (path, field, Want::Presence);
    let mut paths = Paths::new([
        keep("model_name", F::Model),
        presence("choices[]", F::Choice),
        keep("choices[].index", F::ChoiceIndex),
        keep("choices[].finish_reason", F::ChoiceFinish),
        presence("choices[].token_ids", F::ChoiceTokenIds),
        presence("choices[].text", F::ChoiceDelta),
        presence("choices[].delta.content", F::ChoiceDelta),
        presence("choices[].delta.reasoning_content", F::ChoiceDelta),
        presence("choices[].delta.reasoning", F::ChoiceDelta),
        presence("choices[].delta.refusal", F::ChoiceDelta),
        presence("choices[].delta.tool_calls", F::ChoiceDelta),
        presence("choices[].delta.function_call", F::ChoiceDelta),
        keep("type", F::Type),
        keep("object", F::Object),
        keep("index", F::Index),
        // Anthropic.
        presence("delta.text", F::Delta),
        presence("delta.thinking", F::Delta),
        presence("delta.partial_json", F::Delta),
        keep("delta.stop_reason", F::Finish),
        keep("stop_reason", F::Finish),
        // Responses API: the delta itself is a string.
        presence("delta", F::Delta),
        // TGI.
        presence("token", F::Delta),
        presence("generated_text", F::GeneratedText),
        keep("details.finish_reason", F::Finish),
        keep("details.generated_tokens", F::Count(C::GeneratedTokens)),
        keep("error_type", F::ErrorType),
        // Ollama.
        presence("response", F::Delta),
        presence("thinking", F::Delta),
        presence("message.content", F::Delta),
        presence("message.thinking", F::Delta),
        presence("message.tool_calls", F::Delta),
        keep("done", F::Done),
        keep("done_reason", F::Finish),
        keep("prompt_eval_count", F::Count(C::PromptEvalCount)),
        keep("eval_count", F::Count(C::EvalCount)),
        keep("load_duration", F::Nanoseconds(T::Load)),
        keep("prompt_eval_duration", F::Nanoseconds(T::Prompt)),
        keep("eval_duration", F::Nanoseconds(T::Predicted)),
        keep("total_duration", F::Nanoseconds(T::Total)),
        // llama.cpp.
        presence("content", F::Delta),
        keep("stop", F::Done),
        keep("stop_type", F::Finish),
        keep("id_slot", F::Count(C::IdSlot)),
        keep("tokens_evaluated", F::Count(C::TokensEvaluated)),
        keep("tokens_predicted", F::Count(C::TokensPredicted)),
        keep("tokens_cached", F::Count(C::TokensCached)),
        keep("timings.prompt_n", F::Count(C::PromptN)),
        keep("timings.predicted_n", F::Count(C::PredictedN)),
        keep("timings.cache_n", F::Count(C::CacheN)),
        keep("timings.draft_n", F::Count(C::DraftN)),
        keep("timings.prompt_ms", F::Milliseconds(T::Prompt)),
        keep("timings.predicted_ms", F::Milliseconds(T::Predicted)),
        // SGLang's own endpoint, Triton's generate extension.
        presence("text", F::UntypedDelta),
        keep("meta_info.id", F::Id),
        keep("meta_info.prompt_tokens", F::Input),
        keep("meta_info.completion_tokens", F::Output),
        keep("meta_info.cached_tokens", F::Cached),
        keep("meta_info.finish_reason.type", F::Finish),
        presence("text_output", F::Delta),
        keep("code", F::ErrorCode),
    ]);
    // Events of the Responses API and Anthropic's first event wrap the object.
    for prefix in ["", "response", "message"] {
        paths.extend(prefix, ENVELOPE);
    }
    paths
});

/// What every response object says about itself.
const ENVELOPE: [(&str, ResponseField, Want); 16] = [
    ("id", ResponseField::Id, Want::Keep),
    ("model", ResponseField::Model, Want::Keep),
    ("usage.prompt_tokens", ResponseField::Input, Want::Keep),
    ("usage.input_tokens", ResponseField::Input, Want::Keep),
    ("usage.completion_tokens", ResponseField::Output, Want::Keep),
    ("usage.output_tokens", ResponseField::Output, Want::Keep),
    ("usage.prompt_tokens_details.cached_tokens", ResponseField::Cached, Want::Keep),
    ("usage.input_tokens_details.cached_tokens", ResponseField::Cached, Want::Keep),
    ("usage.cache_read_input_tokens", ResponseField::Cached, Want::Keep),
    ("usage.completion_tokens_details.reasoning_tokens", ResponseField::Reasoning, Want::Keep),
    ("usage.output_tokens_details.reasoning_tokens", ResponseField::Reasoning, Want::Keep),
    ("usage.reasoning_tokens", ResponseField::Reasoning, Want::Keep),
    ("incomplete_details.reason", ResponseField::Finish, Want::Keep),
    ("error", ResponseField::Error, Want::Presence),
    ("error.type", ResponseField::ErrorType, Want::Keep),
    ("error.code", ResponseField::ErrorCode, Want::Keep),
];

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
#[derive(Debug, Default)]
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
#[derive(Debug, Default)]
struct Event {
    id: Option<String>,
    model: Option<String>,
    usage: Usage,
    kind: Option<String>,
    index: Option<u32>,
    delta: bool,
    untyped_delta: bool,
    error: bool,
    error_type: Option<String>,
    error_code: Option<String>,
    choice: Choice,
    tokens: Vec<(u32, Option<u32>)>,
    finishes: Vec<(u32, String)>,
    finish: Option<String>,
    facts: Vec<Fact>,
}

#[derive(Debug, Default)]
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
            if let Some(new) = new.filter(|new| known.as_ref() != Some(new)) {
                *known = Some(new.clone());
                emit.push(SignalKind::Fact(fact(new)));
            }
        }
    }

    fn commit_tokens(&mut self, event: &mut Event, emit: &mut Emit<'_>) {
        let index = event.index.unwrap_or(0);
        // `index` is the choice only in llama.cpp's events: Anthropic counts blocks with it, TGI tokens.
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
            (F::Id, Value::Text(text)) => event.id = Some(text.to_owned()),
            (F::Model, Value::Text(text)) => event.model = Some(text.to_owned()),
            (F::Input, Value::Number(number)) => event.usage.input = whole(number),
            (F::Output, Value::Number(number)) => event.usage.output = whole(number),
            (F::Cached, Value::Number(number)) => event.usage.cached = whole(number),
            (F::Reasoning, Value::Number(number)) => event.usage.reasoning = whole(number),
            (F::Delta, value) => event.delta |= holds(value),
            (F::UntypedDelta, value) => event.untyped_delta |= holds(value),
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
