//! Power of devices over time, and what of it was charged to whom.
//!
//! In: readings of devices, and who has work on which device when. Out: energy. A moment of a device's time is charged
//! once to each party (a target) that has work there, in equal parts, and never more of it than there is: whose work is
//! told of late has what is left. Where no power is known there is no energy, and no guess.

use crate::device::{Reading, What};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How long power is remembered: work waits for its iteration for half of that at most.
const MEMORY_NS: u64 = 60_000_000_000;

/// Values of one device at most: one each 100 ms, and more where it is read more often.
const MOST_VALUES: usize = 4096;

/// How long the newest value stands for what comes after it, and the oldest for what came before: five pulses, so that a
/// late one spoils nothing.
const HOLD_NS: u64 = 500_000_000;

/// Between two values that lie further apart nothing is known.
const GAP_NS: u64 = 5_000_000_000;

/// Times of one party, and parts of time that were charged; they grow together, as work does.
const MOST_SPANS: usize = 1024;

/// All of a moment's power; half of it where two have work on the device, and so on.
const WHOLE: u32 = 1 << 30;

/// Power of all devices, for all parties that have work there. Cheap to clone: clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Power(Arc<Mutex<Devices>>);

/// One of those who have work on devices, until it is dropped.
#[derive(Debug)]
pub struct Party {
    power: Power,
    number: u64,
}

#[derive(Debug, Default)]
struct Devices {
    by_number: Vec<Device>,
    parties: u64,
}

/// One device.
#[derive(Debug, Default)]
struct Device {
    /// Time and milliwatts, ascending. A value says what the power was up to its time.
    values: VecDeque<(u64, u64)>,
    /// What was charged of times, of [`WHOLE`]: apart from each other, ascending.
    charged: VecDeque<(u64, u64, u32)>,
    parties: BTreeMap<u64, Presence>,
}

/// What a party has on a device.
#[derive(Debug, Default)]
struct Presence {
    /// Times in which it has work there.
    work: Spans,
    /// Times for which it was charged.
    charged: Spans,
}

/// Times that are apart from each other, ascending.
#[derive(Debug, Default)]
struct Spans(VecDeque<(u64, u64)>);

impl Power {
    /// Somebody else who has work on the devices.
    #[must_use]
    pub fn party(&self) -> Party {
        let mut devices = self.lock();
        devices.parties += 1;
        Party { power: self.clone(), number: devices.parties }
    }

    fn lock(&self) -> MutexGuard<'_, Devices> {
        // Nothing under the lock can panic half-way, so a poisoned table is a whole one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Party {
    /// The only one there is.
    fn default() -> Self {
        Power::default().party()
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        for device in &mut self.power.lock().by_number {
            device.parties.remove(&self.number);
        }
    }
}

impl Party {
    /// Takes what devices said; what another party has taken already changes nothing.
    pub fn take(&self, reading: &Reading) {
        let devices = &mut self.power.lock().by_number;
        for sample in &reading.samples {
            let Some(milliwatts) = sample.get(What::Power) else { continue };
            let index = sample.device as usize;
            if index >= devices.len() {
                devices.resize_with(index + 1, Device::default);
            }
            if let Some(device) = devices.get_mut(index) {
                device.push(reading.time_ns, milliwatts);
            }
        }
    }

    /// It has work on a device from one time to another.
    pub fn works(&self, device: u32, from_ns: u64, to_ns: u64) {
        if let Some(device) = self.power.lock().by_number.get_mut(device as usize) {
            device.parties.entry(self.number).or_default().work.add(from_ns, to_ns);
        }
    }

    /// Microjoules that are its own of a device's energy within a time and were not charged to it before; none where the
    /// power is not known.
    pub fn charge(&self, device: u32, from_ns: u64, to_ns: u64) -> Option<u64> {
        self.power.lock().by_number.get_mut(device as usize)?.charge(self.number, from_ns, to_ns)
    }
}

impl Device {
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

    fn charge(&mut self, party: u64, from_ns: u64, to_ns: u64) -> Option<u64> {
        if to_ns <= from_ns {
            return Some(0);
        }
        let (mut energy, mut parts) = (0, Vec::new());
        for (from_ns, to_ns) in self.moments(from_ns, to_ns) {
            let charged = self.charged_at(from_ns);
            let is_own = !self.parties.get(&party).is_some_and(|own| own.charged.has(from_ns));
            let part = if is_own { (WHOLE - charged) / self.claims(party, from_ns) } else { 0 };
            if part > 0 {
                energy += self.energy(from_ns, to_ns)? * u128::from(part) / u128::from(WHOLE);
            }
            parts.push((from_ns, to_ns, charged + part));
        }
        self.parties.entry(party).or_default().charged.add(from_ns, to_ns);
        self.remember(parts);
        // Milliwatts by nanoseconds are millionths of a microjoule.
        Some((energy / 1_000_000) as u64)
    }

