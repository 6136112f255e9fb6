//! The bytes of answers: heads, SSE chunks, NDJSON lines and whole JSON bodies of each dialect.

use serde_json::{Value, json};

use super::api::{Dialect, Failure, Job};
use crate::engine::Finish;

/// Some words have characters of two, three and four bytes.
const VOCABULARY: [&str; 12] =
    [" the", " a", " of", " to", " größer", " in", " 東京", " is", " naïve", " and", " 🚀", "."];

/// Makes the answers to one job.
pub(super) struct Reply {
    pub(super) id: String,
    model: String,
    created: u64,
    job: Job,
    words: fastrand::Rng,
}

impl Reply {
    pub(super) fn new(id: String, model: &str, job: Job, seed: u64) -> Self {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let created = since_epoch.map_or(0, |time| time.as_secs());
        Self { id, model: model.to_owned(), created, job, words: fastrand::Rng::with_seed(seed) }
    }

    /// The text of the next token.
    pub(super) fn next_word(&mut self) -> &'static str {
        self.words.choice(VOCABULARY).unwrap_or(".")
    }

    /// The chunk that says who speaks; sent before anything is generated.
    pub(super) fn role(&self) -> Option<Vec<u8>> {
        let delta = json!({"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": null});
        (self.job.dialect == Dialect::Chat).then(|| sse(&self.chunk(json!([delta]))))
    }

    /// The event of one token.
    pub(super) fn token(&self, text: &str) -> Vec<u8> {
        match self.job.dialect {
            Dialect::Chat => {
                sse(&self.chunk(json!([{"index": 0, "delta": {"content": text}, "finish_reason": null}])))
            }
            Dialect::Completions => {
                sse(&self.chunk(json!([{"index": 0, "text": text, "logprobs": null, "finish_reason": null}])))
            }
            Dialect::Ollama => line(&json!({"model": self.model, "response": text, "done": false})),
        }
    }

    /// The events after the last token.
    pub(super) fn last(&self, finish: Finish, completion_tokens: usize, elapsed_ns: u64) -> Vec<Vec<u8>> {
        let reason = finish.as_str();
        let choice = match self.job.dialect {
            Dialect::Chat => json!({"index": 0, "delta": {}, "finish_reason": reason}),
            Dialect::Completions => json!({"index": 0, "text": "", "finish_reason": reason}),
            Dialect::Ollama => return vec![line(&self.ollama("", reason, completion_tokens, elapsed_ns))],
        };
        let mut events = vec![sse(&self.chunk(json!([choice])))];
        if self.job.include_usage {
            let mut chunk = self.chunk(json!([]));
            if let Some(fields) = chunk.as_object_mut() {
                fields.insert("usage".to_owned(), self.usage(completion_tokens));
            }
            events.push(sse(&chunk));
        }
        events.push(b"data: [DONE]\n\n".to_vec());
        events
    }

    /// The event of an error after the head was sent.
    pub(super) fn error(&self, message: &str) -> Vec<u8> {
        match self.job.dialect {
            Dialect::Ollama => line(&json!({"error": message})),
            _ => sse(&json!({"error": {"message": message, "type": "server_error"}})),
        }
    }

    /// The body of an answer that is not streamed.
    pub(super) fn whole(
        &self,
        text: &str,
        finish: Finish,
        completion_tokens: usize,
        elapsed_ns: u64,
    ) -> Vec<u8> {
        let reason = finish.as_str();
        let (object, choice) = match self.job.dialect {
            Dialect::Chat => (
                "chat.completion",
                json!({"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}),
            ),
            Dialect::Completions => (
                "text_completion",
                json!({"index": 0, "text": text, "logprobs": null, "finish_reason": reason}),
            ),
            Dialect::Ollama => return line(&self.ollama(text, reason, completion_tokens, elapsed_ns)),
        };
        json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model,
            "choices": [choice], "usage": self.usage(completion_tokens),
        })
        .to_string()
        .into_bytes()
    }

    fn chunk(&self, choices: Value) -> Value {
        let object =
            if self.job.dialect == Dialect::Chat { "chat.completion.chunk" } else { "text_completion" };
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices})
    }

    fn usage(&self, completion_tokens: usize) -> Value {
        let prompt_tokens = self.job.prompt_tokens;
        let total_tokens = prompt_tokens + completion_tokens;
        json!({"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total_tokens})
    }

    fn ollama(&self, text: &str, reason: &str, completion_tokens: usize, elapsed_ns: u64) -> Value {
        json!({
            "model": self.model, "response": text, "done": true, "done_reason": reason,
            "total_duration": elapsed_ns, "load_duration": 0,
            "prompt_eval_count": self.job.prompt_tokens, "eval_count": completion_tokens,
        })
    }
}

/// The prefix of ids on the wire.
pub(super) fn id_prefix(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Chat => "chatcmpl",
        Dialect::Completions => "cmpl",
        Dialect::Ollama => "gen",
    }
}

/// The body of an answer other than 200.
pub(super) fn failure(path: &str, failure: &Failure) -> Vec<u8> {
    let kind = match failure.status {
        404 => "not_found_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    let body = if path.starts_with("/api/") {
        json!({"error": failure.message})
    } else {
        json!({"error": {"message": failure.message, "type": kind, "code": failure.status}})
    };
    body.to_string().into_bytes()
}

/// The head of an answer with a body of known length.
pub(super) fn whole_head(status: u16, length: usize, closes: bool) -> Vec<u8> {
    let retry = if status == 429 { "retry-after: 1\r\n" } else { "" };
    format!(
        "HTTP/1.1 {status} {}\r\nserver: workload\r\ncontent-type: application/json\r\n{retry}content-length: {length}\r\n{}\r\n",
        reason(status),
        connection(closes),
    )
    .into_bytes()
}

/// The head of a streamed answer.
pub(super) fn stream_head(dialect: Dialect, chunked: bool, closes: bool) -> Vec<u8> {
    let kind =
        if dialect == Dialect::Ollama { "application/x-ndjson" } else { "text/event-stream; charset=utf-8" };
    let framing = if chunked { "transfer-encoding: chunked\r\n" } else { "" };
    format!(
        "HTTP/1.1 200 OK\r\nserver: workload\r\ncontent-type: {kind}\r\ncache-control: no-cache\r\n{framing}{}\r\n",
        connection(closes),
    )
    .into_bytes()
}

fn connection(closes: bool) -> &'static str {
    if closes { "connection: close\r\n" } else { "" }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        429 => "Too Many Requests",
        503 => "Service Unavailable",
        _ => "Error",
    }
}

fn sse(value: &Value) -> Vec<u8> {
    format!("data: {value}\n\n").into_bytes()
}

fn line(value: &Value) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}
