//! What the target listens on: descriptor → listener → address, once somebody has looked.
//!
//! A descriptor may stand for one listener after another, and a connection stays with the one that it was accepted on.
//! Looking takes a moment: until it is answered, or a while has passed, the address may still come.

use crate::correlate::beyond::oldest;
use crate::target::Address;
use std::collections::HashMap;

/// A listener's number, never used again.
pub type ListenerId = u32;

/// The listeners of a target group.
#[derive(Debug, Default)]
pub struct Listeners {
    current: HashMap<(u32, u32), ListenerId>,
    addresses: HashMap<ListenerId, Answer>,
    next: ListenerId,
    /// Descriptors that nobody has been asked to look at.
    unasked: Vec<(u32, u32)>,
    /// Those that found no room.
    pub forgotten: u64,
}

/// Listeners whose address is kept, those of processes that are gone among them; the first go first.
const MOST_LISTENERS: usize = 4096;

/// What looking has brought.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// Nothing yet.
    Pending,
    /// Nothing in time; it may come later.
    Late,
    Known(Address),
}

impl Listeners {
    /// The process listens anew on a descriptor. Whoever reports that is looking already.
    pub fn listens(&mut self, pid: u32, fd: u32) {
        self.add(pid, fd, Answer::Pending);
    }

    /// Somebody has looked.
    pub fn set(&mut self, pid: u32, fd: u32, address: Address) {
        match self.current.get(&(pid, fd)) {
            Some(id) => drop(self.addresses.insert(*id, Answer::Known(address))),
            None => drop(self.add(pid, fd, Answer::Known(address))),
        }
    }

    /// The listener on a descriptor. One that is met here first is to be looked at.
    pub fn on(&mut self, pid: u32, fd: u32) -> ListenerId {
        if let Some(id) = self.current.get(&(pid, fd)) {
            return *id;
        }
        self.unasked.push((pid, fd));
        self.add(pid, fd, Answer::Pending)
    }

    /// Its address, if known.
    pub fn address(&self, id: ListenerId) -> Option<Address> {
        match self.addresses.get(&id) {
            Some(Answer::Known(address)) => Some(address.clone()),
            _ => None,
        }
    }

    /// Whether its address may still come.
    pub fn is_pending(&self, id: ListenerId) -> bool {
        self.addresses.get(&id) == Some(&Answer::Pending)
    }

    /// What has not been answered by now is not waited for.
    pub fn give_up(&mut self) {
        self.addresses
            .values_mut()
            .filter(|answer| **answer == Answer::Pending)
            .for_each(|it| *it = Answer::Late);
    }

    /// Descriptors to look at, each once: an address that cannot be found now will not be found later.
    pub fn take_unasked(&mut self) -> Vec<(u32, u32)> {
        std::mem::take(&mut self.unasked)
    }

    /// The process is gone, and its descriptors with it. Connections may still name its listeners.
    pub fn forget(&mut self, pid: u32) {
        self.current.retain(|(of, _), _| *of != pid);
    }

    fn add(&mut self, pid: u32, fd: u32, answer: Answer) -> ListenerId {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        if self.addresses.len() >= MOST_LISTENERS
            && let Some(oldest) = oldest(&self.addresses, |of, _| u64::MAX - u64::from(id.wrapping_sub(*of)))
        {
            self.addresses.remove(&oldest);
            self.current.retain(|_, of| *of != oldest);
            self.forgotten += 1;
        }
        self.addresses.insert(id, answer);
        self.current.insert((pid, fd), id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_without_end_are_forgotten() {
        let mut listeners = Listeners::default();
        for turn in 0..2 * MOST_LISTENERS as u32 {
            listeners.listens(1, turn);
        }
        assert_eq!((listeners.addresses.len(), listeners.current.len()), (MOST_LISTENERS, MOST_LISTENERS));
        assert_eq!(listeners.forgotten, MOST_LISTENERS as u64);
        assert!(listeners.is_pending(2 * MOST_LISTENERS as u32 - 1) && !listeners.is_pending(0));
    }

    #[test]
    fn a_connection_stays_with_the_listener_that_accepted_it() {
        let mut listeners = Listeners::default();
        let first = listeners.on(1, 3);
        assert_eq!((listeners.take_unasked(), listeners.is_pending(first)), (vec![(1, 3)], true));
        listeners.set(1, 3, Address::Tcp(80));
        listeners.listens(1, 3);
        let second = listeners.on(1, 3);
        assert!(listeners.take_unasked().is_empty(), "whoever reported it is looking");
        assert_eq!((listeners.address(first), listeners.address(second)), (Some(Address::Tcp(80)), None));
        listeners.give_up();
        assert!(!listeners.is_pending(second));
        listeners.set(1, 3, Address::Tcp(81));
        assert_eq!(
            (listeners.address(first), listeners.address(second)),
            (Some(Address::Tcp(80)), Some(Address::Tcp(81)))
        );
        listeners.forget(1);
        assert_eq!(listeners.address(second), Some(Address::Tcp(81)));
        assert_ne!(listeners.on(1, 3), second);
    }
}
