//! Machine code → the calls in it whose arguments are constants.
//!
//! In: an [`Image`] and the functions of interest. Out: their call sites, and what each passes. Absent: any opinion
//! of what a call means, and control flow beyond forward jumps: what cannot be known by reading forward is unknown.

mod arm;
mod bounds;
mod imports;
mod reach;
mod state;
mod x86;

pub use bounds::{Bounds, Function};
pub use imports::{Import, Imports};
pub use reach::{mentions, stubs};
pub use state::Value;

use super::image::{Image, Machine};
use std::collections::HashSet;

/// The most code of one function that is read. The largest registration function seen has 1.2 MB (sgl-kernel
/// 0.3.21, sm100), so a larger one is a claim of a broken file.
pub const MOST_CODE: u64 = 16 << 20;

/// A call with what it passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Where the call instruction stands.
    pub at: u64,
    /// What is called: an address, or the slot of the global offset table that holds it.
    pub target: Target,
    /// The first six integer arguments.
    pub registers: [Value; 6],
    /// Arguments seven to ten.
    pub further: [Value; 4],
}

/// What a call goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A function, or the stub that stands for one.
    Address(u64),
    /// Where the function's address is kept.
    Slot(u64),
}

/// What is looked for: the calls to these.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Addresses of functions and stubs.
    pub addresses: HashSet<u64>,
    /// Slots that hold a function's address.
    pub slots: HashSet<u64>,
    /// Every call is wanted, whatever its target.
    pub all: bool,
}

impl Wanted {
    fn is(&self, target: Target) -> bool {
        self.all
            || match target {
                Target::Address(address) => self.addresses.contains(&address),
                Target::Slot(slot) => self.slots.contains(&slot),
            }
    }
}

/// What a tracer needs to know of the file around the code.
pub struct Surroundings<'a> {
    /// Bytes by address.
    pub image: &'a Image,
    /// What the loader writes into slots.
    pub imports: &'a Imports,
    /// Which calls are of interest.
    pub wanted: &'a Wanted,
}

/// The wanted calls of `function`.
#[must_use]
pub fn calls(function: Function, around: &Surroundings<'_>) -> Vec<Call> {
    let code = around.image.bytes(function.start, function.end.saturating_sub(function.start).min(MOST_CODE));
    match around.image.machine {
        Machine::X86 => x86::calls(&code, function.start, around),
        Machine::Arm => arm::calls(&code, function.start, around),
    }
}
