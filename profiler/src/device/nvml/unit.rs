//! One device of the library: which of its values it has, and how it is when it does not answer.

use super::gpm::Gpm;
use super::process::Processes;
use super::read::{self, READS};
use super::{Closed, Meaning, describe, meaning, pci_address};
use crate::device::inventory::Inventory;
use crate::device::model::{Device, Reading, State, What};
use crate::device::rhythm::Tier;
use crate::device::whose::Whose;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device as Handle, Nvml};

/// The first pause before a device that does not answer is asked again, and the longest.
const PAUSE_NS: (u64, u64) = (1_000_000_000, 60_000_000_000);

/// What is wrong with one that does not answer.
const LOST: &str = "it does not answer";

/// Before a value that may not be read is tried again.
const DENIED_NS: u64 = 60_000_000_000;

/// How it is with one value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Access {
    #[default]
    Open,
    /// The device does not have it.
    None,
    /// It may not be read until then.
    Denied(u64),
}

/// A device.
#[derive(Debug)]
pub struct Unit<'n> {
    /// Its number in the inventory.
    pub number: u32,
    /// In the library.
    pub handle: Handle<'n>,
    /// It is a part of a GPU, with this id there.
    pub instance: Option<u32>,
    /// It is divided into instances, which have its processes.
    is_divided: bool,
    access: [Access; READS.len()],
    gpm: Gpm<'n>,
    processes: Processes,
    /// It does not answer: when it is asked again, and the pause before that.
    lost: Option<(u64, u64)>,
}

impl<'n> Unit<'n> {
    /// As it is found.
    pub fn new(number: u32, handle: Handle<'n>, instance: Option<u32>, is_divided: bool) -> Self {
        Self {
            number,
            handle,
            instance,
            is_divided,
            access: [Access::Open; READS.len()],
            gpm: Gpm::default(),
            processes: Processes::default(),
            lost: None,
        }
    }

    /// A GPU of the library.
    pub fn whole(nvml: &'n Nvml, index: u32, driver: &str) -> Result<(Device, Handle<'n>), NvmlError> {
        let handle = nvml.device_by_index(index)?;
        let minor = handle.minor_number().ok();
        let name = format!("nvidia{}", minor.unwrap_or(index));
        let pci = handle.pci_info().map(|pci| pci_address(&pci.bus_id)).unwrap_or_default();
        let device = describe(handle.uuid()?, name, handle.name().unwrap_or_default(), driver);
        Ok((Device { minor, pci, ..device }, handle))
    }

    /// The instances of a GPU (MIG), each with its id.
    pub fn instances(nvml: &'n Nvml, handle: &Handle<'n>, of: &Device) -> Vec<(Device, Handle<'n>, u32)> {
        if !handle.mig_mode().is_ok_and(|mode| mode.current == 1) {
            return Vec::new();
        }
        let most = handle.mig_device_count().unwrap_or(0);
        let instance = |index: u32| {
            let part = handle.mig_device_by_index(index).ok()?;
            let id = instance_id(nvml, &part)?;
            let name = format!("{}.{id}", of.name);
            let device = describe(part.uuid().ok()?, name, part.name().unwrap_or_default(), &of.driver);
            Some((Device { parent: Some(of.id.clone()), ..device }, part, id))
        };
        (0..most).filter_map(instance).collect()
    }

    /// It does not answer.
    pub fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    fn is_resting(&self, now_ns: u64) -> bool {
        self.lost.is_some_and(|(until_ns, _)| now_ns < until_ns)
    }

    /// Finds the target's processes on it.
    pub fn list_processes(
        &mut self,
        tier: Tier,
        inventory: &mut Inventory,
        whose: &mut Whose,
        reading: &mut Reading,
    ) -> Result<(), Closed> {
        if self.is_divided || self.is_resting(reading.time_ns) {
            return Ok(());
        }
        let (processes, handle, number) = (&mut self.processes, &self.handle, self.number);
        let said = inventory.listen(number, reading, |out| {
            processes.list(handle, number, whose, out)?;
            if tier == Tier::Dear { processes.utilization(handle, whose, out) } else { Ok(()) }
        });
        match said {
            Some(Err(error)) => self.failed(None, "processes", &error, inventory, reading),
            _ => Ok(()),
        }
    }

