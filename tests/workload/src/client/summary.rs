//! The records of a run in a few numbers.

use serde::Serialize;

use super::record::ClientRecord;

/// Counts and percentiles of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Requests sent.
    pub requests: usize,
    /// Answered 200 and complete.
    pub ok: usize,
    /// Closed by the client on purpose.
    pub aborted: usize,
    /// Failed.
    pub errors: usize,
    /// Prompt tokens by the servers' count.
    pub prompt_tokens: u64,
    /// Completion tokens by the servers' count.
    pub completion_tokens: u64,
    /// Events with text.
    pub deltas: usize,
    /// From the first request's last byte to the last answer's end, in seconds.
    pub elapsed_s: f64,
    /// Median time to first token of streams, in milliseconds.
    pub ttft_p50_ms: Option<f64>,
    /// 99th percentile of the same.
    pub ttft_p99_ms: Option<f64>,
    /// Median gap between two events with text, in milliseconds.
    pub itl_p50_ms: Option<f64>,
}

impl Summary {
    /// Sums up a run.
    pub fn of(records: &[ClientRecord]) -> Self {
        let usage = || records.iter().filter_map(|record| record.usage);
        let mut ttft: Vec<u64> = records.iter().filter_map(ClientRecord::time_to_first_token_ns).collect();
        let mut gaps: Vec<u64> = records.iter().flat_map(|record| gaps(&record.deltas_ns)).collect();
        ttft.sort_unstable();
        gaps.sort_unstable();
        let first = records.iter().map(|record| record.sent_ns).filter(|sent| *sent > 0).min().unwrap_or(0);
        let last = records.iter().map(|record| record.end_ns).max().unwrap_or(first);
        Self {
            requests: records.len(),
            ok: records.iter().filter(|record| record.is_ok()).count(),
            aborted: records.iter().filter(|record| record.aborted).count(),
            errors: records.iter().filter(|record| record.error.is_some()).count(),
            prompt_tokens: usage().map(|usage| usage.prompt_tokens).sum(),
            completion_tokens: usage().map(|usage| usage.completion_tokens).sum(),
            deltas: records.iter().map(|record| record.deltas_ns.len()).sum(),
            elapsed_s: last.saturating_sub(first) as f64 / 1e9,
            ttft_p50_ms: percentile_ms(&ttft, 50),
            ttft_p99_ms: percentile_ms(&ttft, 99),
            itl_p50_ms: percentile_ms(&gaps, 50),
        }
    }
}

fn gaps(times: &[u64]) -> impl Iterator<Item = u64> {
    times.iter().zip(times.iter().skip(1)).map(|(earlier, later)| later.saturating_sub(*earlier))
}

/// Nearest rank of sorted nanoseconds, in milliseconds.
fn percentile_ms(sorted: &[u64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).map(|value| *value as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_rank() {
        let values: Vec<u64> = (1..=200).map(|value| value * 1_000_000).collect();
        assert_eq!(percentile_ms(&values, 50), Some(100.0));
        assert_eq!(percentile_ms(&values, 99), Some(198.0));
        assert_eq!(percentile_ms(&[], 99), None);
    }
}
