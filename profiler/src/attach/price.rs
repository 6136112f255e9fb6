//! What a probe costs on this machine: two functions of our own, probed with a program that does nothing → [`Price`].
//!
//! Virtual machines make a probe up to 20 times dearer than bare metal, so a figure from elsewhere is worth little.
//! Absent: what the programs themselves add (a fraction of a microsecond), and return probes.

use super::library::{Library, Point};
use super::links::{EmptyProgram, LinkError};
use super::site::{self, Cost, Machine};
use crate::probe;
use crate::target;
use serde::Serialize;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

/// What a call costs more with a probe on it, by the cost class of the probe.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Price {
    /// At an instruction that the kernel emulates, nanoseconds.
    #[serde(rename = "emulated")]
    pub emulated_ns: f64,
    /// At one that it single-steps, nanoseconds; none where such places are refused.
    #[serde(rename = "single_stepped")]
    pub single_stepped_ns: Option<f64>,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum PriceError {
    /// The probes could not be placed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Our own code is not where it should be.
    #[error("gpuspan's own code could not be found in its file")]
    Own,
}

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".pushsection .text.gpuspan_price, \"ax\", @progbits",
    ".globl gpuspan_emulated",
    ".type gpuspan_emulated, @function",
    "gpuspan_emulated: push rbp",
    "pop rbp",
    "ret",
    ".size gpuspan_emulated, . - gpuspan_emulated",
    ".globl gpuspan_single_stepped",
    ".type gpuspan_single_stepped, @function",
    "gpuspan_single_stepped: mov eax, edi",
    "ret",
    ".size gpuspan_single_stepped, . - gpuspan_single_stepped",
    ".popsection",
);
#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".pushsection .text.gpuspan_price, \"ax\", @progbits",
    ".balign 4",
    ".globl gpuspan_emulated",
    ".type gpuspan_emulated, @function",
    "gpuspan_emulated: adr x0, .",
    "ret",
    ".size gpuspan_emulated, . - gpuspan_emulated",
    ".popsection",
);

unsafe extern "C" {
    safe fn gpuspan_emulated();
    #[cfg(target_arch = "x86_64")]
    safe fn gpuspan_single_stepped();
}

/// Probes two functions of this very process and calls them; a tenth of a second.
///
/// # Errors
/// When the kernel refuses the probes.
pub fn measure() -> Result<Price, PriceError> {
    let empty = EmptyProgram::load()?;
    let emulated_ns = one(&empty, gpuspan_emulated, Cost::Emulated)?;
    #[cfg(target_arch = "x86_64")]
    let single_stepped_ns = Some(one(&empty, gpuspan_single_stepped, Cost::SingleStepped)?);
    #[cfg(not(target_arch = "x86_64"))]
    let single_stepped_ns = None;
    Ok(Price { emulated_ns, single_stepped_ns })
}

fn one(empty: &EmptyProgram, function: extern "C" fn(), cost: Cost) -> Result<f64, PriceError> {
    const OWN: &str = "/proc/self/exe";
    let library = library(Path::new(OWN), function as *const () as u64, cost).ok_or(PriceError::Own)?;
    let without = fastest_ns(function);
    let links = empty.attach(Path::new(OWN), std::process::id(), &library)?;
    let with = fastest_ns(function);
    drop(links);
    Ok((with - without).max(0.0))
}

/// Our own program as a library with this one function.
fn library(own: &Path, address: u64, cost: Cost) -> Option<Library> {
    let mappings = target::mappings(std::process::id()).ok()?;
    let mapping = mappings.iter().find(|mapping| (mapping.start..mapping.end).contains(&address))?;
    let offset = address - mapping.start + mapping.offset;
    let mut code = [0; site::WINDOW];
    let read = File::open(own).ok()?.read_at(&mut code, offset).ok()?;
    let machine = if cfg!(target_arch = "aarch64") { Machine::Aarch64 } else { Machine::X86_64 };
    let site = site::choose(machine, code.get(..read)?).ok()?;
    // Any function that is reported at entry alone will do: the program does not look at its cookie.
    let (api, _) = (0u16..).zip(probe::CATALOG).find(|(_, api)| !api.is_paired())?;
    let points = vec![Point { api, offset, address, site }];
    (site.cost == cost).then(|| Library { points, ..Library::empty(machine) })
}

/// Nanoseconds a call, of the fastest of a few rounds: what is slower was disturbed.
fn fastest_ns(function: extern "C" fn()) -> f64 {
    const ROUNDS: u32 = 8;
    const CALLS: u32 = 250;
    let round = |_| {
        let start = Instant::now();
        (0..CALLS).for_each(|_| function());
        start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
    };
    (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_functions_are_of_their_class() {
        let own = Path::new("/proc/self/exe");
        assert!(library(own, gpuspan_emulated as *const () as u64, Cost::Emulated).is_some());
        #[cfg(target_arch = "x86_64")]
        assert!(library(own, gpuspan_single_stepped as *const () as u64, Cost::SingleStepped).is_some());
        assert!(library(own, gpuspan_emulated as *const () as u64, Cost::EmulatedLater).is_none());
        assert!(library(own, 1, Cost::Emulated).is_none());
    }
}
