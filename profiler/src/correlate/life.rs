//! The states of a request's life and the rules between them: one machine, whoever feeds it.
//!
//! In: moments, each with what told it and how sure that is. Out: the states in order, and how often a moment broke the
//! rules, which it may not: a request that was answered before it asked is a bug of ours or of the clocks, and is
//! counted instead of believed. Streams feed it, and adapters that listen to
//! a server's inside.
//! ```text
//! open ─► head ─► body ─► enqueued ─► scheduled ─► prefilling ─► first token ─► decoding ─► engine done ─┐
//!                            ▲────────────┴── preempted ◄┴───────────────────────────┘                   ▼
//! at any time: aborted, rejected, error, partial, lost                                           response done
//! ```
//! A state that was skipped is unknown, not zero.

use crate::evidence::Evidence;

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Its first byte has arrived.
    Open,
    /// Its head has.
    Head,
    /// Its last byte has: from here on it can be queued.
    Body,
    /// The engine has it in its queue.
    Enqueued,
    /// The engine has chosen it for a step.
    Scheduled,
    /// A step with its prompt runs.
    Prefilling,
    /// Its first token is there.
    FirstToken,
    /// A token after the first is there.
    Decoding,
    /// The engine lost its memory to others; it is queued again.
    Preempted,
    /// The engine is done with it.
    EngineDone,
    /// The last byte of its answer has left.
    ResponseDone,
    /// The client left first.
    Aborted,
    /// It was refused.
    Rejected,
    /// The server failed.
    Error,
    /// A part of it was not seen.
    Partial,
    /// The process ended under it, or it was never seen to end.
    Lost,
}

impl State {
    /// The name in outputs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Head => "head",
            Self::Body => "body",
            Self::Enqueued => "enqueued",
            Self::Scheduled => "scheduled",
            Self::Prefilling => "prefilling",
            Self::FirstToken => "first_token",
            Self::Decoding => "decoding",
            Self::Preempted => "preempted",
            Self::EngineDone => "engine_done",
            Self::ResponseDone => "response_done",
            Self::Aborted => "aborted",
            Self::Rejected => "rejected",
            Self::Error => "error",
            Self::Partial => "partial",
            Self::Lost => "lost",
        }
    }

    /// Nothing follows.
    #[must_use]
    pub fn is_final(self) -> bool {
        self >= Self::ResponseDone
    }

    /// Whether `next` may follow. Ends may follow everything but ends; what follows a preemption is what comes before
    /// it; else only forward, and a state may come again: of many tokens, many chunks of a prompt.
    fn leads_to(self, next: Self) -> bool {
        match (self, next) {
            (from, _) if from.is_final() => false,
            (_, to) if to.is_final() => true,
            (from, Self::Preempted) => from >= Self::Scheduled,
            (Self::Preempted, to) => (Self::Enqueued..=Self::Decoding).contains(&to),
            (from, to) => from <= to,
        }
    }
}

/// What told a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// A system call on the connection, at its return.
    Socket,
    /// A call of a TLS library, at its return.
    Tls,
    /// GPU work of a process of the group.
    Gpu,
    /// The end of a process.
    Process,
    /// What the server said inside.
    Engine,
}

impl Hook {
    /// The name in outputs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Tls => "tls",
            Self::Gpu => "gpu",
            Self::Process => "process",
            Self::Engine => "engine",
        }
    }
}

/// A request reached a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Which.
    pub state: State,
    /// When, `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
    /// What told it.
    pub hook: Hook,
    /// How sure that it was this request.
    pub evidence: Evidence,
}

/// A request's states so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Life {
    transitions: Vec<Transition>,
    /// The newest, whether it stands in the list or not.
    last: Option<Transition>,
    /// States that did not fit into the list: of a request that is preempted again and again.
    pub left_out: u64,
    /// Moments that broke the rules.
    pub violations: u64,
}

impl Life {
    /// A life has a state for each entry of the machine, and some for preemptions.
    const MOST: usize = 64;

    /// What happened, in order.
    #[must_use]
    pub fn transitions(&self) -> &[Transition] {
        &self.transitions
    }

    /// The state it is in.
    #[must_use]
    pub fn state(&self) -> Option<State> {
        self.last.map(|transition| transition.state)
    }

    /// The newest state, with its moment.
    #[must_use]
    pub fn last(&self) -> Option<Transition> {
        self.last
    }

