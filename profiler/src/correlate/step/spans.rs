//! Lengths of what spans of time cover, where they may overlap.

/// The length of what no span of `taken` covers; each of them reaches into the whole.
pub fn uncovered((from, to): (u64, u64), taken: &mut [(u64, u64)]) -> u64 {
    taken.sort_unstable();
    let (mut left, mut at) = (0, from);
    for (start, end) in taken {
        left += start.saturating_sub(at);
        at = at.max(*end);
    }
    left + to.saturating_sub(at)
}

/// The length of what spans cover.
pub fn covered(spans: &mut [(u64, u64)]) -> u64 {
    let from = spans.iter().map(|span| span.0).min().unwrap_or(0);
    let to = spans.iter().map(|span| span.1).max().unwrap_or(0);
    to - from - uncovered((from, to), spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overlaps_counts_once_and_gaps_not_at_all() {
        assert_eq!(covered(&mut []), 0);
        assert_eq!(covered(&mut [(30, 40), (10, 20), (12, 15), (18, 25)]), 25);
        assert_eq!(uncovered((0, 50), &mut [(30, 40), (10, 20)]), 30);
    }
}
