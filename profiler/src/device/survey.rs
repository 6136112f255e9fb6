//! Every device asked once: what it says of itself, for `gpuspan check`.

use super::amd;
use super::inventory::Inventory;
use super::model::{Device, Note, Reading, What};
use super::nvml::{self, NVML};
use super::rhythm::Tier;
use super::settings::{SHORTEST, Scope, Settings};
use super::whose::Whose;
use crate::clock;

/// A device.
#[derive(Debug)]
pub struct Found {
    /// Which.
    pub device: Device,
    /// What it says.
    pub has: Vec<&'static str>,
    /// What it could say and does not.
    pub lacks: Vec<&'static str>,
}

/// Something that a device may say: in words, and which values are it.
type Subject = (&'static str, fn(What) -> bool);

/// What a device may say.
const SUBJECTS: [Subject; 10] = [
    ("utilisation", |what| matches!(what, What::Utilization(_))),
    ("memory", |what| what == What::MemoryUsed),
    ("power", |what| what == What::Power),
    ("energy counter", |what| what == What::Energy),
    ("temperature", |what| matches!(what, What::Temperature(_))),
    ("clocks", |what| matches!(what, What::Clock(_))),
    ("throttling", |what| matches!(what, What::Throttled(_))),
    ("bytes over links", |what| matches!(what, What::Io(..))),
    ("memory errors", |what| matches!(what, What::Errors(_))),
    ("performance metrics (GPM)", |what| matches!(what, What::Activity(_))),
];

/// Asks all devices of this machine.
#[must_use]
pub fn survey(settings: &Settings) -> (Vec<Found>, Vec<Note>) {
    let (mut inventory, mut whose) = (Inventory::default(), Whose::default());
    let mut reading = Reading { time_ns: clock::monotonic_ns(), ..Reading::default() };
    let library = nvml::open(settings.nvml.as_deref());
    let mut source = match &library {
        Ok(library) => Some(nvml::Source::new(library, &mut inventory, &mut reading)),
        Err((what, _)) => {
            reading.notes.push(Note { about: NVML.to_owned(), what: what.clone() });
            None
        }
    };
    let mut amd = amd::Source::new(&settings.sys);
    amd.look(&mut inventory, &mut reading);
    // What is a mean between two moments needs two.
    for _ in 0..2 {
        if let Some(source) = &mut source {
            // A library that is closed has said why.
            let _ = source.ask(Tier::Dear, Scope::All, &mut inventory, &whose, &mut reading);
        }
        amd.round(Tier::Dear, Scope::All, &mut inventory, &mut whose, &mut reading);
        std::thread::sleep(if inventory.devices().is_empty() { std::time::Duration::ZERO } else { SHORTEST });
        reading.time_ns = clock::monotonic_ns();
    }
    let said = |number: usize, is_one: fn(What) -> bool| {
        let own = reading.samples.iter().filter(|sample| sample.device as usize == number);
        own.flat_map(|sample| &sample.facts).any(|fact| is_one(fact.0))
    };
    let found = |(number, device): (usize, &Device)| {
        let (has, lacks): (Vec<_>, Vec<_>) =
            SUBJECTS.iter().copied().partition(|(_, is_one)| said(number, *is_one));
        let names = |subjects: Vec<Subject>| subjects.into_iter().map(|(name, _)| name);
        Found { device: device.clone(), has: names(has).collect(), lacks: names(lacks).collect() }
    };
    (inventory.devices().iter().enumerate().map(found).collect(), reading.notes)
}
