//! The pieces of an answer: SSE events, NDJSON lines and whole JSON bodies, read into the record.

use serde::Deserialize;

use super::record::{ClientRecord, Usage};

/// What all dialects' objects may have; unknown fields are passed over.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Object {
    id: Option<String>,
    model: Option<String>,
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<serde_json::Value>,
    // Ollama.
    response: Option<String>,
    done: bool,
    done_reason: Option<String>,
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Choice {
    delta: Option<Text>,
    message: Option<Text>,
    text: Option<String>,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Text {
    content: Option<String>,
    /// llama-server puts the text of reasoning models here.
    reasoning_content: Option<String>,
}

impl Choice {
    fn text(self) -> String {
        let from = |text: Option<Text>| {
            text.map(|text| text.reasoning_content.unwrap_or_default() + &text.content.unwrap_or_default())
        };
        from(self.delta).or(from(self.message)).or(self.text).unwrap_or_default()
    }
}

/// Takes complete events off the front of `buffer` and adds them to the record; `now_ns` is the time of the
/// read that completed them.
pub(super) fn drain(buffer: &mut Vec<u8>, ndjson: bool, now_ns: u64, record: &mut ClientRecord) {
    // Lines suffice for both formats: each event of these servers has one `data:` line.
    while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = buffer.drain(..=end).collect();
        let line = line.trim_ascii();
        if ndjson {
            object(line, now_ns, record);
        } else if let Some(data) = line.strip_prefix(b"data:") {
            data_line(data.trim_ascii(), now_ns, record);
        } else if line.starts_with(b":") {
            record.comments += 1;
        }
    }
}

/// Adds the body of an answer that is not streamed.
pub(super) fn whole(body: &[u8], now_ns: u64, record: &mut ClientRecord) {
    object(body, now_ns, record);
    // Times of tokens are not visible in such an answer.
    record.deltas_ns.clear();
    record.first_delta_ns = None;
}

fn data_line(data: &[u8], now_ns: u64, record: &mut ClientRecord) {
    if data == b"[DONE]" {
        record.done = true;
    } else {
        object(data, now_ns, record);
    }
}

fn object(json: &[u8], now_ns: u64, record: &mut ClientRecord) {
    if json.is_empty() {
        return;
    }
    let object: Object = match serde_json::from_slice(json) {
        Ok(object) => object,
        Err(error) => {
            record.error = Some(format!("an object of the answer is not understood: {error}"));
            return;
        }
    };
    if let Some(error) = object.error {
        record.error = Some(format!("the server answered an error: {error}"));
    }
    record.id = object.id.or(record.id.take());
    record.model = object.model.or(record.model.take());
    record.usage = object.usage.or(record.usage);
    record.done |= object.done;
    if let (Some(prompt_tokens), Some(completion_tokens)) = (object.prompt_eval_count, object.eval_count) {
        record.usage = Some(Usage { prompt_tokens, completion_tokens });
    }
    record.finish_reason = object.done_reason.or(record.finish_reason.take());
    let mut text_bytes = object.response.map_or(0, |text| text.len());
    for mut choice in object.choices {
        record.finish_reason = choice.finish_reason.take().or(record.finish_reason.take());
        text_bytes += choice.text().len();
    }
    if text_bytes > 0 {
        record.text_bytes += text_bytes as u64;
        record.deltas_ns.push(now_ns);
        record.first_delta_ns.get_or_insert(now_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chat_stream_in_two_reads() {
        let mut record = ClientRecord { stream: true, ..ClientRecord::default() };
        let mut buffer = concat!(
            "data: {\"id\":\"x\",\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n: ping\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"ab\"}}]}\n\ndata: {\"choices\":[{\"delta\""
        )
        .as_bytes()
        .to_vec();
        drain(&mut buffer, false, 5, &mut record);
        buffer.extend(b":{\"content\":\"c\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n");
        drain(&mut buffer, false, 9, &mut record);
        assert_eq!((record.deltas_ns, record.first_delta_ns, record.comments), (vec![5, 9], Some(5), 1));
        assert_eq!((record.id.as_deref(), record.finish_reason.as_deref()), (Some("x"), Some("stop")));
        assert_eq!((record.text_bytes, record.done, record.error), (3, true, None));
    }

    #[test]
    fn an_error_object_is_an_error() {
        let mut record = ClientRecord::default();
        drain(&mut b"data: {\"error\":{\"message\":\"no\"}}\n".to_vec(), false, 5, &mut record);
        assert!(record.error.unwrap().contains("no"));
    }

    #[test]
    fn ollama_counts() {
        let mut record = ClientRecord::default();
        let text = "{\"response\":\" a\",\"done\":false}\n{\"response\":\"\",\"done\":true,\"done_reason\":\"length\",\"prompt_eval_count\":4,\"eval_count\":1}\n";
        drain(&mut text.as_bytes().to_vec(), true, 5, &mut record);
        assert_eq!(record.usage, Some(Usage { prompt_tokens: 4, completion_tokens: 1 }));
        assert!(record.done && record.deltas_ns == [5]);
    }
}
