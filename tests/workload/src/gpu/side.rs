//! A second stream for half of each batch, beside the first: two micro-batches at the same time. It begins behind the
//! copies in, and the first stream waits for it before the copies out.

use std::ptr;

use anyhow::Result;

use super::api::{Cuda, Handle};
use super::buffer::call;
use crate::truth::DeviceTotals;

/// `cudaStreamNonBlocking`.
const NON_BLOCKING: u32 = 1;
/// `cudaEventDisableTiming`.
const NO_TIMING: u32 = 2;

/// The stream, and the events between it and the first one.
#[derive(Clone, Copy)]
pub(super) struct Side {
    pub(super) stream: Handle,
    fork: Handle,
    join: Handle,
}

impl Side {
    pub(super) fn new(cuda: &Cuda, totals: &mut DeviceTotals) -> Result<Self> {
        let mut stream = ptr::null_mut();
        // SAFETY: a valid out-pointer.
        let status = unsafe { (cuda.runtime.stream_create)(&raw mut stream, NON_BLOCKING) };
        call(totals, "cudaStreamCreateWithFlags", status)?;
        let mut events = [ptr::null_mut(); 2];
        for event in &mut events {
            // SAFETY: a valid out-pointer.
            let status = unsafe { (cuda.runtime.event_create)(event, NO_TIMING) };
            call(totals, "cudaEventCreateWithFlags", status)?;
        }
        let [fork, join] = events;
        Ok(Self { stream, fork, join })
    }

    /// What is sent to it from now on begins after what `main` has.
    pub(super) fn fork(self, cuda: &Cuda, totals: &mut DeviceTotals, main: Handle) -> Result<()> {
        follow(cuda, totals, (main, self.stream), self.fork)
    }

    /// What is sent to `main` from now on begins after what this has.
    pub(super) fn join(self, cuda: &Cuda, totals: &mut DeviceTotals, main: Handle) -> Result<()> {
        follow(cuda, totals, (self.stream, main), self.join)
    }

    pub(super) fn close(self, cuda: &Cuda, totals: &mut DeviceTotals) -> Result<()> {
        for event in [self.fork, self.join] {
            // SAFETY: nothing runs any more; each object is destroyed once.
            call(totals, "cudaEventDestroy", unsafe { (cuda.runtime.event_destroy)(event) })?;
        }
        // SAFETY: as above.
        call(totals, "cudaStreamDestroy", unsafe { (cuda.runtime.stream_destroy)(self.stream) })
    }
}

fn follow(
    cuda: &Cuda,
    totals: &mut DeviceTotals,
    (first, then): (Handle, Handle),
    event: Handle,
) -> Result<()> {
    // SAFETY: live streams and a live event; no flags.
    let (recorded, waits) = unsafe {
        ((cuda.runtime.event_record)(event, first), (cuda.runtime.stream_wait_event)(then, event, 0))
    };
    call(totals, "cudaEventRecord", recorded)?;
    call(totals, "cudaStreamWaitEvent", waits)
}
