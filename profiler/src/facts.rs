//! What the controlling side knows at the end of an observation: the part of a summary that no event tells.
//!
//! In: [`Control`] and what correlation wants named. Out: plain data, for the summary and for a recording. Deliberately
//! absent: anything that must be looked up later.

use crate::account::{Blind, Own, Reserved, Target};
use crate::attach::Coverage;
use crate::control::Control;
use crate::correlate::KernelKey;
use crate::interned::{self, Name};
use crate::session::Session;
use crate::symbol;
use profiler_common::counter::Counters;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Stacks that the summary tells one by one.
pub const TOP_STACKS: usize = 200;

/// What the controlling side knows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Facts {
    /// Whom the observation was about.
    pub target: Target,
    /// Large pieces of device memory, the largest sums first.
    pub reservations: Vec<Reserved>,
    /// What may have gone unseen.
    pub blind: Vec<Blind>,
    /// What was probed.
    pub coverage: Vec<Coverage>,
    /// Names of addresses on stacks: process, address, name.
    pub frames: Vec<(u32, u64, String)>,
    /// Names of kernels that probes told and that found no room.
    pub names_dropped: u64,
    /// Handles that stood for two kernels.
    pub handles_reused: u64,
    /// Names and large pieces of memory that found no room.
    pub looks_dropped: u64,
    /// What kernels are called. In a recording they stand in records of their own.
    #[serde(skip)]
    pub kernels: BTreeMap<KernelKey, Called>,
}

/// What a kernel is called, as a summary has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Called {
    /// Short name and symbol, if it has a name.
    pub name: Option<(String, String)>,
    /// How it is known, or why it is not.
    #[serde(deserialize_with = "interned::one")]
    pub evidence: Name,
}

/// How an observation ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ending {
    /// The kernel side's counters, by family: seen, submitted, ring full, oversized, map full, bytes not copied.
    pub counters: Vec<[u64; 6]>,
    /// What came out of the ring.
    pub arrived: Arrived,
    /// How long it took, nanoseconds.
    pub window_ns: u64,
    /// When the last metrics were told, Unix time, nanoseconds.
    pub unix_ns: u64,
    /// What it cost.
    pub own: Own,
}

/// What came out of the ring.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Arrived {
    /// Records.
    pub records: u64,
    /// Of these, those that became events.
    pub decoded: u64,
    /// The others, by reason.
    pub rejected: Vec<(String, u64)>,
}

impl Facts {
    /// As they stand.
    #[must_use]
    pub fn of(control: &Control, session: &Session) -> Self {
        let names = control.name_counts();
        let reserved = control.reserved.iter().map(|((library, device), reserved)| Reserved {
            library: library.clone(),
            device: *device,
            ..reserved.clone()
        });
        let mut reservations: Vec<_> = reserved.collect();
        reservations.sort_by_key(|reserved| std::cmp::Reverse(reserved.bytes));
        let stacks = session.stacks.counts();
        let top = stacks.iter().take(TOP_STACKS).map(|(sample, _)| *sample);
        let on_stacks = top.clone().map(|sample| sample.kernel);
        let launched = session.engine.totals().work.kernels.keys().copied();
        let name = |pid, address| (pid, address, control.symbolizer.name(pid, address).to_string());
        let mut frames: Vec<_> =
            top.flat_map(|sample| sample.frames.iter().map(move |at| name(sample.kernel.pid, *at))).collect();
        frames.sort_unstable();
        frames.dedup();
        Self {
            target: Target { pid: control.root(), processes: control.members(), server: control.server },
            reservations,
            blind: control.blind.iter().map(|(pid, reason)| Blind { pid: *pid, reason }).collect(),
            coverage: control.attacher.coverage().cloned().collect(),
            frames,
            names_dropped: names.dropped,
            handles_reused: names.reused,
            looks_dropped: session.wants.beyond,
            kernels: launched.chain(on_stacks).map(|kernel| (kernel, called(control, kernel))).collect(),
        }
    }

    /// The name of an address on a stack.
    #[must_use]
    pub fn frame(&self, pid: u32, address: u64) -> String {
        let found = self.frames.binary_search_by(|(of, at, _)| (*of, *at).cmp(&(pid, address)));
        let name = found.ok().and_then(|index| self.frames.get(index)).map(|(_, _, name)| name.clone());
        name.unwrap_or_else(|| format!("{address:#x}"))
    }

    /// The short name of a kernel, or its handle.
    #[must_use]
    pub fn short(&self, kernel: KernelKey) -> String {
        let name = self.kernels.get(&kernel).and_then(|called| called.name.as_ref());
        name.map_or_else(|| format!("{:#x}", kernel.function), |(short, _)| short.clone())
    }
}

fn called(control: &Control, kernel: KernelKey) -> Called {
    match control.name(kernel) {
        symbol::Name::Known(symbol::Kernel { short, symbol, evidence }) => {
            let text = |name: Arc<str>| name.as_ref().to_owned();
            Called { name: Some((text(short), text(symbol))), evidence: evidence.name() }
        }
        symbol::Name::Unknown(reason) => Called { name: None, evidence: reason.name() },
    }
}

impl Ending {
    /// The kernel side's counters, for a recording.
    #[must_use]
    pub fn numbers(counters: &[Counters]) -> Vec<[u64; 6]> {
        let numbers =
            |c: &Counters| [c.seen, c.submitted, c.ring_full, c.oversized, c.map_full, c.bytes_uncopied];
        counters.iter().map(numbers).collect()
    }

    /// The kernel side's counters.
    #[must_use]
    pub fn counters(&self) -> Vec<Counters> {
        let counters =
            |[seen, submitted, ring_full, oversized, map_full, bytes_uncopied]: &[u64; 6]| Counters {
                seen: *seen,
                submitted: *submitted,
                ring_full: *ring_full,
                oversized: *oversized,
                map_full: *map_full,
                bytes_uncopied: *bytes_uncopied,
            };
        self.counters.iter().map(counters).collect()
    }
}
