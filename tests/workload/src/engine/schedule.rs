//! The choice of each step: which sequences ride in it and with how many tokens. Pure.
//!
//! vLLM V1's rule: running sequences first, one token each for those that decode and the next chunk for those
//! still in prefill; then waiting requests in order of arrival, while sequences and tokens are left.

use std::collections::VecDeque;

use super::queue::Submission;

/// Limits of one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_batch: usize,
    pub(crate) max_tokens: usize,
}

/// A request in the batch.
pub(crate) struct Sequence {
    pub(crate) submission: Submission,
    /// Prompt tokens already processed.
    pub(crate) prefilled: usize,
    /// Tokens already made.
    pub(crate) generated: usize,
    /// Tokens processed in the current step; 0 when it does not ride in it.
    pub(crate) scheduled: usize,
    /// Whether the sequence joined the batch in the current step.
    pub(crate) admitted: bool,
}

impl Sequence {
    fn new(submission: Submission) -> Self {
        Self { submission, prefilled: 0, generated: 0, scheduled: 0, admitted: true }
    }

    /// Whether the current step is a decode of this sequence.
    pub(crate) fn decodes(&self) -> bool {
        self.scheduled > 0 && self.prompt_left() == 0
    }

    /// Whether the current step samples a token of this sequence.
    pub(crate) fn samples(&self) -> bool {
        self.scheduled > 0 && self.scheduled >= self.prompt_left()
    }

    /// Prompt tokens of the current step.
    pub(crate) fn prefills(&self) -> usize {
        self.scheduled.min(self.prompt_left())
    }

    fn prompt_left(&self) -> usize {
        self.submission.prompt_tokens.saturating_sub(self.prefilled)
    }

    /// Takes what `budget` allows; gives what is left of it.
    fn schedule(&mut self, budget: usize) -> usize {
        self.scheduled = self.prompt_left().max(1).min(budget);
        budget - self.scheduled
    }
}

/// Fills the next step from the batch and the queue. Aborted requests leave both first.
pub(crate) fn schedule(batch: &mut Vec<Sequence>, waiting: &mut VecDeque<Submission>, limits: Limits) {
    batch.retain(|sequence| !sequence.submission.is_aborted());
    waiting.retain(|submission| !submission.is_aborted());
    let mut budget = limits.max_tokens;
    for sequence in batch.iter_mut() {
        sequence.admitted = false;
        budget = sequence.schedule(budget);
    }
    while batch.len() < limits.max_batch && budget > 0 {
        let Some(submission) = waiting.pop_front() else { break };
        let mut sequence = Sequence::new(submission);
        budget = sequence.schedule(budget);
        batch.push(sequence);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicBool, mpsc};

    use super::*;

    fn submission(id: &str, prompt_tokens: usize) -> Submission {
        Submission {
            id: id.to_owned(),
            prompt_tokens,
            max_tokens: 4,
            seed: 0,
            events: mpsc::channel().0,
            aborted: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Ends a step as the engine does.
    fn complete(batch: &mut [Sequence]) {
        for sequence in batch {
            sequence.generated += usize::from(sequence.samples());
            sequence.prefilled += sequence.prefills();
        }
    }

    fn check(batch: &[Sequence], expected: &[(&str, usize, bool, bool)]) {
        let actual: Vec<_> = batch
            .iter()
            .map(|sequence| {
                (sequence.submission.id.as_str(), sequence.prefills(), sequence.decodes(), sequence.samples())
            })
            .collect();
        assert_eq!(actual, expected);
    }

    #[test]
    fn long_prompts_are_chunked_beside_decodes() {
        let limits = Limits { max_batch: 4, max_tokens: 10 };
        let mut waiting: VecDeque<_> = [submission("a", 3), submission("b", 16)].into();
        let mut batch = Vec::new();
        schedule(&mut batch, &mut waiting, limits);
        check(&batch, &[("a", 3, false, true), ("b", 7, false, false)]);
        complete(&mut batch);
        schedule(&mut batch, &mut waiting, limits);
        check(&batch, &[("a", 0, true, true), ("b", 9, false, true)]);
        complete(&mut batch);
        schedule(&mut batch, &mut waiting, limits);
        check(&batch, &[("a", 0, true, true), ("b", 0, true, true)]);
    }

    #[test]
    fn a_full_batch_leaves_the_rest_waiting_and_aborts_make_room() {
        let limits = Limits { max_batch: 1, max_tokens: 10 };
        let mut waiting: VecDeque<_> = [submission("a", 3), submission("b", 3)].into();
        let mut batch = Vec::new();
        schedule(&mut batch, &mut waiting, limits);
        assert_eq!((batch.len(), waiting.len()), (1, 1));
        batch[0].submission.aborted.store(true, std::sync::atomic::Ordering::Release);
        schedule(&mut batch, &mut waiting, limits);
        check(&batch, &[("b", 3, false, true)]);
    }

    #[test]
    fn without_budget_a_running_sequence_skips_the_step() {
        let limits = Limits { max_batch: 4, max_tokens: 3 };
        let mut waiting: VecDeque<_> = [submission("a", 3)].into();
        let mut batch = Vec::new();
        schedule(&mut batch, &mut waiting, limits);
        complete(&mut batch);
        waiting.extend([submission("b", 9), submission("c", 1)]);
        schedule(&mut batch, &mut waiting, limits);
        check(&batch, &[("a", 0, true, true), ("b", 2, false, false)]);
        assert_eq!(waiting.len(), 1);
    }
}
