//! What the integration tests share: a scratch folder, a server in it, and the comparison of both ends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use workload::{ClientRecord, ServerOptions, ServerTruth};

/// A folder of its own for one test, removed at the end.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("workload-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// `options` with the truth log in this folder.
    pub fn options(&self, options: ServerOptions) -> ServerOptions {
        ServerOptions { truth: Some(self.truth_path()), ..options }
    }

    pub fn truth(&self) -> ServerTruth {
        ServerTruth::read(&self.truth_path()).unwrap()
    }

    fn truth_path(&self) -> PathBuf {
        self.0.join("truth.jsonl")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Every request of the client is in the truth log with the same counts and an order of times that can be, and
/// the steps' members add up to the requests' tokens.
pub fn check_client_against_truth(records: &[ClientRecord], truth: &ServerTruth) {
    for record in records {
        assert!(record.is_ok(), "{record:?}");
        let request = truth.request(record.id.as_deref().unwrap()).unwrap();
        assert_eq!((request.peer_port, request.ordinal), (record.local_port, record.ordinal));
        let usage = record.usage.unwrap();
        assert_eq!(
            (usage.prompt_tokens, usage.completion_tokens),
            (request.prompt_tokens, request.completion_tokens)
        );
        assert_eq!(request.prompt_tokens, record.prompt_words as u64);
        assert_eq!(request.completion_tokens, record.max_tokens as u64);
        assert_eq!(request.tokens_ns.len() as u64, request.completion_tokens);
        assert!(
            request.arrival_ns <= request.tokens_ns[0]
                && request.end_ns >= *request.tokens_ns.last().unwrap()
        );
        if record.stream {
            assert_eq!(record.deltas_ns.len(), request.tokens_ns.len());
            let in_order = record.deltas_ns.iter().zip(&request.tokens_ns).all(|(seen, sent)| seen >= sent);
            assert!(in_order, "a token was seen before it was sent: {record:?} {request:?}");
        }
    }
    assert_eq!(truth.generations().count(), records.len());
    check_steps(truth);
}

/// Prefill and output counts per request, summed over the steps, are those of the request lines.
fn check_steps(truth: &ServerTruth) {
    let mut sums: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
    for (index, step) in truth.steps.iter().enumerate() {
        assert_eq!(step.index, index as u64);
        assert!(step.start_ns < step.end_ns);
        for member in &step.members {
            let sum = sums.entry(&member.id).or_insert((0, 0, step.index));
            sum.0 += member.prefill_tokens;
            sum.1 += u64::from(member.output);
            assert!(!member.decode || (member.output && member.prefill_tokens == 0));
        }
    }
    for request in truth.generations() {
        let sum = sums[request.id.as_deref().unwrap()];
        assert_eq!(sum, (request.prompt_tokens, request.completion_tokens, request.admitted_step.unwrap()));
    }
}
