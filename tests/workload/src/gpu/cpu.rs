//! A device without CUDA: a step sleeps for as long as its kernels would have run.

use std::time::Duration;

use anyhow::Result;

use super::{Device, StepWork, kernel};
use crate::options::ServerOptions;
use crate::truth::DeviceTotals;

pub(crate) struct CpuDevice {
    step: Duration,
    totals: DeviceTotals,
}

impl CpuDevice {
    pub(crate) fn new(options: &ServerOptions) -> Self {
        let kernels = u64::try_from(kernel::forward_pass(options.layers).count()).unwrap_or(u64::MAX);
        let step = Duration::from_nanos(options.kernel_ns.saturating_mul(kernels));
        Self { step, totals: DeviceTotals::default() }
    }
}

impl Device for CpuDevice {
    fn step(&mut self, _work: StepWork) -> Result<()> {
        std::thread::sleep(self.step);
        Ok(())
    }

    fn totals(&self) -> &DeviceTotals {
        &self.totals
    }

    fn runtime_version(&self) -> i32 {
        0
    }

    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}
