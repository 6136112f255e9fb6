//! What may happen to records on their way: lost, twice, late by one, cut; and a process that ends in the middle.

use super::act::ENGINE;
use super::history::Input;
use crate::decode::{Body, Socket};
use proptest::prelude::*;
use std::collections::VecDeque;

/// What happens to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Lost,
    Twice,
    /// The next one overtakes it: two threads write to the ring at once, each its own records in order.
    Late,
    /// The second half of its bytes is not copied, which it says.
    Cut,
}

/// Faults for the records of a history, each after so many records that arrive, and where a process ends if one does.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    pub records: Vec<(usize, Fault)>,
    pub gone: Option<(u32, prop::sample::Index)>,
}

/// Few faults, so that much of a history remains.
pub fn any_faults() -> impl Strategy<Value = Faults> {
    let fault = prop_oneof![
        2 => Just(Fault::Lost),
        1 => Just(Fault::Twice),
        2 => Just(Fault::Late),
        1 => Just(Fault::Cut)
    ];
    let gone = prop::option::weighted(0.3, (ENGINE..ENGINE + 2, any::<prop::sample::Index>()));
    (prop::collection::vec((0usize..20, fault), 0..30), gone)
        .prop_map(|(records, gone)| Faults { records, gone })
}

/// What arrives of what was sent.
pub fn suffer(inputs: Vec<Input>, faults: &Faults) -> Vec<Input> {
    let mut arrived: Vec<Input> = Vec::with_capacity(inputs.len());
    let mut late: Option<Input> = None;
    let mut faults_left: VecDeque<_> = faults.records.iter().copied().collect();
    for mut input in inputs {
        let fault = match &input {
            Input::Event(_) => next(&mut faults_left),
            Input::Spoke(..) | Input::Gone(..) => None,
        };
        if late.as_ref().is_some_and(|late| thread(late) == thread(&input)) {
            arrived.extend(late.take());
        }
        match fault {
            Some(Fault::Lost) => continue,
            Some(Fault::Late) if late.is_none() => {
                late = Some(input);
                continue;
            }
            Some(Fault::Cut) => cut(&mut input),
            Some(Fault::Twice) => arrived.push(input.clone()),
            None | Some(Fault::Late) => {}
        }
        arrived.push(input);
        arrived.extend(late.take());
    }
    arrived.extend(late);
    if let Some((pid, at)) = faults.gone {
        let place = at.index(arrived.len() + 1);
        let time_ns = place.checked_sub(1).map_or(0, |before| arrived[before].time_ns());
        arrived.insert(place, Input::Gone(pid, time_ns));
    }
    arrived
}

/// What happens to the next record.
fn next(faults: &mut VecDeque<(usize, Fault)>) -> Option<Fault> {
    let (after, _) = faults.front_mut()?;
    match after.checked_sub(1) {
        Some(left) => *after = left,
        None => return faults.pop_front().map(|(_, fault)| fault),
    }
    None
}

fn thread(input: &Input) -> Option<(u32, u32)> {
    match input {
        Input::Event(event) => Some((event.pid, event.tid)),
        Input::Spoke(..) | Input::Gone(..) => None,
    }
}

fn cut(input: &mut Input) {
    let Input::Event(event) = input else { return };
    if let Body::Socket(Socket::Data { bytes, lost_after, .. }) = &mut event.body {
        let kept = bytes.len() / 2;
        *lost_after = (bytes.len() - kept) as u32;
        bytes.truncate(kept);
    }
}
