//! A device without CUDA: a step sleeps for as long as its kernels would have run.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Device, StepWork, kernel};
use crate::options::ServerOptions;
use crate::truth::DeviceTotals;

pub(crate) struct CpuDevice {
    step: Duration,
    /// When each step that is on the device ends.
    ends: VecDeque<Instant>,
    totals: DeviceTotals,
}

impl CpuDevice {
    pub(crate) fn new(options: &ServerOptions) -> Self {
        let kernels = u64::try_from(kernel::forward_pass(options.layers).count()).unwrap_or(u64::MAX);
        let step = Duration::from_nanos(options.kernel_ns.saturating_mul(kernels));
        Self { step, ends: VecDeque::new(), totals: DeviceTotals::default() }
    }
}

impl Device for CpuDevice {
    fn submit(&mut self, _work: StepWork) -> Result<()> {
        let now = Instant::now();
        self.ends.push_back(self.ends.back().map_or(now, |last| now.max(*last)) + self.step);
        Ok(())
    }

    fn wait(&mut self) -> Result<()> {
        if let Some(end) = self.ends.pop_front() {
            std::thread::sleep(end.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    fn totals(&self) -> &DeviceTotals {
        &self.totals
    }

    fn runtime_version(&self) -> i32 {
        0
    }

    fn threads(&self) -> Vec<u32> {
        Vec::new()
    }

    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}
