//! NVIDIA's devices, by the driver's own library.
//!
//! In: `libnvidia-ml.so.1`, loaded at run time. Out: what its devices say, and what is wrong. A device that does not answer
//! is asked again with growing pauses; the library is let go when none answers, so that the driver can be mended.

mod gpm;
mod process;
mod read;
mod unit;
mod xid;

use super::inventory::Inventory;
use super::model::{Device, Reading};
use super::rhythm::Tier;
use super::settings::Scope;
use super::whose::Whose;
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use std::ffi::OsStr;
use std::path::Path;
use unit::Unit;
use xid::Xids;

/// What notes are about when they are about no device.
pub const NVML: &str = "nvml";

/// The library that the driver installs.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// The library is of no use any more: it must be loaded anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// Loads the library.
///
/// # Errors
/// What lacks, in words, and whether that is a machine without such devices.
pub fn open(path: Option<&Path>) -> Result<Nvml, (String, bool)> {
    let name = path.map_or(OsStr::new(LIBRARY), Path::as_os_str);
    Nvml::builder().lib_path(name).init().map_err(|error| {
        let name = name.to_string_lossy();
        match error {
            NvmlError::LibloadingError(why) => (
                format!("no NVIDIA library: {why}; in a container mount it, or name it with --nvml"),
                path.is_none(),
            ),
            NvmlError::DriverNotLoaded => {
                (format!("{name} is there, and the NVIDIA driver is not loaded"), false)
            }
            NvmlError::LibRmVersionMismatch => (
                format!("{name} is of another version than the driver that is loaded: restart the machine"),
                false,
            ),
            NvmlError::NoPermission => {
                (format!("{name} may not talk to the driver: give access to /dev/nvidiactl"), false)
            }
            other => (format!("{name} cannot be used: {other}"), false),
        }
    })
}

/// The devices of a loaded library.
#[derive(Debug)]
pub struct Source<'n> {
    units: Vec<Unit<'n>>,
    xids: Xids<'n>,
    /// Every device that the library counts can be asked.
    pub is_complete: bool,
}

impl<'n> Source<'n> {
    /// Looks for its devices.
    pub fn new(nvml: &'n Nvml, inventory: &mut Inventory, reading: &mut Reading) -> Self {
        let (mut units, mut is_complete) = (Vec::new(), true);
        let driver = nvml.sys_driver_version().unwrap_or_default();
        let count = nvml.device_count().unwrap_or(0);
        if count == 0 {
            is_complete = false;
            inventory.wrong(NVML, "the NVIDIA driver knows no device".to_owned(), reading);
        }
        for index in 0..count {
            match Unit::whole(nvml, index, &driver) {
                Ok((device, handle)) => {
                    let instances = Unit::instances(nvml, &handle, &device);
                    let number = inventory.number(device, reading);
                    units.push(Unit::new(number, handle, None, !instances.is_empty()));
                    for (device, handle, instance) in instances {
                        let number = inventory.number(device, reading);
                        units.push(Unit::new(number, handle, Some(instance), false));
                    }
                }
                Err(error) => {
                    is_complete = false;
                    inventory.wrong(NVML, format!("device {index} cannot be asked: {error}"), reading);
                }
            }
        }
        if is_complete {
            inventory.right(NVML, "", "the NVIDIA library and its devices can be used again", reading);
        }
        let xids = Xids::new(nvml, &units);
        Self { units, xids, is_complete }
    }

    /// Finds the target's processes on its devices.
    ///
    /// # Errors
    /// When the library must be loaded anew.
    pub fn list(
        &mut self,
        tier: Tier,
        inventory: &mut Inventory,
        whose: &mut Whose,
        reading: &mut Reading,
    ) -> Result<(), Closed> {
        self.units.iter_mut().try_for_each(|unit| unit.list_processes(tier, inventory, whose, reading))
    }

    /// Asks its devices what a tier asks.
    ///
    /// # Errors
    /// When the library must be loaded anew.
    pub fn ask(
        &mut self,
        tier: Tier,
        scope: Scope,
        inventory: &mut Inventory,
        whose: &Whose,
        reading: &mut Reading,
    ) -> Result<(), Closed> {
        let used = whose.used();
        let is_used = |number: u32| {
            let device = inventory.devices().get(number as usize);
            let parts = |part: &u32| {
                let parent = inventory.devices().get(*part as usize).and_then(|part| part.parent.as_ref());
                parent.is_some() && parent == device.map(|device| &device.id)
            };
            used.contains(&number) || used.iter().any(parts)
        };
        let wanted: Vec<bool> =
            self.units.iter().map(|unit| scope == Scope::All || is_used(unit.number)).collect();
        for (unit, _) in self.units.iter_mut().zip(&wanted).filter(|(_, wanted)| **wanted) {
            unit.ask(tier, inventory, reading)?;
        }
        if tier >= Tier::Cheap {
            let is_wanted = |unit: &(&Unit, &bool)| *unit.1;
            let wanted: Vec<_> =
                self.units.iter().zip(&wanted).filter(is_wanted).map(|(unit, _)| unit.number).collect();
            self.xids.poll(inventory, &wanted, reading);
        }
        match !self.units.is_empty() && self.units.iter().all(Unit::is_lost) {
            true => Err(Closed),
            false => Ok(()),
        }
    }
}

/// What an error means for whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// The device has no such value.
    Never,
    /// It has none now.
    NotNow,
    /// It may not be asked.
    Denied,
    /// The device does not answer any more.
    Lost,
    /// The library does not.
    Closed,
    /// Something else.
    Odd,
}

fn meaning(error: &NvmlError) -> Meaning {
    match error {
        NvmlError::NotSupported
        | NvmlError::InvalidArg
        | NvmlError::FunctionNotFound
        | NvmlError::FailedToLoadSymbol(_)
        | NvmlError::UnexpectedVariant(_)
        | NvmlError::VgpuEccNotSupported => Meaning::Never,
        NvmlError::NotFound | NvmlError::NoData | NvmlError::Timeout | NvmlError::InUse => Meaning::NotNow,
        NvmlError::NoPermission | NvmlError::OperatingSystem => Meaning::Denied,
        NvmlError::GpuLost | NvmlError::ResetRequired => Meaning::Lost,
        NvmlError::Uninitialized | NvmlError::DriverNotLoaded | NvmlError::LibRmVersionMismatch => {
            Meaning::Closed
        }
        _ => Meaning::Odd,
    }
}

/// The PCI address as Linux writes it: NVML has eight digits of the domain, in capitals.
fn pci_address(nvml: &str) -> String {
    let address = nvml.to_ascii_lowercase();
    match address.split_once(':') {
        Some((domain, rest)) if domain.len() == 8 => format!("{}:{rest}", domain.get(4..).unwrap_or(domain)),
        _ => address,
    }
}

/// The name and id of one, from what it says itself.
fn describe(id: String, name: String, model: String, driver: &str) -> Device {
    let (vendor, driver) = ("nvidia".to_owned(), driver.to_owned());
    Device { id, name, model, vendor, driver, ..Device::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_linux_does() {
        assert_eq!(pci_address("00000000:3B:00.0"), "0000:3b:00.0");
        assert_eq!(pci_address("0001:3B:00.0"), "0001:3b:00.0");
    }

    #[test]
    fn a_missing_library_is_no_alarm_and_a_missing_one_that_was_named_is() {
        let (what, is_lack) = open(Some(Path::new("/nonexistent/libnvidia-ml.so"))).unwrap_err();
        assert!(what.contains("/nonexistent/libnvidia-ml.so") && !is_lack, "{what}");
    }
}
