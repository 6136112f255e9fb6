//! Which processes the NVIDIA driver has on its devices, whoever they are, for discovery. In: the library, kept loaded.
//! Out: pids of this namespace. Absent: what they use.

use super::nvml;
use super::settings::{Scope, Settings};
use nvml_wrapper::Nvml;
use std::collections::BTreeSet;

/// Asks the driver.
#[derive(Debug, Default)]
pub struct Running {
    library: Option<Nvml>,
}

impl Running {
    /// With the library of the settings; without one, or where devices are not to be read, nothing is listed.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let wanted = settings.scope != Scope::Off;
        Self { library: wanted.then(|| nvml::open(settings.nvml.as_deref()).ok()).flatten() }
    }

    /// Processes that compute on a device now.
    #[must_use]
    pub fn pids(&self) -> BTreeSet<u32> {
        let Some(library) = &self.library else { return BTreeSet::new() };
        let count = library.device_count().unwrap_or(0);
        let devices = (0..count).filter_map(|index| library.device_by_index(index).ok());
        let listed = devices.flat_map(|device| {
            let mut listed = device.running_compute_processes().unwrap_or_default();
            // Clients of a Multi-Process Service are in a list of their own.
            listed.extend(device.mps_running_compute_processes().unwrap_or_default());
            listed
        });
        listed.map(|process| process.pid).collect()
    }
}
