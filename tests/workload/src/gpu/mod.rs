//! The engine's device: a step's work comes in, CUDA calls go out, counts of what was called come back.
//!
//! The calls are the public CUDA API, opened at run time by the libraries' plain names, so the same binary runs
//! on the stand-ins and on the true libraries. Absent: any use of what the kernels compute.

mod api;
mod buffer;
mod cpu;
mod cuda;
mod graph;
mod image;
mod kernel;
mod output;
mod process;
mod ranks;
mod side;
mod timer;

use anyhow::Result;
use serde::{Deserialize, Serialize};

pub(crate) use self::process::serve as serve_rank;
use crate::options::{Runtime, ServerOptions};
use crate::truth::DeviceTotals;

/// What a step puts on the device.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct StepWork {
    /// Sequences in the batch.
    pub(crate) sequences: usize,
    /// Tokens of all sequences.
    pub(crate) tokens: usize,
    /// Sequences that sample a token.
    pub(crate) outputs: usize,
    /// Every sequence decodes exactly one token.
    pub(crate) decode_only: bool,
}

/// Runs steps, one after the other.
pub(crate) trait Device {
    /// Puts `work` behind what is on the device.
    fn submit(&mut self, work: StepWork) -> Result<()>;
    /// Waits for the end of the oldest work that has not been waited for.
    fn wait(&mut self) -> Result<()>;
    /// What was done so far.
    fn totals(&self) -> &DeviceTotals;
    /// What `cudaRuntimeGetVersion` gave, 0 without a runtime.
    fn runtime_version(&self) -> i32;
    /// Threads that drive it: of each device.
    fn threads(&self) -> Vec<u32>;
    /// Gives everything back; nothing may be run after it.
    fn close(&mut self) -> Result<()>;
}

/// Opens the device that `options` ask for, in the calling thread.
pub(crate) fn open(options: &ServerOptions, engine: usize) -> Result<Box<dyn Device>> {
    let alone = options.devices == 1 && !options.rank_processes;
    Ok(match options.runtime {
        Runtime::None => Box::new(cpu::CpuDevice::new(options)),
        Runtime::Cuda12 | Runtime::Cuda13 if alone => {
            let device = i32::try_from(options.first_device(engine))?;
            Box::new(cuda::CudaDevice::open(options, cuda::Place { device, samples: true })?)
        }
        Runtime::Cuda12 | Runtime::Cuda13 => Box::new(ranks::Ranks::open(options, engine)?),
    })
}

fn thread_id() -> u32 {
    // SAFETY: the call takes no pointers; thread ids are positive.
    unsafe { libc::gettid() }.unsigned_abs()
}