    /// A moment. One that repeats the state is no news; one that breaks the rules is counted, and changes nothing
    /// unless it ends the life.
    pub fn reach(&mut self, next: Transition) {
        let Some(last) = self.last else { return self.add(next, true) };
        let allowed = last.state.leads_to(next.state) && last.time_ns <= next.time_ns;
        self.violations += u64::from(!allowed);
        let ends = next.state.is_final() && !last.state.is_final();
        if last.state == next.state || !(allowed || ends) {
            return;
        }
        self.add(next, ends);
    }

    /// A moment that became known later. It takes its place between those before and after it, if it may follow the
    /// one and lead to the other.
    pub fn insert(&mut self, moment: Transition) {
        let place = self.transitions.partition_point(|known| known.time_ns <= moment.time_ns);
        let (before, after) = self.transitions.split_at(place);
        let follows =
            before.last().is_some_and(|last| last.state != moment.state && last.state.leads_to(moment.state));
        let leads = after.first().is_none_or(|next| moment.state.leads_to(next.state));
        if follows && leads && self.transitions.len() < Self::MOST {
            self.transitions.insert(place, moment);
            self.last = self.transitions.last().copied().filter(|_| self.left_out == 0).or(self.last);
        }
    }

    fn add(&mut self, next: Transition, must_fit: bool) {
        self.last = Some(next);
        if self.transitions.len() < Self::MOST || must_fit {
            self.transitions.push(next);
        } else {
            self.left_out += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::*;

    const ALL: [State; 16] = [
        Open,
        Head,
        Body,
        Enqueued,
        Scheduled,
        Prefilling,
        FirstToken,
        Decoding,
        Preempted,
        EngineDone,
        ResponseDone,
        Aborted,
        Rejected,
        Error,
        Partial,
        Lost,
    ];

    fn live(states: &[(State, u64)]) -> Life {
        let mut life = Life::default();
        for (state, time_ns) in states {
            let (state, time_ns) = (*state, *time_ns);
            life.reach(Transition { state, time_ns, hook: Hook::Socket, evidence: Evidence::E1 });
        }
        life
    }

    fn states(life: &Life) -> Vec<State> {
        life.transitions().iter().map(|transition| transition.state).collect()
    }

    #[test]
    fn a_full_life_breaks_no_rule() {
        let order = [
            Open,
            Head,
            Body,
            Enqueued,
            Scheduled,
            Prefilling,
            Preempted,
            Enqueued,
            Scheduled,
            Prefilling,
            FirstToken,
            Decoding,
            Decoding,
            Preempted,
            Scheduled,
            Decoding,
            EngineDone,
            ResponseDone,
        ];
        let timed: Vec<_> = order.into_iter().zip(1..).collect();
        let life = live(&timed);
        assert_eq!((life.violations, life.left_out), (0, 0));
        assert_eq!(states(&life).len(), order.len() - 1, "the second token is no news");
    }

    #[test]
    fn states_may_be_skipped_and_an_end_may_come_at_any_time() {
        for end in ALL.into_iter().filter(|state| state.is_final()) {
            for from in ALL.into_iter().filter(|state| !state.is_final()) {
                let life = live(&[(from, 1), (end, 1)]);
                assert_eq!((life.violations, life.state()), (0, Some(end)), "{from:?}");
            }
        }
        assert_eq!(live(&[(Open, 1), (FirstToken, 2), (ResponseDone, 3)]).violations, 0);
    }

    #[test]
    fn what_breaks_the_rules_is_counted_and_not_believed() {
        let life = live(&[(Head, 5), (Open, 6)]);
        assert_eq!((life.violations, states(&life)), (1, vec![Head]), "backward");
        let life = live(&[(Head, 5), (Body, 4)]);
        assert_eq!((life.violations, states(&life)), (1, vec![Head]), "before its time");
        let life = live(&[(Head, 5), (Aborted, 4)]);
        assert_eq!((life.violations, states(&life)), (1, vec![Head, Aborted]), "an end is an end");
        let life = live(&[(ResponseDone, 5), (FirstToken, 6), (Aborted, 7)]);
        assert_eq!((life.violations, states(&life)), (2, vec![ResponseDone]), "after the end");
        assert_eq!(live(&[(Body, 1), (Preempted, 2)]).violations, 1, "only what is scheduled is preempted");
    }

    #[test]
    fn a_life_without_end_stays_small() {
        let turns = (0..1000).map(|n| (if n % 2 == 0 { Scheduled } else { Preempted }, n));
        let life = live(&turns.collect::<Vec<_>>());
        assert_eq!((life.transitions().len() as u64 + life.left_out, life.violations), (1000, 0));
        assert_eq!(life.transitions().len(), Life::MOST);
    }
}
