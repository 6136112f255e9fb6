//! All devices that were ever seen, and what must outlive a source: numbers, totals, what is wrong.
//!
//! In: devices and values of the sources. Out: the parts of a [`Reading`]. A device keeps its number and its totals when
//! its library is loaded anew.

use super::model::{Device, Fact, Note, Reading, Sample, What};
use super::total::{From, Totals};
use std::collections::BTreeSet;

/// What is kept of a device.
#[derive(Debug, Default)]
pub struct Kept {
    totals: Totals,
    /// When its power was read before, and what it was: milliwatts.
    power: Option<(u64, u64)>,
    /// It has no counter of energy.
    pub uncounted: bool,
}

/// All devices.
#[derive(Debug, Default)]
pub struct Inventory {
    devices: Vec<Device>,
    kept: Vec<Kept>,
    wrong: BTreeSet<(String, String)>,
    /// Values that were not answered.
    pub failed: u64,
}

/// What a device says in one round.
#[derive(Debug)]
pub struct Out<'a> {
    /// When, `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
    /// What is kept of it.
    pub kept: &'a mut Kept,
    facts: Vec<Fact>,
}

/// Power that is not read for so long is not known in between.
const GAP_NS: u64 = 5_000_000_000;

impl Inventory {
    /// Every device, by its number.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The number of a device, which is told if it is new.
    pub fn number(&mut self, device: Device, reading: &mut Reading) -> u32 {
        let known = self.devices.iter().position(|known| known.id == device.id);
        let index = known.unwrap_or_else(|| {
            reading.devices.push(device.clone());
            self.kept.push(Kept::default());
            self.devices.push(device);
            self.devices.len() - 1
        });
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    /// Takes what a device says.
    pub fn listen<T>(
        &mut self,
        number: u32,
        reading: &mut Reading,
        speak: impl FnOnce(&mut Out) -> T,
    ) -> Option<T> {
        let kept = self.kept.get_mut(number as usize)?;
        let mut out = Out { time_ns: reading.time_ns, kept, facts: Vec::new() };
        let said = speak(&mut out);
        let facts = out.facts;
        if !facts.is_empty() {
            reading.samples.push(Sample { device: number, facts });
        }
        Some(said)
    }

    /// Something is wrong: told and logged once until it is right again.
    pub fn wrong(&mut self, about: &str, what: String, reading: &mut Reading) {
        if self.wrong.insert((about.to_owned(), what.clone())) {
            tracing::warn!(about, "{what}");
            reading.notes.push(Note { about: about.to_owned(), what });
        }
    }

    /// The same where it is no reason to worry: a machine without such devices.
    pub fn lacks(&mut self, about: &str, what: String, reading: &mut Reading) {
        if self.wrong.insert((about.to_owned(), what.clone())) {
            tracing::info!(about, "{what}");
            reading.notes.push(Note { about: about.to_owned(), what });
        }
    }

    /// Whatever was wrong and began with these words is right again; whether anything was.
    pub fn right(&mut self, about: &str, wrong: &str, what: &str, reading: &mut Reading) -> bool {
        let before = self.wrong.len();
        self.wrong.retain(|(of, said)| of != about || !said.starts_with(wrong));
        let is_news = self.wrong.len() < before;
        if is_news {
            tracing::warn!(about, "{what}");
            reading.notes.push(Note { about: about.to_owned(), what: what.to_owned() });
        }
        is_news
    }
}

impl Out<'_> {
    /// A value of this moment.
    pub fn tell(&mut self, what: What, value: u64) {
        self.facts.push(Fact(what, value));
    }

    /// A counter of so many bits.
    pub fn total(&mut self, what: What, raw: u64, bits: u32, from: From) {
        let total = self.kept.totals.take(what, raw, bits, 1, from);
        self.tell(what, total);
    }

    /// One that counts in larger units.
    pub fn scaled(&mut self, what: What, raw: u64, bits: u32, each: u64) {
        let total = self.kept.totals.take(what, raw, bits, each, From::Zero);
        self.tell(what, total);
    }

    /// What has been added to a total.
    pub fn more(&mut self, what: What, more: u64) {
        let total = self.kept.totals.add(what, more);
        self.tell(what, total);
    }

    /// Power in milliwatts, and energy from it where nothing counts that.
    pub fn power(&mut self, milliwatts: u64) {
        let before = self.kept.power.replace((self.time_ns, milliwatts));
        self.tell(What::Power, milliwatts);
        if !self.kept.uncounted {
            return;
        }
        let spent = |(then_ns, then): (u64, u64)| {
            let span = Some(self.time_ns.saturating_sub(then_ns)).filter(|span| *span <= GAP_NS);
            // Milliwatts by nanoseconds are millionths of a microjoule; between two readings it went from one to the other.
            (u128::from(then + milliwatts) * u128::from(span.unwrap_or(0)) / 2_000_000) as u64
        };
        self.more(What::EnergyFromPower, before.map_or(0, spent));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn energy_is_added_up_from_power_where_nothing_counts_it() {
        let mut inventory = Inventory::default();
        let mut reading = Reading::default();
        let number = inventory.number(Device { id: "a".to_owned(), ..Device::default() }, &mut reading);
        let mut told = Vec::new();
        // 100 W, a second later 300 W, and after a gap 300 W again.
        for (time_ns, milliwatts) in [(0, 100_000), (1_000_000_000, 300_000), (60_000_000_000, 300_000)] {
            let mut reading = Reading { time_ns, ..Reading::default() };
            inventory.listen(number, &mut reading, |out| {
                out.kept.uncounted = true;
                out.power(milliwatts);
            });
            told.push(reading.samples[0].get(What::EnergyFromPower));
        }
        assert_eq!(
            told,
            [Some(0), Some(200_000_000), Some(200_000_000)],
            "200 J, and what is not known is not there"
        );
    }

    #[test]
    fn devices_are_told_once_and_keep_their_number() {
        let mut inventory = Inventory::default();
        let mut reading = Reading::default();
        let device = |id: &str| Device { id: id.to_owned(), ..Device::default() };
        let numbers: Vec<_> =
            ["a", "b", "a"].map(|id| inventory.number(device(id), &mut reading)).into_iter().collect();
        assert_eq!((numbers, reading.devices.len()), (vec![0, 1, 0], 2));
        inventory.wrong("a", "lost".to_owned(), &mut reading);
        inventory.wrong("a", "lost".to_owned(), &mut reading);
        inventory.wrong("a", "no permission".to_owned(), &mut reading);
        assert!(inventory.right("a", "lost", "answers again", &mut reading));
        assert!(!inventory.right("a", "lost", "answers again", &mut reading));
        let notes: Vec<_> = reading.notes.iter().map(|note| note.what.as_str()).collect();
        assert_eq!(notes, ["lost", "no permission", "answers again"]);
    }
}
