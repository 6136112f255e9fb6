//! Which device a thread is using, and which one a stream is on: from the calls that choose one.
//!
//! CUDA's rules (programming guide, "Device Selection" and "Stream and Event Behavior"; driver API, "Context
//! Management"): each thread has a current device, 0 to begin with, and each context belongs to one. A stream belongs to
//! the device that was current when it was made, kernels go to streams of the current device only, and each device has
//! default streams of its own. Of a thread that was under way before the attach nothing is known until it chooses, or
//! sends a kernel to a stream whose device is known.

use super::Engine;
use std::collections::{BTreeSet, HashMap, HashSet};

/// The current devices of the threads of one process.
#[derive(Debug, Default)]
pub struct Devices {
    /// The process was observed from before its first call: threads begin at device 0.
    from_start: bool,
    /// There is one device only.
    only: bool,
    current: HashMap<u32, Option<u32>>,
    contexts: HashMap<u64, u32>,
    /// Contexts that were current before others were pushed on them.
    pushed: HashMap<u32, Vec<Option<u32>>>,
    /// Contexts that found no room, and streams.
    pub forgotten: u64,
    /// Devices of streams that are no default streams.
    streams: HashMap<u64, u32>,
    /// Devices that threads have been seen on.
    seen: BTreeSet<u32>,
    /// Threads that have been on several.
    roaming: HashSet<u32>,
}

/// Set in the number of a thread's own default stream (`cudaStreamPerThread`); the rest is the device and the thread.
const PER_THREAD: u64 = 1 << 63;
/// Set in the number of a device's default stream, where the device is known; the rest is the device. User space has no
/// such addresses, and a stream's handle is one.
const DEFAULT: u64 = 1 << 62;
/// The number of the default stream of a device that is not known.
const UNKNOWN_DEFAULT: u64 = 0;
/// Ordinals have fewer bits.
const MOST_DEVICES: u32 = 1 << 16;
/// Streams that are remembered: past this many all are learnt anew from those who use them.
const MOST_STREAMS: usize = 16_384;

/// Contexts that are kept: a process has a few for each device, and some libraries make one for each use.
const MOST_CONTEXTS: usize = 4096;
/// Contexts that a thread may stack up; more is an error of the program.
const DEEPEST: usize = 64;

impl Devices {
    /// Whether the process was observed from before its first call.
    pub fn set_from_start(&mut self, all: bool) {
        self.from_start = all;
    }

    /// The process has one device only, whatever it chooses.
    pub fn set_only(&mut self) {
        self.only = true;
    }

    /// The device of a thread, if known.
    #[must_use]
    pub fn current(&self, tid: u32) -> Option<u32> {
        if self.only {
            return Some(0);
        }
        let first = self.from_start.then_some(0);
        self.current.get(&tid).copied().unwrap_or(first)
    }

    /// The device of a thread, if it has been its only one.
    #[must_use]
    pub fn only(&self, tid: u32) -> Option<u32> {
        self.current(tid).filter(|_| !self.roaming.contains(&tid))
    }

    /// Threads have been seen on more than one.
    #[must_use]
    pub fn are_several(&self) -> bool {
        self.seen.len() > 1
    }

    /// One number for each stream of the process: the legacy default stream of a device goes by two handles (0 and
    /// `cudaStreamLegacy`, 1), and each thread's own default stream there by one for all threads (`cudaStreamPerThread`,
    /// 2; 0 in per-thread forms of functions).
    #[must_use]
    pub fn stream(&self, tid: u32, handle: u64, per_thread: bool) -> u64 {
        let device = self.current(tid).filter(|device| *device < MOST_DEVICES);
        match handle {
            0 | 2 if per_thread || handle == 2 => {
                let place = device.map_or(0, |device| u64::from(device) + 1);
                PER_THREAD | place << 32 | u64::from(tid)
            }
            0 | 1 => device.map_or(UNKNOWN_DEFAULT, |device| DEFAULT | u64::from(device)),
            handle => handle,
        }
    }

    /// The device of a stream, by its number. Of a stream whose making was not seen it is that of the thread that uses
    /// it: CUDA demands that of kernels, and nobody was found who sends copies elsewhere.
    #[must_use]
    pub fn of_stream(&self, tid: u32, stream: u64) -> Option<u32> {
        if stream & PER_THREAD != 0 {
            return ((stream >> 32 & 0x7fff_ffff) as u32).checked_sub(1);
        }
        if stream & DEFAULT != 0 {
            return Some(stream as u32);
        }
        let known = self.streams.get(&stream).copied();
        known.or_else(|| self.current(tid).filter(|_| stream != UNKNOWN_DEFAULT))
    }

    /// A thread made a stream.
    pub fn made_stream(&mut self, tid: u32, stream: u64) {
        match self.current(tid) {
            Some(device) => self.place(stream, device),
            None => drop(self.streams.remove(&stream)),
        }
    }

    /// A stream is gone; its handle may name another one later.
    pub fn forget_stream(&mut self, stream: u64) {
        self.streams.remove(&stream);
    }

