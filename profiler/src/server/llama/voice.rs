//! How a process says what is known: requests, their moments and counts, steps.

use super::context::Context;
use super::sequence::{Phase, Request, Sequence};
use super::task::Asked;
use crate::evidence::Evidence;
use crate::server::said::{Counts, EngineStep, Inner, Moment, Part, Reason, Said, Saying};

/// Gives numbers to requests.
#[derive(Debug, Default)]
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) fn next(&mut self) -> Inner {
        self.0 += 1;
        Inner(self.0)
    }
}

/// Where and when something is said.
pub(super) struct Voice<'a> {
    pub(super) pid: u32,
    pub(super) time_ns: u64,
    pub(super) numbers: &'a mut Numbers,
    pub(super) out: &'a mut Vec<Said>,
}

impl Voice<'_> {
    pub(super) fn say(&mut self, saying: Saying) {
        self.out.push(Said { pid: self.pid, time_ns: self.time_ns, saying });
    }

    pub(super) fn reached(&mut self, inner: Inner, moment: Moment, at_ns: u64) {
        self.say(Saying::Reached { inner, moment, at_ns, evidence: Evidence::E1 });
    }

    pub(super) fn meet(&mut self, asked: Option<Asked>, generates: bool) -> Inner {
        let inner = self.numbers.next();
        let given_ns = asked.as_ref().map(|asked| asked.given_ns);
        let tie = asked.map(|asked| asked.tie).unwrap_or_default();
        self.say(Saying::Met { inner, tie, generates });
        if let Some(given_ns) = given_ns {
            self.reached(inner, Moment::Enqueued, given_ns);
        }
        inner
    }

    pub(super) fn end(&mut self, request: &Request, reason: Reason) {
        let generated = Some(request.generated);
        self.say(Saying::Counts { inner: request.inner, counts: Counts { generated, ..Counts::default() } });
        self.say(Saying::Ended { inner: request.inner, reason, at_ns: request.last_ns });
    }
}

/// Says a step, and what it means for its members.
pub(super) fn say_step(context: &mut Context, step: EngineStep, voice: &mut Voice<'_>) {
    for member in &step.members {
        let own =
            |sequence: &&mut Sequence| sequence.request.as_ref().is_some_and(|r| r.inner == member.inner);
        let sequence = context.sequences.values_mut().find(own);
        if let Some(sequence) = sequence
            && member.part == Part::Prefill
        {
            let over = sequence.request.as_ref().is_some_and(|r| r.phase == Phase::Embedding);
            if member.generated > 0 || over {
                say_prompt(sequence, voice);
            }
            if over && let Some(request) = sequence.request.take() {
                voice.say(Saying::Ended { inner: request.inner, reason: Reason::Unsaid, at_ns: step.end_ns });
            }
        }
        if member.generated > 0 {
            let (inner, count) = (member.inner, member.generated);
            voice.say(Saying::Tokens { inner, count, at_ns: step.end_ns });
        }
    }
    voice.say(Saying::Step(Box::new(step)));
}

/// Says how long a prompt was, where positions tell.
pub(super) fn say_prompt(sequence: &Sequence, voice: &mut Voice<'_>) {
    let Some(request) = sequence.request.as_ref().filter(|request| request.plain) else { return };
    let count = |position: Option<i32>| position.and_then(|position| u64::try_from(position).ok());
    let counts = Counts { prompt: count(request.prompt), cached: count(request.cached), generated: None };
    voice.say(Saying::Counts { inner: request.inner, counts });
}
