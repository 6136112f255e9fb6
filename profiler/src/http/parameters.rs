//! What a generation request's JSON body says: the listed paths and their meaning.
//!
//! In: values at listed paths (from `json`). Out: [`RequestFacts`]. Deliberately absent: any path to a prompt other
//! than "how many".

use std::sync::LazyLock;

use super::json::{Receiver, Value};
use super::paths::{Paths, Want};
use super::signal::RequestFacts;

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
                // How many is known at the list's end.
                self.prompt_token_ids = Some(0);
                self.prompt_count = Some(1);
            }
            (RequestField::PromptItem, Value::Begin) | (RequestField::Prompt, Value::Filled(_)) => {
                self.prompt_count = Some(1);
            }
            (RequestField::Prompt, Value::Items(items)) => {
                self.prompt_count = self.prompt_count.or(Some(items));
                self.prompt_token_ids = self.prompt_token_ids.map(|_| items);
            }
            _ => {}
        }
    }
}

/// A count, when it is one. Above 2^53 a double no longer tells neighbours apart.
pub(super) fn whole(number: f64) -> Option<u64> {
    (number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number)).then_some(number as u64)
}
