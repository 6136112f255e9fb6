//! Where the servers' dialects say what: the listed paths of a response, or of one event of a stream.
//!
//! OpenAI chat, completions and responses; Anthropic messages; TGI; Ollama; llama.cpp; SGLang; Triton's generate
//! extension. Their keys do not collide, so one list serves all. Paths to text are listed for "is it empty" only.

use std::sync::LazyLock;

use super::paths::{Paths, Want};
use super::signal::{ServerCount, ServerTime};

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
    /// An object for each token.
    Token,
    /// As `Delta`; the event's `index` is its choice (llama.cpp). Anthropic counts blocks with it, TGI tokens.
    IndexedDelta,
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
        presence("token", F::Token),
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
        presence("content", F::IndexedDelta),
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