    /// A time in pieces within which nothing changes of who has work and what was charged.
    fn moments(&self, from_ns: u64, to_ns: u64) -> impl Iterator<Item = (u64, u64)> + use<> {
        let mut edges = vec![from_ns, to_ns];
        let mut add = |edge: u64| edges.extend((from_ns < edge && edge < to_ns).then_some(edge));
        for presence in self.parties.values() {
            let spans = [&presence.work, &presence.charged];
            spans.iter().flat_map(|spans| spans.within(from_ns, to_ns)).for_each(|(start, end)| {
                add(start);
                add(end);
            });
        }
        for (start, end, _) in self.charged.range(self.place(from_ns)..).take_while(|part| part.0 < to_ns) {
            add(*start);
            add(*end);
        }
        edges.sort_unstable();
        edges.dedup();
        let ends = edges.clone().into_iter().skip(1);
        edges.into_iter().zip(ends)
    }

    /// How many may still be charged for a moment: the party that asks, and others that have work then.
    fn claims(&self, party: u64, at_ns: u64) -> u32 {
        let waits = |presence: &Presence| presence.work.has(at_ns) && !presence.charged.has(at_ns);
        let others = self.parties.iter().filter(|(number, presence)| **number != party && waits(presence));
        1 + others.count() as u32
    }

    /// The first part that ends behind a moment.
    fn place(&self, at_ns: u64) -> usize {
        self.charged.partition_point(|part| part.1 <= at_ns)
    }

    fn charged_at(&self, at_ns: u64) -> u32 {
        let part = self.charged.get(self.place(at_ns)).filter(|part| part.0 <= at_ns);
        part.map_or(0, |part| part.2)
    }

    /// So much of a time is charged from now on: `parts` follow each other.
    fn remember(&mut self, parts: Vec<(u64, u64, u32)>) {
        let (Some(&(from_ns, ..)), Some(&(_, to_ns, _))) = (parts.first(), parts.last()) else { return };
        // With those that touch it, which it may be one with.
        let first = self.charged.partition_point(|part| part.1 < from_ns);
        let last = self.charged.partition_point(|part| part.0 <= to_ns).max(first);
        let known: Vec<_> = self.charged.drain(first..last).collect();
        let before = known.first().filter(|part| part.0 < from_ns).map(|part| (part.0, from_ns, part.2));
        let after = known.last().filter(|part| part.1 > to_ns).map(|part| (to_ns, part.1, part.2));
        let mut all: Vec<(u64, u64, u32)> = Vec::new();
        for part in before.into_iter().chain(parts).chain(after).filter(|part| part.2 > 0) {
            match all.last_mut().filter(|last| last.1 == part.0 && last.2 == part.2) {
                Some(last) => last.1 = part.1,
                None => all.push(part),
            }
        }
        for (index, part) in all.into_iter().enumerate() {
            self.charged.insert(first + index, part);
        }
        while self.charged.len() > MOST_SPANS {
            self.charged.pop_front();
        }
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
}

impl Spans {
    fn add(&mut self, from_ns: u64, to_ns: u64) {
        let (mut from_ns, mut to_ns) = (from_ns, to_ns.max(from_ns));
        let first = self.0.partition_point(|span| span.1 < from_ns);
        let last = self.0.partition_point(|span| span.0 <= to_ns).max(first);
        for span in self.0.drain(first..last) {
            (from_ns, to_ns) = (from_ns.min(span.0), to_ns.max(span.1));
        }
        self.0.insert(first, (from_ns, to_ns));
        if self.0.len() > MOST_SPANS {
            self.0.pop_front();
        }
    }

    fn within(&self, from_ns: u64, to_ns: u64) -> impl Iterator<Item = (u64, u64)> {
        let first = self.0.partition_point(|span| span.1 <= from_ns);
        self.0.range(first..).take_while(move |span| span.0 < to_ns).copied()
    }

    fn has(&self, at_ns: u64) -> bool {
        self.within(at_ns, at_ns + 1).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Fact, Sample};
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    /// Power in watts by milliseconds.
    fn device(values: &[(u64, u64)]) -> Device {
        let mut device = Device::default();
        values.iter().for_each(|(ms, watts)| device.push(ms * MS, watts * 1000));
        device
    }

    /// Millijoules.
    fn charge_ms(device: &mut Device, from_ms: u64, to_ms: u64) -> Option<u64> {
        charge_to(device, 1, from_ms, to_ms)
    }

    fn charge_to(device: &mut Device, party: u64, from_ms: u64, to_ms: u64) -> Option<u64> {
        device.charge(party, from_ms * MS, to_ms * MS).map(|energy| energy / 1000)
    }

    fn works(device: &mut Device, party: u64, from_ms: u64, to_ms: u64) {
        device.parties.entry(party).or_default().work.add(from_ms * MS, to_ms * MS);
    }

    #[test]
    fn a_value_stands_for_the_time_before_it() {
        let values = [(1000, 100), (1100, 300), (1200, 200)];
        assert_eq!(charge_ms(&mut device(&values), 1000, 1100), Some(30_000));
        assert_eq!(charge_ms(&mut device(&values), 1050, 1150), Some(15_000 + 10_000));
        assert_eq!(charge_ms(&mut device(&values), 1150, 1250), Some(10_000 + 10_000), "the last goes on");
        assert_eq!(charge_ms(&mut device(&values), 900, 1000), Some(10_000), "the first began earlier");
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        let values = [(1000, 100), (1100, 300), (9000, 200)];
        assert_eq!(charge_ms(&mut device(&values), 400, 600), None, "long before the first");
        assert_eq!(charge_ms(&mut device(&values), 9000, 9501), None, "long after the last");
        assert_eq!(charge_ms(&mut device(&values), 5000, 5001), None, "in a gap");
        assert_eq!(charge_ms(&mut device(&[]), 5000, 5001), None);
    }

