//! GPU events that must wait until their process's mappings have been looked at.
//!
//! Probes may stand in a library before a process maps it (`attach::ahead`). The first calls then arrive before anybody
//! knows where the library lies, and without that a driver's call cannot be told from the inner half of a runtime call.
//! The kernel reports the mapping before the first call, in the same ring: from there on the process's GPU events wait
//! for the look that the report causes.

use crate::decode::{Body, Change, Event};
use std::collections::BTreeMap;

/// The processes with probes ahead of their libraries.
#[derive(Debug, Default)]
pub struct Holds {
    processes: BTreeMap<u32, Hold>,
}

#[derive(Debug, Default)]
struct Hold {
    /// The newest mapping that has not been looked at, `CLOCK_MONOTONIC` nanoseconds.
    since_ns: Option<u64>,
    events: Vec<Event>,
}

/// Events that one process may have waiting: a second's worth at 250,000 a second.
const MOST: usize = 262_144;

/// A look that takes longer than this was not made; what waits goes on without it.
const PATIENCE_NS: u64 = 5_000_000_000;

impl Holds {
    /// Probes stand ahead in process `pid`, or its mappings were looked at, at `looked_ns`. Returns what may go on.
    pub fn looked(&mut self, pid: u32, looked_ns: u64) -> Vec<Event> {
        let hold = self.processes.entry(pid).or_default();
        match hold.since_ns {
            Some(since_ns) if looked_ns > since_ns => hold.release(),
            _ => Vec::new(),
        }
    }

    /// Takes an event; returns it when it need not wait.
    pub fn pass(&mut self, event: Event) -> Option<Event> {
        // Nearly always nothing is ahead.
        if self.processes.is_empty() {
            return Some(event);
        }
        let Some(hold) = self.processes.get_mut(&event.pid) else { return Some(event) };
        match event.body {
            Body::Process(Change::Mapped) => {
                hold.since_ns = Some(event.time_ns);
                Some(event)
            }
            Body::Gpu(_) | Body::Stack(_) | Body::Burst(_) | Body::Context(_)
                if hold.since_ns.is_some() && hold.events.len() < MOST =>
            {
                hold.events.push(event);
                None
            }
            _ => Some(event),
        }
    }

    /// What has waited too long at `now_ns`; with `now_ns` at its maximum, everything.
    pub fn overdue(&mut self, now_ns: u64) -> Vec<Event> {
        let late = |hold: &&mut Hold| {
            hold.since_ns.is_some_and(|since_ns| since_ns.saturating_add(PATIENCE_NS) < now_ns)
        };
        self.processes.values_mut().filter(late).flat_map(Hold::release).collect()
    }

    /// A process is gone; what of it still waited.
    pub fn gone(&mut self, pid: u32) -> Vec<Event> {
        self.processes.remove(&pid).map(|hold| hold.events).unwrap_or_default()
    }
}

impl Hold {
    fn release(&mut self) -> Vec<Event> {
        self.since_ns = None;
        std::mem::take(&mut self.events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Burst;

    fn event(time_ns: u64, body: Body) -> Event {
        Event { pid: 7, tid: 7, time_ns, body }
    }

    fn gpu(time_ns: u64) -> Event {
        event(time_ns, Body::Burst(Burst::default()))
    }

    fn mapped(time_ns: u64) -> Event {
        event(time_ns, Body::Process(Change::Mapped))
    }

    fn times(events: &[Event]) -> Vec<u64> {
        events.iter().map(|event| event.time_ns).collect()
    }

    #[test]
    fn calls_from_a_new_mapping_wait_for_a_look_that_is_later() {
        let mut holds = Holds::default();
        assert!(holds.pass(gpu(1)).is_some(), "no probes ahead");
        assert!(holds.looked(7, 0).is_empty());
        assert!(holds.pass(gpu(2)).is_some(), "nothing new is mapped");
        assert!(holds.pass(mapped(10)).is_some());
        assert!(holds.pass(gpu(11)).is_none() && holds.pass(gpu(12)).is_none());
        assert!(holds.looked(7, 9).is_empty(), "that look was before the mapping");
        assert_eq!(times(&holds.looked(7, 20)), [11, 12]);
        assert!(holds.pass(gpu(21)).is_some());
    }

    #[test]
    fn nothing_waits_for_ever() {
        let mut holds = Holds::default();
        holds.looked(7, 0);
        holds.pass(mapped(10));
        assert!(holds.pass(gpu(11)).is_none());
        assert!(holds.overdue(PATIENCE_NS).is_empty());
        assert_eq!(times(&holds.overdue(11 + PATIENCE_NS)), [11]);
        holds.pass(mapped(30));
        assert!(holds.pass(gpu(31)).is_none());
        assert_eq!(times(&holds.gone(7)), [31]);
        assert!(holds.pass(gpu(32)).is_some());
    }
}
