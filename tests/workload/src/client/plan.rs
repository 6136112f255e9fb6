//! What each request will be, from the seed alone: the same options always send the same requests.

use std::str::FromStr;

use serde_json::{Value, json};

use super::record::ClientRecord;
use super::{Api, ClientOptions, StreamMode};

const WORDS: [&str; 16] = [
    "why", "does", "the", "engine", "batch", "requests", "while", "memory", "fills", "with", "keys", "and",
    "values", "über", "数据", "now",
];

/// A closed range, written `MIN..MAX`, or one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Least value.
    pub min: usize,
    /// Greatest value.
    pub max: usize,
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let number =
            |text: &str| text.parse::<usize>().map_err(|error| format!("{text:?} in a range: {error}"));
        let range = Self { min: number(min)?, max: number(max)? };
        if range.min > range.max { Err(format!("{text}: the first number is greater")) } else { Ok(range) }
    }
}

impl Range {
    fn draw(self, rng: &mut fastrand::Rng) -> usize {
        rng.usize(self.min..=self.max)
    }
}

/// One request to send.
pub(super) struct Planned {
    /// Nanoseconds after the start.
    pub(super) after_ns: u64,
    pub(super) body: Vec<u8>,
    /// Filled with what is known before the request is sent.
    pub(super) record: ClientRecord,
}

/// All requests of a run.
pub(super) struct Plan<'a> {
    options: &'a ClientOptions,
    after_ns: Vec<u64>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(options: &'a ClientOptions) -> Self {
        let mut rng = fastrand::Rng::with_seed(options.seed ^ 0x5eed);
        let mut elapsed_s = 0.0;
        let mut next = || {
            if let Some(rate) = options.rate {
                // Exponential gaps make a Poisson process; 1 - u is never 0.
                elapsed_s += -(1.0 - rng.f64()).ln() / rate.max(1e-6);
            }
            std::time::Duration::from_secs_f64(elapsed_s).as_nanos().try_into().unwrap_or(u64::MAX)
        };
        let after_ns = (0..options.requests).map(|_| next()).collect();
        Self { options, after_ns }
    }

    /// The request with this index; none after the last.
    pub(super) fn request(&self, index: usize) -> Option<Planned> {
        let after_ns = *self.after_ns.get(index)?;
        let options = self.options;
        let mut rng =
            fastrand::Rng::with_seed(options.seed.wrapping_mul(1_000_003).wrapping_add(index as u64));
        let prompt_words = options.prompt_words.draw(&mut rng);
        let max_tokens = options.max_tokens.draw(&mut rng);
        let prompt: Vec<_> = (0..prompt_words).filter_map(|_| rng.choice(WORDS)).collect();
        let stream = match options.stream {
            StreamMode::True => true,
            StreamMode::False => false,
            StreamMode::Mix => index.is_multiple_of(2),
        };
        let trace = options
            .traceparent
            .then(|| (format!("{:032x}", rng.u128(1..)), format!("{:016x}", rng.u64(1..))));
        let (trace_id, parent_id) = trace.unzip();
        let record = ClientRecord {
            index,
            stream,
            prompt_words,
            max_tokens,
            trace_id,
            parent_id,
            ..ClientRecord::default()
        };
        let body = body(options, &prompt.join(" "), max_tokens, stream);
        Some(Planned { after_ns, body: body.to_string().into_bytes(), record })
    }
}

fn body(options: &ClientOptions, prompt: &str, max_tokens: usize, stream: bool) -> Value {
    let model = &options.model;
    let mut body = match options.api {
        Api::Chat => {
            json!({"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens})
        }
        Api::Completions => json!({"model": model, "prompt": prompt, "max_tokens": max_tokens}),
        Api::Ollama => json!({"model": model, "prompt": prompt, "options": {"num_predict": max_tokens}}),
    };
    if let Some(fields) = body.as_object_mut() {
        fields.insert("stream".to_owned(), stream.into());
        if stream && options.api != Api::Ollama {
            fields.insert("stream_options".to_owned(), json!({"include_usage": true}));
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!("3..9".parse(), Ok(Range { min: 3, max: 9 }));
        assert_eq!("5".parse(), Ok(Range { min: 5, max: 5 }));
        assert!("9..3".parse::<Range>().is_err() && "a..3".parse::<Range>().is_err());
    }

    #[test]
    fn the_seed_decides_everything() {
        let options = ClientOptions { rate: Some(10.0), traceparent: true, ..ClientOptions::new("http://x") };
        let send = |seed| {
            let options = ClientOptions { seed, ..options.clone() };
            let planned = Plan::new(&options).request(7).unwrap();
            (planned.after_ns, planned.body, planned.record.trace_id)
        };
        assert_eq!(send(1), send(1));
        assert_ne!(send(1), send(2));
        assert!(Plan::new(&options).request(16).is_none());
    }

    #[test]
    fn gaps_have_the_asked_mean() {
        let options = ClientOptions { rate: Some(100.0), requests: 10_000, ..ClientOptions::new("http://x") };
        let last_s = Plan::new(&options).after_ns[9_999] as f64 / 1e9;
        assert!((95.0..105.0).contains(&last_s), "{last_s}");
    }
}
