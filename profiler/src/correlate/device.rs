//! Which device a thread is using: from the calls that choose one.
//!
//! CUDA's rules (programming guide, "Device Selection"; driver API, "Context Management"): each thread has a current
//! device, 0 to begin with, and each context belongs to one. Of a thread that was under way before the attach nothing
//! is known until it chooses.

use std::collections::HashMap;

/// The current devices of the threads of one process.
#[derive(Debug, Default)]
pub struct Devices {
    /// The process was observed from before its first call: threads begin at device 0.
    from_start: bool,
    current: HashMap<u32, Option<u32>>,
    contexts: HashMap<u64, u32>,
    /// Contexts that were current before others were pushed on them.
    pushed: HashMap<u32, Vec<Option<u32>>>,
}

/// Contexts that are kept: a process has a few for each device, and some libraries make one for each use.
const MOST_CONTEXTS: usize = 4096;
/// Contexts that a thread may stack up; more is an error of the program.
const DEEPEST: usize = 64;

impl Devices {
    /// Whether the process was observed from before its first call.
    pub fn set_from_start(&mut self, all: bool) {
        self.from_start = all;
    }

    /// The device of a thread, if known.
    #[must_use]
    pub fn current(&self, tid: u32) -> Option<u32> {
        let first = self.from_start.then_some(0);
        self.current.get(&tid).copied().unwrap_or(first)
    }

    /// A thread chose a device.
    pub fn set(&mut self, tid: u32, device: u32) {
        self.current.insert(tid, Some(device));
    }

    /// A thread chose a context; of one that was made before the attach the device is not known.
    pub fn set_context(&mut self, tid: u32, context: u64) {
        self.current.insert(tid, self.contexts.get(&context).copied());
    }

    /// A thread put a context on top of its current one.
    pub fn push(&mut self, tid: u32, context: u64) {
        let below = self.current(tid);
        let stack = self.pushed.entry(tid).or_default();
        if stack.len() < DEEPEST {
            stack.push(below);
        }
        self.set_context(tid, context);
    }

    /// A thread took its current context off.
    pub fn pop(&mut self, tid: u32) {
        // What lies below a stack that was built before the attach is not known.
        let below = self.pushed.get_mut(&tid).and_then(Vec::pop).flatten();
        self.current.insert(tid, below);
    }

    /// A context of `device` came to be.
    pub fn made(&mut self, context: u64, device: u32) {
        if self.contexts.len() < MOST_CONTEXTS || self.contexts.contains_key(&context) {
            self.contexts.insert(context, device);
        }
    }

    /// Forgets an ended thread.
    pub fn forget_thread(&mut self, tid: u32) {
        self.current.remove(&tid);
        self.pushed.remove(&tid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_where_it_went() {
        let mut devices = Devices::default();
        assert_eq!(devices.current(1), None, "attached late: nobody knows");
        devices.set(1, 3);
        assert_eq!((devices.current(1), devices.current(2)), (Some(3), None));
        devices.set_from_start(true);
        assert_eq!(devices.current(2), Some(0), "every thread begins at the first device");
        devices.forget_thread(1);
        assert_eq!(devices.current(1), Some(0));
        devices.set_from_start(false);
        assert_eq!(devices.current(1), None, "calls were missed after all");
    }

    #[test]
    fn contexts_stack_up() {
        let mut devices = Devices::default();
        devices.made(0xc1, 1);
        devices.set(1, 0);
        devices.push(1, 0xc1);
        assert_eq!(devices.current(1), Some(1));
        devices.push(1, 0xbad);
        assert_eq!(devices.current(1), None, "made before the attach");
        devices.pop(1);
        assert_eq!(devices.current(1), Some(1));
        devices.pop(1);
        assert_eq!(devices.current(1), Some(0));
        devices.pop(1);
        assert_eq!(devices.current(1), None);
    }
}