    /// Asks it all that a tier asks.
    pub fn ask(
        &mut self,
        tier: Tier,
        inventory: &mut Inventory,
        reading: &mut Reading,
    ) -> Result<(), Closed> {
        let now_ns = reading.time_ns;
        if self.is_resting(now_ns) {
            return Ok(());
        }
        for (index, read) in READS.iter().enumerate().filter(|(_, read)| read.tier <= tier) {
            let is_for_all = self.instance.is_none() || read.instances;
            let is_open = match self.access.get(index) {
                Some(Access::Denied(until_ns)) => now_ns >= *until_ns,
                access => access == Some(&Access::Open),
            };
            if !is_open || !is_for_all {
                continue;
            }
            let said = inventory.listen(self.number, reading, |out| {
                let ask = read::Ask { handle: &self.handle, has_gpm: self.gpm.works() };
                (read.get)(&ask, out)
            });
            if let Some(Err(error)) = said {
                self.failed(Some(index), read.name, &error, inventory, reading)?;
            }
            if self.is_resting(now_ns) {
                return Ok(());
            }
        }
        if tier == Tier::Dear {
            self.measure(inventory, reading)?;
        }
        if !self.is_resting(now_ns) {
            self.recover(inventory, reading);
        }
        Ok(())
    }

    /// It answers.
    fn recover(&mut self, inventory: &mut Inventory, reading: &mut Reading) {
        if self.lost.take().is_some() {
            self.access = [Access::Open; READS.len()];
        }
        // It may have been lost to the same device of a library that was loaded before.
        if inventory.right(&self.id(inventory), LOST, "it answers again", reading) {
            inventory.listen(self.number, reading, |out| out.tell(What::State, State::Ok as u64));
        }
    }

    fn measure(&mut self, inventory: &mut Inventory, reading: &mut Reading) -> Result<(), Closed> {
        let (gpm, handle, instance) = (&mut self.gpm, &self.handle, self.instance);
        match inventory.listen(self.number, reading, |out| gpm.measure(handle, instance, out)) {
            Some(Err(error)) => self.failed(None, "performance metrics (GPM)", &error, inventory, reading),
            _ => Ok(()),
        }
    }

    /// Something could not be read.
    fn failed(
        &mut self,
        read: Option<usize>,
        name: &str,
        error: &NvmlError,
        inventory: &mut Inventory,
        reading: &mut Reading,
    ) -> Result<(), Closed> {
        let id = self.id(inventory);
        let mut access = Access::Open;
        match meaning(error) {
            Meaning::NotNow => {}
            Meaning::Never => {
                access = Access::None;
                if read.is_some() && name == read::ENERGY {
                    inventory.listen(self.number, reading, |out| out.kept.uncounted = true);
                }
            }
            Meaning::Denied => {
                access = Access::Denied(reading.time_ns.saturating_add(DENIED_NS));
                inventory.failed += 1;
                inventory.wrong(
                    &id,
                    format!("{name} may not be read: {error}; run privileged to have it"),
                    reading,
                );
            }
            Meaning::Lost => self.lose(error, inventory, reading),
            Meaning::Closed => return Err(Closed),
            Meaning::Odd => {
                inventory.failed += 1;
                inventory.wrong(&id, format!("{name} cannot be read: {error}"), reading);
            }
        }
        if let Some(slot) = read.and_then(|index| self.access.get_mut(index)) {
            *slot = access;
        }
        Ok(())
    }

    fn lose(&mut self, error: &NvmlError, inventory: &mut Inventory, reading: &mut Reading) {
        let pause = self.lost.map_or(PAUSE_NS.0, |(_, pause)| (pause * 2).min(PAUSE_NS.1));
        self.lost = Some((reading.time_ns.saturating_add(pause), pause));
        self.gpm = Gpm::default();
        inventory.failed += 1;
        inventory.wrong(
            &self.id(inventory),
            format!("{LOST}: {error}; it is asked again from time to time"),
            reading,
        );
        inventory.listen(self.number, reading, |out| out.tell(What::State, State::Failed as u64));
    }

    fn id(&self, inventory: &Inventory) -> String {
        inventory.devices().get(self.number as usize).map(|device| device.id.clone()).unwrap_or_default()
    }
}

/// The id of an instance in its GPU, which the wrapper does not have.
fn instance_id(nvml: &Nvml, part: &Handle) -> Option<u32> {
    let get = nvml.lib().nvmlDeviceGetGpuInstanceId.as_ref().ok()?;
    let mut id = 0;
    // SAFETY: the handle is of this library, which is loaded as long as `nvml` lives, and the pointer is to a live number.
    let code = unsafe { get(part.handle(), &raw mut id) };
    (code == 0).then_some(id)
}
