//! What is asked of an engine. In go requests, some of them given up on purpose; out comes what the client saw of each,
//! by `tests/servers/engine_client.py`, whose times are of the same clock as the engine's own.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use xtask::server::Running;

/// Words of the models' vocabulary (`xtask/server/random_transformer.py`).
const WORDS: u32 = 1024;

/// A request.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// Requests of one lane share a connection, one after the other.
    pub lane: usize,
    pub wait_s: f64,
    pub path: &'static str,
    pub headers: BTreeMap<&'static str, String>,
    pub body: Value,
    /// The connection ends with it.
    pub fresh: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
}

/// When the client leaves.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Abort {
    /// After so many events of the stream.
    Events(u32),
    /// After so many seconds.
    AfterS(f64),
}

impl Asked {
    /// A chat whose answer has exactly this many tokens.
    pub fn chat(running: &Running, words: &str, tokens: u32) -> Self {
        let messages = json!([{"role": "user", "content": words}]);
        Self::new(running, "/v1/chat/completions", tokens).with("messages", messages)
    }

    /// The same without a dialogue; the prompt can be a list of prompts.
    pub fn completion(running: &Running, prompt: impl Into<Value>, tokens: u32) -> Self {
        Self::new(running, "/v1/completions", tokens).with("prompt", prompt.into())
    }

    fn new(running: &Running, path: &'static str, tokens: u32) -> Self {
        let body =
            json!({"model": running.model, "max_tokens": tokens, "ignore_eos": true, "temperature": 1.0});
        Self { lane: 0, wait_s: 0.0, path, headers: BTreeMap::new(), body, fresh: false, abort: None }
    }

    /// On the connection of this lane.
    pub fn on(self, lane: usize) -> Self {
        Self { lane, ..self }
    }

    /// So long after its turn.
    pub fn after(self, wait_s: f64) -> Self {
        Self { wait_s, ..self }
    }

    /// With a field of the body.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.body.as_object_mut().unwrap().insert(name.into(), value.into());
        self
    }

    /// With a header.
    pub fn head(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.to_owned());
        self
    }

    /// Without a field of the body, which this server refuses.
    pub fn without(mut self, name: &str) -> Self {
        self.body.as_object_mut().unwrap().remove(name);
        self
    }

    /// On a connection that ends with it.
    pub fn alone(self) -> Self {
        Self { fresh: true, ..self }
    }

    /// As events, with the count of tokens at the end.
    pub fn streamed(self) -> Self {
        self.with("stream", true).with("stream_options", json!({"include_usage": true}))
    }

    /// Given up.
    pub fn left(self, abort: Abort) -> Self {
        Self { abort: Some(abort), ..self.with("stream", true) }
    }

    pub fn is_streamed(&self) -> bool {
        self.body.get("stream").is_some()
    }

    /// Answers for each of its prompts.
    pub fn n(&self) -> u64 {
        self.body.get("n").and_then(Value::as_u64).unwrap_or(1)
    }

    /// Requests that the engine sees.
    pub fn parts(&self) -> u64 {
        let prompts = self.body.get("prompt").and_then(Value::as_array).map_or(1, Vec::len);
        self.n() * prompts as u64
    }

    /// A string in the text ends its answer, which only the front end can see.
    pub fn has_stop_string(&self) -> bool {
        self.body.get("stop").is_some()
    }
}

/// What the client saw; all times are `CLOCK_MONOTONIC` nanoseconds.
#[derive(Clone, Debug, Deserialize)]
pub struct Record {
    pub sent_ns: u64,
    /// When the answer's head was there.
    pub head_ns: Option<u64>,
    pub end_ns: u64,
    pub status: u16,
    pub id: Option<String>,
    pub usage: Option<Usage>,
    /// vLLM's own account of the request, where it was told to give one.
    pub metrics: Option<Metrics>,
    /// llama-server's.
    pub timings: Option<Timings>,
    /// Time, choice and length of each piece of text.
    pub texts: Vec<(u64, u64, u64)>,
    /// Finish reasons by choice.
    pub reasons: BTreeMap<String, String>,
    pub aborted: bool,
    pub error: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Usage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub prompt_tokens_details: Option<Details>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Details {
    pub cached_tokens: Option<u64>,
}

/// vLLM 0.32, `--enable-per-request-metrics` (vllm/entrypoints/generate/base/serving.py): of the engine's own stamps.
#[derive(Clone, Debug, Deserialize)]
pub struct Metrics {
    /// From QUEUED to SCHEDULED.
    pub queue_time_ms: Option<f64>,
    /// From SCHEDULED to the first token.
    pub time_to_first_token_ms: Option<f64>,
    /// From the first token to the last.
    pub generation_time_ms: Option<f64>,
}

/// llama-server's `timings` of an answer.
#[derive(Clone, Debug, Deserialize)]
pub struct Timings {
    /// Tokens of the prompt that it had kept.
    pub cache_n: u64,
    /// Tokens of the prompt that it computed.
    pub prompt_n: u64,
    pub prompt_ms: f64,
    pub predicted_n: u64,
    pub predicted_ms: f64,
}

impl Record {
    /// Whole, and as asked for.
    pub fn is_whole(&self) -> bool {
        self.status == 200 && self.error.is_none() && !self.aborted && self.usage.is_some()
    }

    /// When the first text of a choice was there.
    pub fn first_text_ns(&self, choice: u64) -> Option<u64> {
        self.texts.iter().find(|text| text.1 == choice).map(|text| text.0)
    }
}

/// Sends all of it, and waits for all of it.
pub fn run(running: &Running, plan: &[Asked]) -> Vec<Record> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../servers/engine_client.py");
    let (host, port) = running.url.strip_prefix("http://").unwrap().split_once(':').unwrap();
    let mut client = Command::new("python3");
    client.arg(script).args([host, port]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut client = client.spawn().expect("python3 runs");
    let mut input = client.stdin.take().unwrap();
    input.write_all(&serde_json::to_vec(plan).unwrap()).unwrap();
    drop(input);
    let output = client.wait_with_output().unwrap();
    assert!(output.status.success(), "the client failed: {}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    let records: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), plan.len());
    records
}

/// Words of the vocabulary: the same for the same seed.
pub fn words(seed: u64, count: usize) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    let words: Vec<String> = (0..count).map(|_| format!("w{}", random.u32(..WORDS))).collect();
    words.join(" ")
}
