//! Copies of samples on a stream of their own, beside the next step: what vLLM's and SGLang's schedulers do.

use std::collections::VecDeque;
use std::ptr;

use anyhow::Result;

use super::api::{Cuda, Handle};
use super::buffer::call;
use crate::truth::DeviceTotals;

/// `cudaStreamNonBlocking`.
const NON_BLOCKING: u32 = 1;
/// `cudaEventDisableTiming`.
const NO_TIMING: u32 = 2;
/// Steps that may be under way at once, and one to spare.
const EVENTS: usize = 3;

/// The second stream and its events.
pub(super) struct Outputs {
    stream: Handle,
    /// For each step in turn: the forward pass is done, the copy is done.
    events: [(Handle, Handle); EVENTS],
    next: usize,
    /// Events of copies that have not been waited for.
    marked: VecDeque<Handle>,
}

impl Outputs {
    pub(super) fn new(cuda: &Cuda, totals: &mut DeviceTotals) -> Result<Self> {
        let mut stream = ptr::null_mut();
        // SAFETY: a valid out-pointer.
        let status = unsafe { (cuda.runtime.stream_create)(&raw mut stream, NON_BLOCKING) };
        call(totals, "cudaStreamCreateWithFlags", status)?;
        let mut events = [(ptr::null_mut(), ptr::null_mut()); EVENTS];
        for (done, copied) in &mut events {
            for event in [done, copied] {
                // SAFETY: a valid out-pointer.
                let status = unsafe { (cuda.runtime.event_create)(event, NO_TIMING) };
                call(totals, "cudaEventCreateWithFlags", status)?;
            }
        }
        Ok(Self { stream, events, next: 0, marked: VecDeque::new() })
    }

    /// The stream for copies of what has been sent to `forward` so far.
    pub(super) fn follow(
        &mut self,
        cuda: &Cuda,
        totals: &mut DeviceTotals,
        forward: Handle,
    ) -> Result<Handle> {
        let Some((done, _)) = self.events.get(self.next).copied() else { return Ok(self.stream) };
        // SAFETY: live streams and a live event; no flags.
        let (recorded, waits) = unsafe {
            (
                (cuda.runtime.event_record)(done, forward),
                (cuda.runtime.stream_wait_event)(self.stream, done, 0),
            )
        };
        call(totals, "cudaEventRecord", recorded)?;
        call(totals, "cudaStreamWaitEvent", waits)?;
        Ok(self.stream)
    }

    /// A step's copies have been sent.
    pub(super) fn mark(&mut self, cuda: &Cuda, totals: &mut DeviceTotals) -> Result<()> {
        let Some((_, copied)) = self.events.get(self.next).copied() else { return Ok(()) };
        // SAFETY: a live stream and a live event.
        call(totals, "cudaEventRecord", unsafe { (cuda.runtime.event_record)(copied, self.stream) })?;
        self.marked.push_back(copied);
        self.next = (self.next + 1) % EVENTS;
        Ok(())
    }

    /// Waits for the copies of the oldest step that has not been waited for.
    pub(super) fn wait(&mut self, cuda: &Cuda, totals: &mut DeviceTotals) -> Result<()> {
        let Some(copied) = self.marked.pop_front() else { return Ok(()) };
        // SAFETY: a live event.
        call(totals, "cudaEventSynchronize", unsafe { (cuda.runtime.event_synchronize)(copied) })
    }

    pub(super) fn close(self, cuda: &Cuda, totals: &mut DeviceTotals) -> Result<()> {
        for (done, copied) in self.events {
            for event in [done, copied] {
                // SAFETY: nothing runs any more; each object is destroyed once.
                call(totals, "cudaEventDestroy", unsafe { (cuda.runtime.event_destroy)(event) })?;
            }
        }
        // SAFETY: as above.
        call(totals, "cudaStreamDestroy", unsafe { (cuda.runtime.stream_destroy)(self.stream) })
    }
}
