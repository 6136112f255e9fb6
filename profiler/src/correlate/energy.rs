//! Power of devices over time → energy of GPU work.
//!
//! In: readings of devices, and pieces of GPU work with their times. Out: microjoules. A moment of a device's time is
//! charged once, to the first piece of work that it is asked for; where no power is known there is no energy, and no guess.

use super::ride::{Iteration, Piece, Share};
use crate::device::{Place, Reading, What};
use crate::server::said::Part;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// How long power is remembered: work waits for its iteration for half of that at most.
const MEMORY_NS: u64 = 60_000_000_000;

/// Values of one device at most: one each 100 ms, and more where it is read more often.
const MOST_VALUES: usize = 4096;

/// How long the newest value stands for what comes after it, and the oldest for what came before: five pulses, so that a
/// late one spoils nothing.
const HOLD_NS: u64 = 500_000_000;

/// Between two values that lie further apart nothing is known.
const GAP_NS: u64 = 5_000_000_000;

/// Times that were charged; they grow together, as work does.
const MOST_CHARGED: usize = 1024;

/// Process, device as its process numbers it, and what for: `prefill`, `decode`, `unattributed`.
pub type Purpose = (u32, Option<u32>, &'static str);

/// Power of all devices, and what of it was charged.
#[derive(Debug, Default)]
pub struct Energy {
    devices: Vec<Timeline>,
    places: HashMap<u32, Place>,
    sums: BTreeMap<Purpose, u64>,
}

/// Power of one device.
#[derive(Debug, Default)]
struct Timeline {
    /// Time and milliwatts, ascending. A value says what the power was up to its time.
    values: VecDeque<(u64, u64)>,
    /// Times that were charged, apart from each other, ascending.
    charged: VecDeque<(u64, u64)>,
}

impl Energy {
    /// Takes what devices said.
    pub fn take(&mut self, reading: &Reading) {
        for sample in &reading.samples {
            let Some(milliwatts) = sample.get(What::Power) else { continue };
            let index = sample.device as usize;
            if index >= self.devices.len() {
                self.devices.resize_with(index + 1, Timeline::default);
            }
            if let Some(device) = self.devices.get_mut(index) {
                device.push(reading.time_ns, milliwatts);
            }
        }
        if let Some(places) = &reading.places {
            self.places = places.iter().map(|place| (place.pid, place.clone())).collect();
        }
    }

    /// The energy of a piece of work in microjoules, none where its device or the device's power is not known.
    pub fn charge(&mut self, piece: &Piece) -> Option<u64> {
        let number = self.place(piece.pid, piece.device)?;
        self.devices.get_mut(number as usize)?.charge(piece.from_ns, piece.end_ns)
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

impl Timeline {
    fn push(&mut self, time_ns: u64, milliwatts: u64) {
        if self.values.back().is_some_and(|(last_ns, _)| *last_ns >= time_ns) {
            return;
        }
        self.values.push_back((time_ns, milliwatts));
        let old_ns = time_ns.saturating_sub(MEMORY_NS);
        while self.values.len() > MOST_VALUES || self.values.front().is_some_and(|(at_ns, _)| *at_ns < old_ns)
        {
            self.values.pop_front();
        }
    }

    /// What was not charged before of the energy within a time.
    fn charge(&mut self, from_ns: u64, to_ns: u64) -> Option<u64> {
        let mut energy = 0;
        let mut at_ns = from_ns;
        let charged = self.charged.iter().filter(|span| span.1 > from_ns && span.0 < to_ns);
        for span in charged.copied().chain([(to_ns, to_ns)]) {
            if span.0 > at_ns {
                energy += self.energy(at_ns, span.0)?;
            }
            at_ns = at_ns.max(span.1);
        }
        self.remember(from_ns, to_ns);
        // Milliwatts by nanoseconds are millionths of a microjoule.
        Some((energy / 1_000_000) as u64)
    }

    /// Milliwatts by nanoseconds within a time: each value stands for the time since the one before it.
    fn energy(&self, from_ns: u64, to_ns: u64) -> Option<u128> {
        let first = self.values.partition_point(|(time_ns, _)| *time_ns <= from_ns);
        let before_ns = match first.checked_sub(1).and_then(|index| self.values.get(index)) {
            Some((time_ns, _)) => *time_ns,
            None => self.values.front()?.0.saturating_sub(HOLD_NS),
        };
        let (mut at_ns, mut since_ns, mut energy) = (from_ns, before_ns, 0);
        if from_ns < before_ns {
            return None;
        }
        for (time_ns, milliwatts) in self.values.range(first..) {
            if time_ns - since_ns > GAP_NS {
                return None;
            }
            let end_ns = (*time_ns).min(to_ns);
            energy += u128::from(end_ns.saturating_sub(at_ns)) * u128::from(*milliwatts);
            (at_ns, since_ns) = (at_ns.max(end_ns), *time_ns);
            if at_ns >= to_ns {
                return Some(energy);
            }
        }
        // The newest value stands for what has not been told yet.
        let (last_ns, milliwatts) = self.values.back()?;
        (to_ns <= last_ns.saturating_add(HOLD_NS))
            .then(|| energy + u128::from(to_ns - at_ns) * u128::from(*milliwatts))
    }

    /// A time is charged from now on.
    fn remember(&mut self, from_ns: u64, to_ns: u64) {
        let (mut from_ns, mut to_ns) = (from_ns, to_ns.max(from_ns));
        let first = self.charged.partition_point(|span| span.1 < from_ns);
        let last = self.charged.partition_point(|span| span.0 <= to_ns).max(first);
        for span in self.charged.drain(first..last) {
            (from_ns, to_ns) = (from_ns.min(span.0), to_ns.max(span.1));
        }
        self.charged.insert(first, (from_ns, to_ns));
        if self.charged.len() > MOST_CHARGED {
            self.charged.pop_front();
        }
    }
}

/// Takes the energy of each piece of a whole.
pub fn charge(energy: &mut Energy, pieces: &mut [Piece], whole: &mut Share) {
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
    use crate::device::{Fact, Sample};
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    /// Power in watts by milliseconds.
    fn timeline(values: &[(u64, u64)]) -> Timeline {
        let mut timeline = Timeline::default();
        values.iter().for_each(|(ms, watts)| timeline.push(ms * MS, watts * 1000));
        timeline
    }

    /// Millijoules.
    fn charge_ms(timeline: &mut Timeline, from_ms: u64, to_ms: u64) -> Option<u64> {
        timeline.charge(from_ms * MS, to_ms * MS).map(|energy| energy / 1000)
    }

    #[test]
    fn a_value_stands_for_the_time_before_it() {
        let values = [(1000, 100), (1100, 300), (1200, 200)];
        assert_eq!(charge_ms(&mut timeline(&values), 1000, 1100), Some(30_000));
        assert_eq!(charge_ms(&mut timeline(&values), 1050, 1150), Some(15_000 + 10_000));
        assert_eq!(charge_ms(&mut timeline(&values), 1150, 1250), Some(10_000 + 10_000), "the last goes on");
        assert_eq!(charge_ms(&mut timeline(&values), 900, 1000), Some(10_000), "the first began earlier");
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        let values = [(1000, 100), (1100, 300), (9000, 200)];
        assert_eq!(charge_ms(&mut timeline(&values), 400, 600), None, "long before the first");
        assert_eq!(charge_ms(&mut timeline(&values), 9000, 9501), None, "long after the last");
        assert_eq!(charge_ms(&mut timeline(&values), 5000, 5001), None, "in a gap");
        assert_eq!(charge_ms(&mut timeline(&[]), 5000, 5001), None);
    }

    #[test]
    fn time_is_charged_once() {
        let mut timeline = timeline(&[(0, 100), (1000, 100)]);
        assert_eq!(charge_ms(&mut timeline, 100, 200), Some(10_000));
        assert_eq!(charge_ms(&mut timeline, 300, 400), Some(10_000));
        assert_eq!(charge_ms(&mut timeline, 150, 350), Some(10_000), "what lies between");
        assert_eq!(charge_ms(&mut timeline, 0, 500), Some(20_000), "what lies around");
        assert_eq!(charge_ms(&mut timeline, 0, 500), Some(0));
        assert_eq!(timeline.charged.len(), 1);
    }

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
        let mut charge = |pid, device, from_ms: u64| {
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

    proptest! {
        #[test]
        fn pieces_are_the_whole(cuts in prop::collection::vec(0u64..1000, 0..40), watts in prop::collection::vec(1u64..700, 11)) {
            let values: Vec<_> = watts.iter().enumerate().map(|(index, watts)| (index as u64 * 100, *watts)).collect();
            let whole = charge_ms(&mut timeline(&values), 0, 1000).unwrap();
            let mut timeline = timeline(&values);
            let mut sum = 0;
            for pair in cuts.windows(2) {
                sum += timeline.charge(pair[0].min(pair[1]) * MS, pair[0].max(pair[1]) * MS).unwrap();
            }
            sum += timeline.charge(0, 1000 * MS).unwrap();
            prop_assert!((sum / 1000).abs_diff(whole) <= 1, "{sum} and {whole}");
        }
    }
}
