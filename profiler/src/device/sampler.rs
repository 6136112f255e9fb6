//! The loop that reads devices, on a thread of its own.
//!
//! In: settings, the target's pids, and a word of the end. Out: [`Reading`]s. Nothing that happens here ends the
//! observation: a library that is not there is looked for again, with growing pauses.

use super::amd;
use super::inventory::Inventory;
use super::model::{Cost, Reading};
use super::nvml::{self, Closed, NVML};
use super::rhythm::{Rhythm, Tier};
use super::settings::{SHARE, Settings};
use super::whose::{Targets, Whose};
use crate::clock;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// The first pause before a library that is not there is looked for again, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Where readings go; false once nobody takes them.
pub type Send<'a> = &'a mut dyn FnMut(Reading) -> bool;

/// What the thread holds.
struct Sampler<'a> {
    settings: &'a Settings,
    targets: &'a Targets,
    /// Closed when the observation ends.
    end: &'a Receiver<()>,
    send: Send<'a>,
    inventory: Inventory,
    whose: Whose,
    amd: amd::Source,
    rhythm: Rhythm,
    start_ns: u64,
    rounds: u64,
    /// CPU time of this thread up to the end of the last round.
    spent_ns: u64,
    says_stretched: bool,
}

/// Why a run of rounds ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The observation is over.
    All,
    /// It is time to look for the library.
    Library,
    /// The library is of no use any more.
    Closed,
}

/// Reads until `end` is closed.
pub fn run(settings: &Settings, targets: &Targets, end: &Receiver<()>, send: Send<'_>) {
    let start_ns = clock::monotonic_ns();
    let mut sampler = Sampler {
        settings,
        targets,
        end,
        send,
        inventory: Inventory::default(),
        whose: Whose::default(),
        amd: amd::Source::new(&settings.sys),
        rhythm: Rhythm::new(settings, start_ns),
        start_ns,
        rounds: 0,
        spent_ns: 0,
        says_stretched: false,
    };
    let mut pause = PAUSE.0;
    loop {
        let mut reading = sampler.begin();
        let (ended, was_good) = match nvml::open(settings.nvml.as_deref()) {
            Ok(library) => {
                let mut source = nvml::Source::new(&library, &mut sampler.inventory, &mut reading);
                let (first_ns, during) = (reading.time_ns, (!source.is_complete).then_some(pause));
                let ended = sampler.rounds(Some(&mut source), reading, during);
                (ended, clock::monotonic_ns().saturating_sub(first_ns) > PAUSE.1.as_nanos() as u64)
            }
            Err((what, true)) => {
                sampler.inventory.lacks(NVML, what, &mut reading);
                (sampler.rounds(None, reading, Some(pause)), false)
            }
            Err((what, false)) => {
                sampler.inventory.wrong(NVML, what, &mut reading);
                (sampler.rounds(None, reading, Some(pause)), false)
            }
        };
        let ended = if ended == Ended::Closed { sampler.rest(pause) } else { ended };
        if ended == Ended::All {
            return;
        }
        pause = if was_good { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
    }
}

impl Sampler<'_> {
    fn begin(&self) -> Reading {
        Reading { time_ns: clock::monotonic_ns(), ..Reading::default() }
    }

    /// A dear round with what has just been found, then rounds as they are due, for so long.
    fn rounds(
        &mut self,
        mut nvml: Option<&mut nvml::Source<'_>>,
        first: Reading,
        during: Option<Duration>,
    ) -> Ended {
        let until_ns = during.map(|during| first.time_ns.saturating_add(during.as_nanos() as u64));
        let mut now = Some((Tier::Dear, first));
        loop {
            if let Some((tier, reading)) = now.take() {
                match self.round(tier, nvml.as_deref_mut(), reading) {
                    None => return Ended::All,
                    Some(Err(Closed)) => return Ended::Closed,
                    Some(Ok(())) => {}
                }
            }
            let pulses = !self.whose.used().is_empty();
            let next_ns = self.rhythm.next_ns(pulses).min(until_ns.unwrap_or(u64::MAX));
            let wait = Duration::from_nanos(next_ns.saturating_sub(clock::monotonic_ns()));
            if self.rest(wait) == Ended::All {
                // Totals go up to the end of the observation.
                let reading = self.begin();
                self.round(Tier::Dear, nvml, reading);
                return Ended::All;
            }
            let reading = self.begin();
            if until_ns.is_some_and(|until_ns| reading.time_ns >= until_ns) {
                return Ended::Library;
            }
            now = self.rhythm.due(reading.time_ns).map(|tier| (tier, reading));
        }
    }

    /// One round, and whether the library is still of use; none when nobody takes readings any more.
    fn round(
        &mut self,
        tier: Tier,
        nvml: Option<&mut nvml::Source<'_>>,
        mut reading: Reading,
    ) -> Option<Result<(), Closed>> {
        let said = self.read(tier, nvml, &mut reading);
        // With what waking up and sending the reading before took.
        let before_ns = std::mem::replace(&mut self.spent_ns, clock::thread_cpu_ns());
        self.rhythm.done(tier, reading.time_ns, self.spent_ns.saturating_sub(before_ns));
        self.rounds += 1;
        self.say_stretched(&mut reading);
        if tier == Tier::Dear || !reading.notes.is_empty() {
            reading.cost = Some(Cost {
                cpu_ns: clock::thread_cpu_ns(),
                wall_ns: reading.time_ns.saturating_sub(self.start_ns),
                rounds: self.rounds,
                failed: self.inventory.failed,
            });
        }
        let is_empty = Reading { time_ns: reading.time_ns, ..Reading::default() } == reading;
        if !is_empty && !(self.send)(reading) {
            return None;
        }
        Some(said)
    }

    fn read(
        &mut self,
        tier: Tier,
        mut nvml: Option<&mut nvml::Source<'_>>,
        reading: &mut Reading,
    ) -> Result<(), Closed> {
        let (scope, inventory, whose) = (self.settings.scope, &mut self.inventory, &mut self.whose);
        if tier >= Tier::Cheap {
            whose.begin(self.targets, tier == Tier::Dear);
            if tier == Tier::Dear {
                self.amd.look(inventory, reading);
            }
            if let Some(nvml) = &mut nvml {
                nvml.list(tier, inventory, whose, reading)?;
            }
        }
        self.amd.round(tier, scope, inventory, whose, reading);
        if tier >= Tier::Cheap {
            reading.places = whose.places(inventory.devices());
        }
        nvml.map_or(Ok(()), |nvml| nvml.ask(tier, scope, inventory, whose, reading))
    }

    /// Said once: figures come less often than they were asked for.
    fn say_stretched(&mut self, reading: &mut Reading) {
        let most = Tier::Cheap.max(Tier::Dear);
        if !self.says_stretched && self.rhythm.stretched(most) > 2.0 {
            self.says_stretched = true;
            let what = format!(
                "reading is dear here: some values come {:.0} times less often than --device-interval says, to stay \
                 within {:.1} % of a core",
                self.rhythm.stretched(most),
                SHARE * 100.0
            );
            self.inventory.wrong("devices", what, reading);
        }
    }

    fn rest(&self, time: Duration) -> Ended {
        match self.end.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ended::Library,
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Ended::All,
        }
    }
}
