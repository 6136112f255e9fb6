//! Ring → records → events, on a plain thread with a 20 ms timer.
//!
//! In: the ring buffer. Out: batches of decoded events, in the order of the ring. The producers wake nobody but
//! for one edge when the ring is a quarter full: a wake-up per event costs more than everything else together. While
//! nobody is observed the thread rests.

mod hints;

pub use hints::{Happened, Hints};

use crate::bell::Bell;
use crate::decode::{self, Event, Rejected};
use crate::facts::Arrived;
use aya::maps::{MapData, RingBuf};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Time between two looks at the ring: 8 MiB hold 388 ms of launches at 300,000 a second, and a live view that is
/// 20 ms late is live.
const TICK_MS: i32 = 20;

/// The same while there is nobody to send anything.
const REST_MS: i32 = 5000;

/// Events of a batch at most: bounds what is in memory between receiving and correlating.
const BATCH: usize = 4096;

/// What was received, counted while receiving.
#[derive(Debug, Default)]
pub struct Received {
    /// Records taken from the ring.
    pub records: AtomicU64,
    /// Records that became events.
    pub decoded: AtomicU64,
    rejected: [AtomicU64; Rejected::ALL.len()],
}

impl Received {
    /// As it stands.
    pub fn arrived(&self) -> Arrived {
        Arrived {
            records: self.records.load(Ordering::Acquire),
            decoded: self.decoded.load(Ordering::Acquire),
            rejected: self.rejected().map(|(reason, count)| (reason.name().to_owned(), count)).collect(),
        }
    }

    /// Records that were not understood, by reason.
    pub fn rejected(&self) -> impl Iterator<Item = (Rejected, u64)> {
        Rejected::ALL.into_iter().zip(self.rejected.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    fn count(&self, records: u64, decoded: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.decoded.fetch_add(decoded, Ordering::Relaxed);
    }

    fn reject(&self, reason: Rejected) {
        if let Some(count) = self.rejected.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What the receiving thread is told.
#[derive(Debug)]
pub struct Orders {
    stop: AtomicBool,
    rest: AtomicBool,
    bell: Bell,
}

impl Orders {
    /// To look at the ring.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { stop: AtomicBool::new(false), rest: AtomicBool::new(false), bell: Bell::new()? })
    }

    /// Ends it, after a last look.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.bell.ring();
    }

    /// Nothing will come for now, or something may from now on.
    pub fn rest(&self, on: bool) {
        if self.rest.swap(on, Ordering::AcqRel) != on {
            self.bell.ring();
        }
    }
}

/// Drains the ring until it is told to stop, and then once more. `deliver` takes each batch; it may block, the ring holds on.
///
/// # Errors
/// When the ring cannot be waited for.
pub fn drain(
    mut ring: RingBuf<MapData>,
    received: &Received,
    orders: &Orders,
    mut deliver: impl FnMut(Vec<Event>),
) -> io::Result<()> {
    let epoll = watch(&[ring.as_raw_fd(), orders.bell.as_fd().as_raw_fd()])?;
    loop {
        orders.bell.heard();
        let last = orders.stop.load(Ordering::Acquire);
        // Asked before the ring: what comes behind the last look of a rest comes after its end.
        let wait_ms = if orders.rest.load(Ordering::Acquire) { REST_MS } else { TICK_MS };
        while drain_once(&mut ring, received, &mut deliver) {}
        if last {
            return Ok(());
        }
        wait(&epoll, wait_ms)?;
    }
}

/// Takes up to a batch; false when the ring is empty.
fn drain_once(
    ring: &mut RingBuf<MapData>,
    received: &Received,
    deliver: &mut impl FnMut(Vec<Event>),
) -> bool {
    let mut events = Vec::new();
    let mut records = 0;
    while events.len() < BATCH {
        let Some(record) = ring.next() else { break };
        records += 1;
        match decode::decode(&record) {
            Ok(event) => events.push(event),
            Err(reason) => received.reject(reason),
        }
    }
    received.count(records, events.len() as u64);
    let more = events.len() == BATCH;
    if !events.is_empty() {
        deliver(events);
    }
    more
}

/// An epoll instance that tells once when the ring's producer, or whoever gives orders, asks for a look.
fn watch(fds: &[RawFd]) -> io::Result<OwnedFd> {
    // SAFETY: epoll_create1 has no preconditions.
    let epoll = match unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) } {
        -1 => return Err(io::Error::last_os_error()),
        // SAFETY: it has just been made, and nobody else knows it.
        fd => unsafe { OwnedFd::from_raw_fd(fd) },
    };
    let mut interest = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET).cast_unsigned(), u64: 0 };
    for fd in fds {
        // SAFETY: both descriptors are open and `interest` lives through the call.
        if unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, *fd, &mut interest) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(epoll)
}

fn wait(epoll: &OwnedFd, at_most_ms: i32) -> io::Result<()> {
    let mut ready = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: the descriptor is open and `ready` has room for the one event asked for.
    match unsafe { libc::epoll_wait(epoll.as_raw_fd(), &mut ready, 1, at_most_ms) } {
        -1 if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted => {
            Err(io::Error::last_os_error())
        }
        _ => Ok(()),
    }
}
