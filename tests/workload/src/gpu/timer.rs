//! Events around the work of each step, and the question how long it took: what engines that watch themselves do.

use std::collections::VecDeque;
use std::ptr;

use anyhow::Result;

use super::api::{Cuda, Handle};
use super::buffer::call;
use crate::truth::DeviceTotals;

/// Steps that may be under way at once, and one to spare.
const EVENTS: usize = 3;

/// The events of a device.
pub(super) struct Timer {
    /// For each step in turn: before its first work, and behind its last.
    events: [(Handle, Handle); EVENTS],
    next: usize,
    /// Of steps that have not been waited for.
    marked: VecDeque<(Handle, Handle)>,
}

impl Timer {
    pub(super) fn new(cuda: &Cuda, totals: &mut DeviceTotals) -> Result<Self> {
        let mut events = [(ptr::null_mut(), ptr::null_mut()); EVENTS];
        for (first, last) in &mut events {
            for event in [first, last] {
                // SAFETY: a valid out-pointer; without flags an event has a time.
                let status = unsafe { (cuda.runtime.event_create)(event, 0) };
                call(totals, "cudaEventCreateWithFlags", status)?;
            }
        }
        Ok(Self { events, next: 0, marked: VecDeque::new() })
    }

    /// A step's work is sent from here on.
    pub(super) fn begin(&self, cuda: &Cuda, totals: &mut DeviceTotals, stream: Handle) -> Result<()> {
        let Some((first, _)) = self.events.get(self.next) else { return Ok(()) };
        // SAFETY: a live stream and a live event.
        call(totals, "cudaEventRecord", unsafe { (cuda.runtime.event_record)(*first, stream) })
    }

    /// All of a step's work has been sent.
    pub(super) fn end(&mut self, cuda: &Cuda, totals: &mut DeviceTotals, stream: Handle) -> Result<()> {
        let Some((first, last)) = self.events.get(self.next).copied() else { return Ok(()) };
        // SAFETY: a live stream and a live event.
        call(totals, "cudaEventRecord", unsafe { (cuda.runtime.event_record)(last, stream) })?;
        self.marked.push_back((first, last));
        self.next = (self.next + 1) % EVENTS;
        Ok(())
    }

    /// The oldest step that was not asked about is done: asks how long it took, and has no use for it.
    pub(super) fn ask(&mut self, cuda: &Cuda, totals: &mut DeviceTotals) -> Result<()> {
        let Some((first, last)) = self.marked.pop_front() else { return Ok(()) };
        let mut took_ms = 0.0;
        // SAFETY: a valid out-pointer and two live events.
        let status = unsafe { (cuda.runtime.event_elapsed_time)(&raw mut took_ms, first, last) };
        call(totals, "cudaEventElapsedTime", status)
    }

    pub(super) fn close(self, cuda: &Cuda, totals: &mut DeviceTotals) -> Result<()> {
        for (first, last) in self.events {
            for event in [first, last] {
                // SAFETY: nothing runs any more; each object is destroyed once.
                call(totals, "cudaEventDestroy", unsafe { (cuda.runtime.event_destroy)(event) })?;
            }
        }
        Ok(())
    }
}
