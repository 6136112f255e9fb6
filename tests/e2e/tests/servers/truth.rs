//! What truly ran on the stand-ins within a window: the difference of two readings of their log.

use std::collections::BTreeMap;
use std::path::Path;

/// One reading.
pub struct Reading(simgpu::Totals);

/// What happened between two readings.
#[derive(Debug)]
pub struct Truth {
    facts: BTreeMap<String, u64>,
    kernels: BTreeMap<String, u64>,
}

impl Reading {
    /// What all processes of a server have done so far.
    pub fn of(folder: &Path) -> Self {
        Self(simgpu::Truth::read(folder).unwrap().total)
    }

    /// Everything that was done.
    pub fn all(&self) -> Truth {
        self.since(&Self(simgpu::Totals::default()))
    }

    /// What was done since an earlier reading.
    pub fn since(&self, earlier: &Self) -> Truth {
        let facts =
            self.0.facts.iter().map(|(name, now)| (name.clone(), now.saturating_sub(earlier.0.fact(name))));
        let launched = |totals: &simgpu::Totals, name: &str| {
            totals.kernels.get(name).map_or(0, |kernel| kernel.launched)
        };
        let kernels = self
            .0
            .kernels
            .keys()
            .map(|name| (name.clone(), launched(&self.0, name) - launched(&earlier.0, name)));
        Truth { facts: facts.collect(), kernels: kernels.filter(|(_, count)| *count > 0).collect() }
    }
}

impl Truth {
    /// One fact by its name in the stand-ins' log.
    pub fn fact(&self, name: &str) -> u64 {
        self.facts.get(name).copied().unwrap_or(0)
    }

    /// Launches by the kernel's mangled name on the device.
    pub fn kernels(&self) -> &BTreeMap<String, u64> {
        &self.kernels
    }
}
