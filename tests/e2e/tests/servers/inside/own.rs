//! What servers say of themselves: `/metrics`, vLLM's lines about its steps, llama.cpp's about its batches.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use xtask::server::Running;

/// One reading of `/metrics`, or the difference of two.
#[derive(Clone, Debug, Default)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    pub fn of(running: &Running) -> Self {
        let address = running.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let samples = answer.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.filter_map(|line| line.rsplit_once(' '));
        Self(samples.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }

    pub fn since(&self, earlier: &Self) -> Self {
        let before = |name: &String| earlier.0.get(name).copied().unwrap_or(0.0);
        Self(self.0.iter().map(|(name, now)| (name.clone(), now - before(name))).collect())
    }

    /// The sum over all samples of a metric that have this in their labels.
    pub fn sum(&self, metric: &str, label: &str) -> f64 {
        let of_metric = |name: &str| name.split('{').next() == Some(metric) && name.contains(label);
        let mut found = self.0.iter().filter(|(name, _)| of_metric(name)).map(|(_, value)| value).peekable();
        assert!(found.peek().is_some(), "the server has no metric {metric} with {label}");
        found.sum()
    }

    /// A counter.
    pub fn count(&self, metric: &str, label: &str) -> u64 {
        self.sum(metric, label).round() as u64
    }
}

/// A step as vLLM logs it (`--enable-logging-iteration-details`, vllm/v1/metrics/loggers.py, 0.32).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iteration {
    pub prefills: u64,
    pub prefill_tokens: u64,
    pub decodes: u64,
    pub decode_tokens: u64,
}

impl Iteration {
    /// How many were in it. A request that was preempted computes its prompt and its answer anew, which vLLM counts as
    /// generation.
    pub fn members(&self) -> u64 {
        self.prefills + self.decodes
    }

    /// What it computed.
    pub fn tokens(&self) -> u64 {
        self.prefill_tokens + self.decode_tokens
    }
}

/// The steps in a log.
pub fn iterations(log: &str) -> Vec<Iteration> {
    let lines = log.lines().filter_map(|line| line.split_once("Iteration("));
    let parse = |(_, line): (&str, &str)| Iteration {
        prefills: before(line, " context requests"),
        prefill_tokens: before(line, " context tokens"),
        decodes: before(line, " generation requests"),
        decode_tokens: before(line, " generation tokens"),
    };
    lines.map(parse).collect()
}

/// The number before some words.
fn before(line: &str, words: &str) -> u64 {
    let (head, _) = line.split_once(words).unwrap_or_else(|| panic!("no{words} in {line}"));
    let number = head.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap();
    number.parse().unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// What a batch of llama.cpp has of one sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    pub tokens: u64,
    pub outputs: u64,
}

/// The batches in a log, each by sequence (`LLAMA_BATCH_DEBUG=2`, src/llama-batch.cpp of llama.cpp 0.5.0). The log has
/// each batch once as it was given, and again as it was split; the former begins with `input batch info`.
pub fn batches(log: &str) -> Vec<BTreeMap<u64, Run>> {
    let mut batches = Vec::new();
    let mut given = false;
    for line in log.lines() {
        if line.contains("init: input batch info:") {
            given = true;
            batches.push(BTreeMap::new());
        } else if line.contains("init:   seq       = [") || line.contains("ubatch_add:") {
            given = false;
        } else if let (true, Some(batch), Some((sequence, output))) = (given, batches.last_mut(), token(line))
        {
            let run: &mut Run = batch.entry(sequence).or_default();
            run.tokens += 1;
            run.outputs += output;
        }
    }
    batches
}

/// `…, seq_id = [..2.], output = 0`: the sequence and the output of a token.
fn token(line: &str) -> Option<(u64, u64)> {
    let (_, rest) = line.split_once("seq_id = [")?;
    let (sequence, output) = rest.split_once("], output = ")?;
    Some((sequence.trim_matches('.').parse().ok()?, output.trim().parse().ok()?))
}

#[test]
fn logs_are_read() {
    let line = "Engine 000: Iteration(0): 6 context requests, 16 context tokens, 2 generation requests, 3 generation \
                tokens, iteration elapsed time: 9.71 ms";
    let read = Iteration { prefills: 6, prefill_tokens: 16, decodes: 2, decode_tokens: 3 };
    assert_eq!(iterations(line), [read]);
    let line =
        "0.1 D ubatch_print:  3: id = 1054 (  3), pos =    3, n_seq_id =  1, seq_id = [..2.], output = 1";
    let log = format!("D init: input batch info:\n{line}\n{line}\nD ubatch_add: added\n{line}\nnothing");
    assert_eq!(batches(&log), [BTreeMap::from([(2, Run { tokens: 2, outputs: 2 })])]);
}
