//! Power of devices → energy of GPU work.
//!
//! In: readings of devices, and pieces of GPU work with their times. Out: microjoules. Where no power is known there is no
//! energy, and no guess.

use super::power::{Party, Power};
use super::ride::{Iteration, Piece, Share};
use crate::device::{Place, Reading};
use crate::server::said::Part;
use std::collections::{BTreeMap, HashMap};

/// Process, device as its process numbers it, and what for: `prefill`, `decode`, `unattributed`.
pub type Purpose = (u32, Option<u32>, &'static str);

/// What of the devices' energy is one target's.
#[derive(Debug, Default)]
pub struct Energy {
    party: Party,
    places: HashMap<u32, Place>,
    sums: BTreeMap<Purpose, u64>,
}

impl Energy {
    /// Takes what devices said.
    pub fn take(&mut self, reading: &Reading) {
        self.party.take(reading);
        if let Some(places) = &reading.places {
            self.places = places.iter().map(|place| (place.pid, place.clone())).collect();
        }
    }

    /// Others have work on the same devices, whose power this is.
    pub fn share(&mut self, power: &Power) {
        self.party = power.party();
    }

    /// Work of a process is or was on its device from one time to another, whenever it will be charged for it.
    pub fn works(&self, (pid, device): (u32, Option<u32>), from_ns: u64, end_ns: u64) {
        if let Some(number) = self.place(pid, device) {
            self.party.works(number, from_ns, end_ns);
        }
    }

    /// The energy of a piece of work in microjoules, none where its device or the device's power is not known.
    pub fn charge(&self, piece: &Piece) -> Option<u64> {
        let number = self.place(piece.pid, piece.device)?;
        self.party.charge(number, piece.from_ns, piece.end_ns)
    }

    /// The number of a process's device.
    #[must_use]
    pub fn place(&self, pid: u32, ordinal: Option<u32>) -> Option<u32> {
        let place = self.places.get(&pid)?;
        match ordinal {
            _ if place.only => place.devices.first(),
            Some(ordinal) => place.devices.get(ordinal as usize),
            None => None,
        }
        .copied()
    }

    /// Adds an iteration's energy up, by what it was for.
    pub fn account(&mut self, iteration: &Iteration) {
        let Some(gpu) = iteration.gpu.as_ref().filter(|gpu| gpu.whole.energy_uj > 0) else { return };
        let of = |part: Part| iteration.riders.iter().filter(move |rider| rider.part == part);
        let sum = |part| of(part).map(|rider| rider.share.energy_uj).sum::<u64>();
        let (prefill, decode) = (sum(Part::Prefill), sum(Part::Decode));
        for piece in gpu.devices() {
            let all = piece.whole.energy_uj;
            // Of several devices each has the iteration's proportions, and what remains is nobody's.
            let part = |energy: u64| {
                (u128::from(all) * u128::from(energy) / u128::from(gpu.whole.energy_uj.max(1))) as u64
            };
            let (prefill, decode) = (part(prefill), part(decode));
            let parts = [("prefill", prefill), ("decode", decode), ("unattributed", all - prefill - decode)];
            for (name, energy) in parts.into_iter().filter(|(_, energy)| *energy > 0) {
                *self.sums.entry((piece.pid, piece.device, name)).or_default() += energy;
            }
        }
    }

    /// Energy of all iterations so far, microjoules.
    pub fn sums(&self) -> impl Iterator<Item = (Purpose, u64)> {
        self.sums.iter().map(|(key, energy)| (*key, *energy))
    }
}

/// Takes the energy of each piece of a whole.
pub fn charge(energy: &Energy, pieces: &mut [Piece], whole: &mut Share) {
    for piece in pieces {
        let charged = energy.charge(piece);
        for share in [&mut piece.whole, &mut *whole] {
            share.energy_uj += charged.unwrap_or(0);
            share.unpowered |= charged.is_none();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Fact, Sample, What};

    const MS: u64 = 1_000_000;

    #[test]
    fn devices_are_found_by_place() {
        let place =
            |pid, devices: &[u32], only| Place { pid, devices: devices.to_vec(), only, unknown: None };
        let sample = |device, milliwatts| Sample { device, facts: vec![Fact(What::Power, milliwatts)] };
        let mut energy = Energy::default();
        for time_ns in [MS, 100 * MS] {
            energy.take(&Reading {
                time_ns,
                samples: vec![sample(1, 100_000), sample(3, 300_000)],
                places: Some(vec![place(7, &[3], true), place(8, &[3, 1], false)]),
                ..Reading::default()
            });
        }
        let charge = |pid, device, from_ms: u64| {
            let mut piece = Piece::default();
            (piece.pid, piece.device) = (pid, device);
            (piece.from_ns, piece.end_ns) = (from_ms * MS, from_ms * MS + MS);
            energy.charge(&piece)
        };
        assert_eq!(charge(7, Some(5), 10), Some(300_000), "its only one, whatever its ordinal");
        assert_eq!(charge(7, None, 11), Some(300_000));
        assert_eq!(charge(8, Some(1), 10), Some(100_000));
        assert_eq!((charge(8, None, 12), charge(8, Some(2), 12), charge(9, Some(0), 12)), (None, None, None));
    }
}
