//! What the body of an answer says, as the client reads it: bytes and times in; events, tokens and counts out. Written for
//! the few servers of these tests, and deliberately not by the profiler's own parsers.

use anyhow::{Context as _, Result};
use hyper::HeaderMap;
use serde_json::Value;

/// The body so far.
#[derive(Clone, Default)]
pub struct Events {
    streamed: bool,
    buffer: Vec<u8>,
    /// SSE events with a document.
    pub count: u64,
    /// After the read that completed each event with text.
    pub deltas_ns: Vec<u64>,
    pub prompt_tokens: Option<u64>,
    pub completion_tokens: Option<u64>,
    pub finish: Option<String>,
    pub done: bool,
    pub id: Option<String>,
}

/// Times in numbers: hundreds of them would hide the rest.
impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events")
            .field("count", &self.count)
            .field("deltas", &self.deltas_ns.len())
            .field("first_ns", &self.deltas_ns.first())
            .field("prompt_tokens", &self.prompt_tokens)
            .field("completion_tokens", &self.completion_tokens)
            .field("finish", &self.finish)
            .field("done", &self.done)
            .field("id", &self.id)
            .finish()
    }
}

impl Events {
    pub fn of(headers: &HeaderMap) -> Self {
        let kind = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        Self { streamed: kind.starts_with("text/event-stream"), ..Self::default() }
    }

    /// Bytes of the body in, read at `time_ns`.
    pub fn take(&mut self, data: &[u8], time_ns: u64) {
        self.buffer.extend_from_slice(data);
        if !self.streamed {
            return;
        }
        while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
            let text = String::from_utf8_lossy(&event);
            for data in text.lines().filter_map(|line| line.strip_prefix("data:")) {
                self.event(data.trim(), time_ns);
            }
        }
    }

    fn event(&mut self, data: &str, time_ns: u64) {
        if data == "[DONE]" {
            self.done = true;
            return;
        }
        self.count += 1;
        if let Ok(value) = serde_json::from_str::<Value>(data) {
            let text = value.pointer("/choices/0/delta/content").and_then(Value::as_str);
            if text.is_some_and(|text| !text.is_empty()) {
                self.deltas_ns.push(time_ns);
            }
            self.learn(&value);
        }
    }

    /// The body is over.
    pub fn end(&mut self) -> Result<()> {
        if !self.streamed {
            let value = serde_json::from_slice(&self.buffer).context("the answer is no JSON")?;
            self.learn(&value);
        }
        Ok(())
    }

    fn learn(&mut self, value: &Value) {
        let number = |path| value.pointer(path).and_then(Value::as_u64);
        let text = |path| value.pointer(path).and_then(Value::as_str).map(str::to_owned);
        self.prompt_tokens = number("/usage/prompt_tokens").or(self.prompt_tokens);
        self.completion_tokens = number("/usage/completion_tokens").or(self.completion_tokens);
        self.finish = text("/choices/0/finish_reason").or(self.finish.take());
        self.id = text("/id").or(self.id.take());
    }
}
