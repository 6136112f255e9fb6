//! The target's processes on a device: their memory, and their share of its time.
//!
//! In: the device's lists. Out: facts by pids of this namespace. Of processes that are not the target's nothing is told.

use crate::device::inventory::Out;
use crate::device::model::What;
use crate::device::whose::Whose;
use nvml_wrapper::Device as Handle;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use std::collections::BTreeMap;

/// What was told of them.
#[derive(Debug, Default)]
pub struct Processes {
    /// Memory by process, if the driver tells it.
    memory: BTreeMap<u32, Option<u64>>,
    /// The newest sample of utilisation, Unix time in microseconds.
    seen_us: u64,
}

impl Processes {
    /// Finds them, with their memory.
    pub fn list(
        &mut self,
        handle: &Handle,
        number: u32,
        whose: &mut Whose,
        out: &mut Out,
    ) -> Result<(), NvmlError> {
        let mut listed = match handle.running_compute_processes() {
            // Drivers before 510.
            Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => return Ok(()),
            listed => listed?,
        };
        // Clients of a Multi-Process Service are in a list of their own.
        listed.extend(handle.mps_running_compute_processes().unwrap_or_default());
        let mut memory: BTreeMap<u32, Option<u64>> = BTreeMap::new();
        for process in listed {
            let Some(pid) = whose.join(process.pid, number) else { continue };
            let used = match process.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Some(bytes),
                UsedGpuMemory::Unavailable => None,
            };
            let known = memory.entry(pid).or_default();
            *known = (*known).max(used);
        }
        for (pid, bytes) in &memory {
            if let Some(bytes) = bytes {
                out.tell(What::ProcessMemory(*pid), *bytes);
            }
        }
        for pid in self.memory.keys().filter(|pid| !memory.contains_key(*pid)) {
            out.tell(What::ProcessMemory(*pid), 0);
            out.tell(What::ProcessUtilization(*pid), 0);
        }
        self.memory = memory;
        Ok(())
    }

    /// Their share of its time since the last time.
    pub fn utilization(&mut self, handle: &Handle, whose: &Whose, out: &mut Out) -> Result<(), NvmlError> {
        let samples = match handle.process_utilization_stats(self.seen_us) {
            Ok(samples) => samples,
            // Nothing ran since, or the device (an instance of MIG) does not tell.
            Err(NvmlError::NotFound) => Vec::new(),
            Err(NvmlError::NotSupported | NvmlError::InvalidArg | NvmlError::FailedToLoadSymbol(_)) => {
                return Ok(());
            }
            Err(other) => return Err(other),
        };
        let mut shares: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for sample in samples.iter().filter(|sample| sample.timestamp > self.seen_us) {
            let Some(pid) = whose.find_here(sample.pid) else { continue };
            let (sum, count) = shares.entry(pid).or_default();
            *sum += u64::from(sample.sm_util.min(100)) * 10_000;
            *count += 1;
        }
        self.seen_us = samples.iter().map(|sample| sample.timestamp).max().unwrap_or(0).max(self.seen_us);
        for pid in self.memory.keys() {
            let (sum, count) = shares.get(pid).copied().unwrap_or((0, 1));
            out.tell(What::ProcessUtilization(*pid), sum / count.max(1));
        }
        Ok(())
    }
}
