//! Readings → what is to be known of devices at the end. Pure.

use super::model::{Cost, Device, Note, Place, Reading, What};
use serde::Serialize;
use std::collections::BTreeMap;

/// Notes that are kept; the first say the most.
const MOST_NOTES: usize = 64;

/// What was read in an observation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    devices: Vec<(Device, Seen)>,
    places: Vec<Place>,
    notes: Vec<Note>,
    notes_dropped: u64,
    cost: Cost,
}

/// What was read of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    samples: u64,
    /// Energy in microjoules, and whether the device counted it itself.
    energy: Option<(u64, bool)>,
    processes: BTreeMap<u32, u64>,
}

/// The part of a summary that is about devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Devices {
    /// Those that were found, by their number in `places`.
    pub list: Vec<DeviceAccount>,
    /// Which devices the target's processes use, by CUDA's ordinal, as they stand at the end.
    pub places: Vec<Place>,
    /// What was wrong, or not any more.
    pub notes: Vec<Note>,
    /// Further ones.
    pub notes_dropped: u64,
    /// What reading cost.
    pub cost: Cost,
}

/// One device.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DeviceAccount {
    /// Which.
    #[serde(flatten)]
    pub device: Device,
    /// How often it was read: never where the target does not use it, unless all were asked for.
    pub samples: u64,
    /// Energy that it took since it was first read, joules.
    pub energy_j: Option<f64>,
    /// `counter` of the device, or added up from its `power`.
    pub energy_source: Option<&'static str>,
    /// Most memory of each process of the target, bytes.
    pub process_memory: BTreeMap<u32, u64>,
}

impl Log {
    /// Takes a reading.
    pub fn take(&mut self, reading: &Reading) {
        self.devices.extend(reading.devices.iter().map(|device| (device.clone(), Seen::default())));
        for sample in &reading.samples {
            let Some((_, seen)) = self.devices.get_mut(sample.device as usize) else { continue };
            seen.samples += 1;
            for fact in &sample.facts {
                match fact.0 {
                    What::Energy => seen.energy = Some((fact.1, true)),
                    What::EnergyFromPower => seen.energy = Some((fact.1, false)),
                    What::ProcessMemory(pid) => {
                        let most = seen.processes.entry(pid).or_default();
                        *most = (*most).max(fact.1);
                    }
                    _ => {}
                }
            }
        }
        if let Some(places) = &reading.places {
            self.places.clone_from(places);
        }
        let room = MOST_NOTES.saturating_sub(self.notes.len());
        self.notes.extend(reading.notes.iter().take(room).cloned());
        self.notes_dropped += reading.notes.len().saturating_sub(room) as u64;
        self.cost = reading.cost.unwrap_or(self.cost);
    }

    /// For a summary.
    #[must_use]
    pub fn account(&self) -> Devices {
        let list = self.devices.iter().map(|(device, seen)| DeviceAccount {
            device: device.clone(),
            samples: seen.samples,
            energy_j: seen.energy.map(|(microjoules, _)| microjoules as f64 / 1e6),
            energy_source: seen.energy.map(|(_, counted)| if counted { "counter" } else { "power" }),
            process_memory: seen.processes.clone(),
        });
        Devices {
            list: list.collect(),
            places: self.places.clone(),
            notes: self.notes.clone(),
            notes_dropped: self.notes_dropped,
            cost: self.cost,
        }
    }
}
