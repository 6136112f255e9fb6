//! What devices say of their own load, held against the GPU time of the steps on them.
//!
//! In: readings of devices, how long each process kept each device busy so far. Out: for each device, in how many stretches of
//! time the two agreed. A device counts the time in which a kernel of anybody ran, so it may say more than one target's
//! steps come to, and never less: then steps are told as longer than they were. Nothing is corrected: by then the steps have been
//! told, and the device does not say which of them was too long.

use super::ride::GpuTimes;
use crate::device::{Reading, Task, What};
use serde::Serialize;
use std::collections::BTreeMap;

/// A stretch. Steps are told up to a second late, and the device's own sample is up to a second long
/// (`nvmlDeviceGetUtilizationRates`): together 7 of 100.
const STRETCH_NS: u64 = 30_000_000_000;

/// Values in a stretch at least; with fewer the mean of what the device said is no mean.
const LEAST_VALUES: u64 = 10;

/// What may lie between the two, parts per million: the 7 of 100, one for the device's whole percents, and copies, which are GPU
/// time but no kernels.
const TOLERANCE_PPM: u64 = 100_000;

/// How a device's own word and the steps on it agreed, in stretches of 30 s in which it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Agreement {
    /// Within a tenth of the time.
    pub agreed: u64,
    /// The device was busy for less than the steps: their GPU time is too long.
    pub less: u64,
    /// The device was busy for more: with work of others, or with work that was not seen.
    pub more: u64,
}

/// All devices that the target uses.
#[derive(Debug, Default)]
pub struct Utilization {
    devices: BTreeMap<u32, Device>,
}

#[derive(Debug, Default)]
struct Device {
    since_ns: u64,
    /// What the steps had come to then, nanoseconds.
    busy_ns: u64,
    /// Of what the device said, parts per million.
    sum_ppm: u64,
    values: u64,
    agreement: Agreement,
}

impl Utilization {
    /// Takes what devices said. `busy` is the GPU time so far by process and its device; `place` finds a device's number.
    pub fn take(
        &mut self,
        reading: &Reading,
        busy: impl Iterator<Item = ((u32, Option<u32>), GpuTimes)>,
        place: impl Fn(u32, Option<u32>) -> Option<u32>,
    ) {
        let mut busy_ns: BTreeMap<u32, u64> = BTreeMap::new();
        for ((pid, ordinal), times) in busy {
            if let Some(device) = place(pid, ordinal) {
                *busy_ns.entry(device).or_default() += times.busy_ns;
            }
        }
        for sample in &reading.samples {
            let (Some(busy_ns), Some(ppm)) =
                (busy_ns.get(&sample.device), sample.get(What::Utilization(Task::General)))
            else {
                continue;
            };
            let device = self.devices.entry(sample.device).or_default();
            if device.take(reading.time_ns, *busy_ns, ppm) && device.agreement.less == 1 {
                tracing::warn!(
                    device = sample.device,
                    "it says that it was busy for less than the GPU time of the steps on it, which is too long, then"
                );
            }
        }
    }

    /// By the device's number.
    pub fn agreements(&self) -> impl Iterator<Item = (u32, Agreement)> {
        self.devices.iter().map(|(number, device)| (*number, device.agreement))
    }
}

impl Device {
    /// True where a stretch ended in which the device said less.
    fn take(&mut self, now_ns: u64, busy_ns: u64, ppm: u64) -> bool {
        let took_ns = now_ns.saturating_sub(self.since_ns);
        if self.since_ns != 0 {
            // A value says what was up to its time.
            (self.sum_ppm, self.values) = (self.sum_ppm + ppm, self.values + 1);
            if took_ns < STRETCH_NS {
                return false;
            }
        }
        let steps = u128::from(busy_ns.saturating_sub(self.busy_ns)) * 1_000_000 / u128::from(took_ns.max(1));
        let steps = u64::try_from(steps).unwrap_or(u64::MAX);
        let said = self.sum_ppm / self.values.max(1);
        let is_known = self.values >= LEAST_VALUES;
        (self.since_ns, self.busy_ns, self.sum_ppm, self.values) = (now_ns, busy_ns, 0, 0);
        let agreement = &mut self.agreement;
        let (count, is_less) = match () {
            () if !is_known => return false,
            () if steps > said.saturating_add(TOLERANCE_PPM) => (&mut agreement.less, true),
            () if said > steps.saturating_add(TOLERANCE_PPM) => (&mut agreement.more, false),
            () => (&mut agreement.agreed, false),
        };
        *count += 1;
        is_less
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Fact, Sample};

    const S: u64 = 1_000_000_000;

    /// A value each `every` seconds for two minutes; the steps come to `busy` percent of the time, the device says `said`.
    fn agreement(busy: u64, said: u64, every: usize) -> Agreement {
        let mut utilization = Utilization::default();
        for second in (1..=121).step_by(every) {
            let fact = Fact(What::Utilization(Task::General), said * 10_000);
            let reading = Reading {
                time_ns: second * S,
                samples: vec![Sample { device: 3, facts: vec![fact] }],
                ..Reading::default()
            };
            // By two processes on the device, and one on another that nobody reads.
            let half = GpuTimes { busy_ns: second * S * busy / 200, ..GpuTimes::default() };
            let times =
                [((7, Some(0)), half), ((8, None), half), ((9, Some(0)), half), ((10, Some(1)), half)];
            let place =
                |pid, _| [(7, 3), (8, 3), (9, 4)].iter().find(|(of, _)| *of == pid).map(|(_, to)| *to);
            utilization.take(&reading, times.into_iter(), place);
        }
        let mut agreements = utilization.agreements();
        let (device, agreement) = agreements.next().unwrap();
        assert!(device == 3 && agreements.next().is_none());
        agreement
    }

    #[test]
    fn what_the_device_says_is_held_against_the_steps() {
        let none = Agreement::default();
        assert_eq!(agreement(80, 80, 1), Agreement { agreed: 4, ..none });
        assert_eq!(agreement(80, 71, 1), Agreement { agreed: 4, ..none });
        assert_eq!(agreement(80, 89, 1), Agreement { agreed: 4, ..none });
        assert_eq!(agreement(80, 65, 1), Agreement { less: 4, ..none }, "steps are too long");
        assert_eq!(agreement(40, 95, 1), Agreement { more: 4, ..none }, "others work there, too");
        assert_eq!(agreement(80, 10, 5), none, "too few values");
    }

    #[test]
    fn a_device_whose_steps_are_not_known_is_not_judged() {
        let mut utilization = Utilization::default();
        let sample = Sample { device: 0, facts: vec![Fact(What::Utilization(Task::General), 500_000)] };
        let reading = Reading { time_ns: S, samples: vec![sample], ..Reading::default() };
        utilization.take(&reading, std::iter::empty(), |_, _| Some(0));
        assert_eq!(utilization.agreements().count(), 0);
    }
}