    /// A thread sent a kernel to a stream, which is on the thread's device: whichever is known tells of the other.
    pub fn launched(&mut self, tid: u32, stream: u64) {
        if stream == UNKNOWN_DEFAULT || stream & (PER_THREAD | DEFAULT) != 0 {
            return;
        }
        match (self.streams.get(&stream).copied(), self.current(tid)) {
            (None, Some(device)) => self.place(stream, device),
            (Some(device), None) => self.set(tid, device),
            _ => {}
        }
    }

    fn place(&mut self, stream: u64, device: u32) {
        if self.streams.len() >= MOST_STREAMS && !self.streams.contains_key(&stream) {
            self.forgotten += self.streams.len() as u64;
            self.streams.clear();
        }
        self.streams.insert(stream, device);
    }

    /// A thread chose a device.
    pub fn set(&mut self, tid: u32, device: u32) {
        self.choose(tid, Some(device));
    }

    fn choose(&mut self, tid: u32, device: Option<u32>) {
        let before = self.current.insert(tid, device);
        self.seen.extend(device.filter(|_| self.seen.len() < 64));
        if before.flatten().is_some_and(|before| Some(before) != device) {
            self.roaming.insert(tid);
        }
    }

    /// A thread chose a context; of one that was made before the attach the device is not known.
    pub fn set_context(&mut self, tid: u32, context: u64) {
        self.choose(tid, self.contexts.get(&context).copied());
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
        self.choose(tid, below);
    }

    /// A context of `device` came to be.
    pub fn made(&mut self, context: u64, device: u32) {
        if self.contexts.len() < MOST_CONTEXTS || self.contexts.contains_key(&context) {
            self.contexts.insert(context, device);
        } else {
            self.forgotten += 1;
        }
    }

    /// Forgets an ended thread.
    pub fn forget_thread(&mut self, tid: u32) {
        self.current.remove(&tid);
        self.pushed.remove(&tid);
        self.roaming.remove(&tid);
    }
}

impl Engine {
    /// The process has one GPU open and no other: its first.
    pub fn set_only_device(&mut self, pid: u32) {
        self.process(pid).reader.set_only_device();
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
        devices.set_only();
        assert_eq!(devices.current(1), Some(0), "there is no other");
    }

    #[test]
    fn each_device_has_default_streams_of_its_own() {
        let mut devices = Devices::default();
        assert_eq!(devices.stream(1, 0, false), devices.stream(1, 1, false), "cudaStreamLegacy");
        assert_eq!(devices.of_stream(1, devices.stream(1, 0, false)), None, "nobody knows which");
        devices.set(1, 0);
        devices.set(2, 1);
        let (first, second) = (devices.stream(1, 0, false), devices.stream(2, 0, false));
        assert_ne!(first, second);
        assert_eq!((devices.of_stream(9, first), devices.of_stream(9, second)), (Some(0), Some(1)));
        devices.set(2, 0);
        assert_eq!(devices.stream(2, 1, false), first, "of both threads");
        assert_ne!(devices.stream(2, 2, false), devices.stream(1, 2, false), "of each thread its own");
        assert_eq!(devices.stream(2, 0, true), devices.stream(2, 2, false));
        let own = devices.stream(2, 2, false);
        devices.set(2, 1);
        assert_ne!(devices.stream(2, 2, false), own);
        assert_eq!((devices.of_stream(9, own), devices.only(2)), (Some(0), None));
    }

    #[test]
    fn streams_are_where_they_were_made_or_where_kernels_go_to_them() {
        let mut devices = Devices::default();
        devices.set(1, 1);
        devices.made_stream(1, 0x5000);
        devices.set(1, 0);
        assert_eq!(devices.of_stream(1, 0x5000), Some(1), "wherever the thread is now");
        devices.launched(2, 0x6000);
        assert_eq!((devices.of_stream(2, 0x6000), devices.current(2)), (None, None));
        devices.launched(1, 0x6000);
        devices.launched(2, 0x6000);
        assert_eq!((devices.of_stream(3, 0x6000), devices.current(2)), (Some(0), Some(0)));
        devices.forget_stream(0x6000);
        assert_eq!((devices.of_stream(3, 0x6000), devices.of_stream(2, 0x6000)), (None, Some(0)));
        devices.made_stream(3, 0x5000);
        assert_eq!(devices.of_stream(3, 0x5000), None, "its handle names another one now");
        for stream in 0..=MOST_STREAMS as u64 {
            devices.made_stream(1, 0x1_0000 + stream);
        }
        assert!(devices.streams.len() <= MOST_STREAMS);
        assert_eq!(devices.forgotten, MOST_STREAMS as u64);
    }

    #[test]
    fn contexts_without_end_find_no_room() {
        let mut devices = Devices::default();
        (0..5000).for_each(|context| devices.made(context, 1));
        assert_eq!(devices.contexts.len() as u64 + devices.forgotten, 5000);
        devices.set_context(1, 4999);
        assert_eq!((devices.current(1), devices.contexts.len()), (None, MOST_CONTEXTS));
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
