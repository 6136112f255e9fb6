//! A request's body in, a job for the engine out: OpenAI chat and completions, Ollama generate.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::request::Request;
use crate::options::ServerOptions;

/// OpenAI's default for completions.
const DEFAULT_MAX_TOKENS: usize = 16;

/// The dialect of a request and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Chat,
    Completions,
    Ollama,
}

/// What a request asks the engine for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) dialect: Dialect,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    pub(super) prompt_tokens: usize,
    pub(super) max_tokens: usize,
}

/// An answer other than 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) status: u16,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

#[derive(Deserialize)]
struct ChatBody {
    model: String,
    messages: Vec<Message>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
}

#[derive(Deserialize)]
struct CompletionsBody {
    model: String,
    prompt: String,
    max_tokens: Option<usize>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
}

#[derive(Deserialize)]
struct OllamaBody {
    model: String,
    prompt: String,
    /// Ollama streams unless told otherwise.
    stream: Option<bool>,
    options: Option<OllamaOptions>,
}

#[derive(Deserialize)]
struct OllamaOptions {
    num_predict: Option<usize>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Deserialize)]
struct Message {
    content: Content,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    /// Absent in images, which count for nothing here.
    text: Option<String>,
}

impl Content {
    fn tokens(&self) -> usize {
        match self {
            Self::Text(text) => tokens(text),
            Self::Parts(parts) => parts.iter().filter_map(|part| part.text.as_deref()).map(tokens).sum(),
        }
    }
}

/// The tokenizer: one word, one token.
fn tokens(text: &str) -> usize {
    text.split_whitespace().count()
}

/// Reads `request` as a job of `dialect`.
pub(super) fn job(dialect: Dialect, request: &Request, options: &ServerOptions) -> Result<Job, Failure> {
    let (model, job) = match dialect {
        Dialect::Chat => chat(parse(request)?),
        Dialect::Completions => completions(parse(request)?),
        Dialect::Ollama => ollama(parse(request)?),
    };
    if model != options.model {
        return Err(Failure::new(
            404,
            format!("the model `{model}` does not exist; this server has `{}`", options.model),
        ));
    }
    if job.max_tokens == 0 {
        return Err(Failure::new(400, "max_tokens must be at least 1"));
    }
    let length = job.prompt_tokens.saturating_add(job.max_tokens);
    if length > options.max_model_len {
        let limit = options.max_model_len;
        return Err(Failure::new(
            400,
            format!("prompt and completion have {length} tokens; this model takes {limit}"),
        ));
    }
    Ok(job)
}

fn parse<T: DeserializeOwned>(request: &Request) -> Result<T, Failure> {
    serde_json::from_slice(&request.body).map_err(|error| Failure::new(400, format!("invalid body: {error}")))
}

fn chat(body: ChatBody) -> (String, Job) {
    let prompt_tokens = body.messages.iter().map(|message| message.content.tokens()).sum::<usize>();
    let max_tokens = body.max_completion_tokens.or(body.max_tokens);
    let include_usage = body.stream_options.is_some_and(|options| options.include_usage);
    (body.model, Job::new(Dialect::Chat, body.stream, include_usage, prompt_tokens, max_tokens))
}

fn completions(body: CompletionsBody) -> (String, Job) {
    let include_usage = body.stream_options.is_some_and(|options| options.include_usage);
    let prompt_tokens = tokens(&body.prompt);
    (body.model, Job::new(Dialect::Completions, body.stream, include_usage, prompt_tokens, body.max_tokens))
}

fn ollama(body: OllamaBody) -> (String, Job) {
    let max_tokens = body.options.and_then(|options| options.num_predict);
    let prompt_tokens = tokens(&body.prompt);
    (body.model, Job::new(Dialect::Ollama, body.stream.unwrap_or(true), true, prompt_tokens, max_tokens))
}

impl Job {
    fn new(
        dialect: Dialect,
        stream: bool,
        include_usage: bool,
        prompt: usize,
        max_tokens: Option<usize>,
    ) -> Self {
        let max_tokens = max_tokens.unwrap_or(DEFAULT_MAX_TOKENS);
        // Even an empty prompt has a begin-of-sequence token.
        Self { dialect, stream, include_usage, prompt_tokens: prompt.max(1), max_tokens }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(dialect: Dialect, body: &str, expected: Result<(bool, bool, usize, usize), u16>) {
        let request = Request { body: body.as_bytes().to_vec(), ..Request::default() };
        let actual = job(dialect, &request, &ServerOptions::default())
            .map(|job| (job.stream, job.include_usage, job.prompt_tokens, job.max_tokens))
            .map_err(|failure| failure.status);
        assert_eq!(actual, expected, "{body}");
    }

    #[test]
    fn bodies_of_all_dialects() {
        check(
            Dialect::Chat,
            r#"{"model":"workload-1","messages":[{"role":"user","content":"a b c"}]}"#,
            Ok((false, false, 3, 16)),
        );
        check(
            Dialect::Chat,
            r#"{"model":"workload-1","messages":[{"content":[{"type":"text","text":"a b"},{"type":"image_url"}]},{"content":"c"}],
                "max_tokens":9,"stream":true,"stream_options":{"include_usage":true}}"#,
            Ok((true, true, 3, 9)),
        );
        check(
            Dialect::Completions,
            r#"{"model":"workload-1","prompt":"","max_tokens":1}"#,
            Ok((false, false, 1, 1)),
        );
        check(
            Dialect::Ollama,
            r#"{"model":"workload-1","prompt":"a","options":{"num_predict":5}}"#,
            Ok((true, true, 1, 5)),
        );
    }

    #[test]
    fn wrong_bodies_have_their_status() {
        check(Dialect::Chat, "{", Err(400));
        check(Dialect::Chat, r#"{"model":"workload-1"}"#, Err(400));
        check(Dialect::Completions, r#"{"model":"other","prompt":"a"}"#, Err(404));
        check(Dialect::Completions, r#"{"model":"workload-1","prompt":"a","max_tokens":0}"#, Err(400));
        check(Dialect::Completions, r#"{"model":"workload-1","prompt":"a","max_tokens":4096}"#, Err(400));
    }
}
