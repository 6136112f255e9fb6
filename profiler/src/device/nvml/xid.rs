//! Xid events: what the driver says of serious trouble, as it happens.
//!
//! In: an event set of all devices, looked at without waiting. Out: totals by code.

use super::unit::Unit;
use crate::device::inventory::Inventory;
use crate::device::model::{Reading, What};
use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::event::EventSet;

/// Events in one look at most: a device in trouble can post them without end.
const MOST: usize = 64;

/// What the driver calls an error that it does not know.
const UNKNOWN: u32 = 999;

/// The events of all devices that have them.
#[derive(Debug)]
pub struct Xids<'n>(Option<EventSet<'n>>);

impl<'n> Xids<'n> {
    /// Of these devices. One that refuses takes the set with it, so that the others begin again.
    pub fn new(nvml: &'n Nvml, units: &[Unit<'n>]) -> Self {
        let mut able: Vec<&Unit> = units.iter().filter(|unit| unit.instance.is_none()).collect();
        while !able.is_empty() {
            let Ok(mut set) = nvml.create_event_set() else { return Self(None) };
            let mut refused = None;
            for (index, unit) in able.iter().enumerate() {
                match unit.handle.register_events(EventTypes::CRITICAL_XID_ERROR, set) {
                    Ok(again) => set = again,
                    Err(_) => {
                        refused = Some(index);
                        break;
                    }
                }
                if index + 1 == able.len() {
                    return Self(Some(set));
                }
            }
            refused.map(|index| able.remove(index));
        }
        Self(None)
    }

    /// Takes what was posted since the last time, of devices that are wanted.
    pub fn poll(&self, inventory: &mut Inventory, wanted: &[u32], reading: &mut Reading) {
        let Some(set) = &self.0 else { return };
        for _ in 0..MOST {
            let Ok(event) = set.wait(0) else { return };
            let code = match event.event_data {
                Some(XidError::Value(code)) => u32::try_from(code).unwrap_or(UNKNOWN),
                Some(XidError::Unknown) => UNKNOWN,
                None => continue,
            };
            let Ok(id) = event.device.uuid() else { continue };
            let devices = (0u32..).zip(inventory.devices());
            let number = devices.filter(|(_, device)| device.id == id).map(|(number, _)| number).next();
            let Some(number) = number.filter(|number| wanted.contains(number)) else { continue };
            tracing::warn!(device = id, code, "Xid");
            inventory.listen(number, reading, |out| out.more(What::Xid(code), 1));
        }
    }
}