    #[test]
    fn time_is_charged_once() {
        let mut device = device(&[(0, 100), (1000, 100)]);
        assert_eq!(charge_ms(&mut device, 100, 200), Some(10_000));
        assert_eq!(charge_ms(&mut device, 300, 400), Some(10_000));
        assert_eq!(charge_ms(&mut device, 150, 350), Some(10_000), "what lies between");
        assert_eq!(charge_ms(&mut device, 0, 500), Some(20_000), "what lies around");
        assert_eq!(charge_ms(&mut device, 0, 500), Some(0));
        assert_eq!(device.charged.len(), 1);
    }

    #[test]
    fn those_who_work_at_once_have_equal_parts() {
        let mut device = device(&[(0, 100), (1000, 100)]);
        works(&mut device, 1, 0, 200);
        works(&mut device, 2, 100, 300);
        assert_eq!(charge_to(&mut device, 1, 0, 200), Some(10_000 + 5_000));
        works(&mut device, 3, 150, 160);
        // Half is left; of 10 ms there are three, of whom the first had half.
        assert_eq!(charge_to(&mut device, 3, 150, 160), Some(250));
        assert_eq!(charge_to(&mut device, 2, 100, 300), Some(5_000 - 250 + 10_000));
        for party in 1..=3 {
            assert_eq!(charge_to(&mut device, party, 0, 300), Some(0), "all of it is charged");
        }
    }

    #[test]
    fn whose_work_is_told_of_late_has_what_is_left() {
        let mut device = device(&[(0, 100), (1000, 100)]);
        works(&mut device, 1, 0, 200);
        assert_eq!(charge_to(&mut device, 1, 0, 200), Some(20_000));
        works(&mut device, 2, 100, 300);
        assert_eq!(charge_to(&mut device, 2, 100, 300), Some(10_000));
    }

    #[test]
    fn who_is_gone_has_no_claim() {
        let power = Power::default();
        let [one, other] = [power.party(), power.party()];
        for time_ns in [0, 1000 * MS] {
            let sample = Sample { device: 0, facts: vec![Fact(What::Power, 100_000)] };
            let reading = Reading { time_ns, samples: vec![sample], ..Reading::default() };
            one.take(&reading);
            other.take(&reading);
        }
        other.works(0, 0, 400 * MS);
        assert_eq!(one.charge(0, 0, 100 * MS), Some(5_000_000));
        drop(other);
        assert_eq!(one.charge(0, 100 * MS, 200 * MS), Some(10_000_000));
        assert_eq!(one.charge(1, 0, MS), None, "no such device");
    }

    proptest! {
        #[test]
        fn parties_never_have_more_than_there_is(
            acts in prop::collection::vec((0u64..4, any::<bool>(), 0u64..1000, 0u64..300), 0..60),
        ) {
            let mut device = device(&[(0, 100), (1500, 100)]);
            let (mut sum, mut asked) = (0, Spans::default());
            for (party, works_first, from, length) in acts {
                if works_first {
                    works(&mut device, party, from, from + length);
                } else {
                    sum += device.charge(party, from * MS, (from + length) * MS).unwrap();
                    asked.add(from, from + length);
                }
            }
            let most: u64 = asked.0.iter().map(|(from, to)| (to - from) * 100_000).sum();
            prop_assert!(sum <= most, "{sum} of {most}");
            // Whoever has work has claims until he has asked: then nothing is left.
            for party in 0..4 {
                sum += device.charge(party, 0, 1300 * MS).unwrap();
            }
            prop_assert!((sum / 1000).abs_diff(130_000) <= 60, "{sum}");
            prop_assert!(device.charged.iter().all(|part| part.2 <= WHOLE));
            prop_assert!(device.charged.iter().zip(device.charged.iter().skip(1)).all(|(one, next)| one.1 <= next.0));
        }

        #[test]
        fn pieces_are_the_whole(cuts in prop::collection::vec(0u64..1000, 0..40), watts in prop::collection::vec(1u64..700, 11)) {
            let values: Vec<_> = watts.iter().enumerate().map(|(index, watts)| (index as u64 * 100, *watts)).collect();
            let whole = charge_ms(&mut device(&values), 0, 1000).unwrap();
            let mut device = device(&values);
            let mut sum = 0;
            for pair in cuts.windows(2) {
                sum += device.charge(1, pair[0].min(pair[1]) * MS, pair[0].max(pair[1]) * MS).unwrap();
            }
            sum += device.charge(1, 0, 1000 * MS).unwrap();
            prop_assert!((sum / 1000).abs_diff(whole) <= 1, "{sum} and {whole}");
        }
    }
}
