//! A request in, its answer out: OpenAI's chat dialect at the pace that the request asks for.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

const MODEL: &str = "tiny";
static IDS: AtomicU64 = AtomicU64::new(1);

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Answers a request.
pub async fn answer(request: Request<Incoming>) -> Result<Answer, hyper::Error> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    Ok(match path.as_str() {
        "/health" => document(StatusCode::OK, &json!({"status": "ok"})),
        "/v1/chat/completions" => chat(&body).await,
        _ => refusal(StatusCode::NOT_FOUND, "not_found", &format!("no such path: {path}")),
    })
}

/// What is asked for, and how fast it comes.
struct Question {
    words: Vec<String>,
    tokens: u64,
    prefill: Duration,
    pace: Duration,
    include_usage: bool,
}

async fn chat(body: &[u8]) -> Answer {
    let Ok(asked) = serde_json::from_slice::<Value>(body) else {
        return refusal(StatusCode::BAD_REQUEST, "invalid_request_error", "the body is no JSON");
    };
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let number = |name: &str| asked.get(name).and_then(Value::as_u64).unwrap_or(0);
    let model = text(&asked, "model").unwrap_or_default();
    if model != MODEL {
        return refusal(StatusCode::NOT_FOUND, "model_not_found", &format!("no model {model}"));
    }
    let messages = asked.get("messages").and_then(Value::as_array).into_iter().flatten();
    let contents: Vec<String> = messages.filter_map(|message| text(message, "content")).collect();
    let question = Question {
        words: contents.iter().flat_map(|content| content.split_whitespace().map(str::to_owned)).collect(),
        tokens: number("max_tokens"),
        prefill: Duration::from_millis(number("prefill_ms")),
        pace: Duration::from_millis(number("pace_ms")),
        include_usage: asked.pointer("/stream_options/include_usage") == Some(&Value::Bool(true)),
    };
    if asked.get("stream") == Some(&Value::Bool(true)) { stream(question) } else { complete(question).await }
}

fn document(status: StatusCode, value: &Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *answer.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    answer
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Answer {
    let error = json!({"message": message, "type": "invalid_request_error", "code": code});
    document(status, &json!({"error": error}))
}

fn usage(prompt: usize, completion: u64) -> Value {
    let prompt = prompt as u64;
    json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
}

fn id() -> String {
    format!("chatcmpl-{}", IDS.fetch_add(1, Ordering::Relaxed))
}

async fn complete(question: Question) -> Answer {
    let tokens = u32::try_from(question.tokens).unwrap_or(u32::MAX);
    tokio::time::sleep(question.prefill + question.pace * tokens).await;
    let words: Vec<&str> = question.words.iter().map(String::as_str).cycle().take(tokens as usize).collect();
    let message = json!({"role": "assistant", "content": words.join(" ")});
    let choice = json!({"index": 0, "message": message, "finish_reason": "length"});
    document(
        StatusCode::OK,
        &json!({
            "id": id(), "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice],
            "usage": usage(question.words.len(), question.tokens),
        }),
    )
}

fn stream(question: Question) -> Answer {
    let (sender, receiver) = mpsc::channel(1);
    // A client that left ends the task.
    tokio::spawn(async move { generate(question, &sender).await });
    let mut answer = Response::new(Events(receiver).boxed_unsync());
    let kind = hyper::header::HeaderValue::from_static("text/event-stream");
    answer.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    answer
}

async fn generate(question: Question, out: &mpsc::Sender<Bytes>) -> Option<()> {
    let id = id();
    let event = |choices: Value, usage: Option<Value>| {
        let mut value = json!({
            "id": id, "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": choices,
        });
        if let (Some(usage), Some(object)) = (usage, value.as_object_mut()) {
            object.insert("usage".to_owned(), usage);
        }
        Bytes::from(format!("data: {value}\n\n"))
    };
    let delta = |delta: Value, finish: Value| json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
    out.send(event(delta(json!({"role": "assistant", "content": ""}), Value::Null), None)).await.ok()?;
    tokio::time::sleep(question.prefill).await;
    let mut words = question.words.iter().cycle();
    for index in 0..question.tokens {
        if index > 0 {
            tokio::time::sleep(question.pace).await;
        }
        let word = words.next().map_or("none", String::as_str);
        let content = json!({"content": format!(" {word}")});
        out.send(event(delta(content, Value::Null), None)).await.ok()?;
    }
    out.send(event(delta(json!({}), "length".into()), None)).await.ok()?;
    if question.include_usage {
        out.send(event(json!([]), Some(usage(question.words.len(), question.tokens)))).await.ok()?;
    }
    out.send(Bytes::from_static(b"data: [DONE]\n\n")).await.ok()
}

/// A body whose parts come as they are made.
struct Events(mpsc::Receiver<Bytes>);

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}
