//! Addresses of a live process → names, by blazesym.
//!
//! Symbols of ELF files only: reading DWARF of a PyTorch takes gigabytes. An address without a name shows as where it
//! lies, `file+0x…`, so that stacks stay comparable.

use crate::target::{self, Mapping};
use blazesym::Pid;
use blazesym::symbolize::source::{Process, Source};
use blazesym::symbolize::{Input, Sym, Symbolized};
use std::collections::HashMap;
use std::sync::Arc;

/// Names of addresses, by process; each address is looked up once.
pub struct Symbolizer {
    inner: blazesym::symbolize::Symbolizer,
    names: HashMap<(u32, u64), Arc<str>>,
}

/// Addresses that are kept with their names.
const MOST: usize = 262_144;

impl Default for Symbolizer {
    fn default() -> Self {
        let inner = blazesym::symbolize::Symbolizer::builder()
            .enable_code_info(false)
            .enable_inlined_fns(false)
            .enable_demangling(true)
            .build();
        Self { inner, names: HashMap::new() }
    }
}

impl Symbolizer {
    /// Looks up what has not been looked up yet.
    pub fn learn(&mut self, pid: u32, addresses: impl Iterator<Item = u64>) {
        let mut new: Vec<u64> =
            addresses.filter(|address| !self.names.contains_key(&(pid, *address))).collect();
        new.sort_unstable();
        new.dedup();
        new.truncate(MOST.saturating_sub(self.names.len()));
        if new.is_empty() {
            return;
        }
        let mut source = Process::new(Pid::from(pid));
        source.debug_syms = false;
        source.perf_map = true;
        let found = self.inner.symbolize(&Source::Process(source), Input::AbsAddr(&new)).unwrap_or_default();
        let mappings = target::mappings(pid).unwrap_or_default();
        for (index, address) in new.into_iter().enumerate() {
            let name = match found.get(index) {
                Some(Symbolized::Sym(Sym { name, .. })) => Arc::from(name.as_ref()),
                _ => place(&mappings, address),
            };
            self.names.insert((pid, address), name);
        }
    }

    /// The name of an address; its number when it was not looked up.
    #[must_use]
    pub fn name(&self, pid: u32, address: u64) -> Arc<str> {
        self.names.get(&(pid, address)).cloned().unwrap_or_else(|| Arc::from(format!("{address:#x}")))
    }
}

/// Where an address without a name lies.
fn place(mappings: &[Mapping], address: u64) -> Arc<str> {
    let mapping = mappings.iter().find(|mapping| (mapping.start..mapping.end).contains(&address));
    mapping.map_or_else(
        || Arc::from(format!("{address:#x}")),
        |mapping| Arc::from(format!("{}+{:#x}", mapping.name(), address - mapping.start + mapping.offset)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[unsafe(no_mangle)]
    #[inline(never)]
    extern "C" fn a_function_that_is_on_a_stack() -> u64 {
        std::hint::black_box(7)
    }

    #[test]
    fn our_own_functions_have_names_and_nothing_has_a_number() {
        let pid = std::process::id();
        let function = a_function_that_is_on_a_stack as *const () as u64;
        assert_eq!(a_function_that_is_on_a_stack(), 7);
        let mut symbolizer = Symbolizer::default();
        symbolizer.learn(pid, [function, 0x10].into_iter());
        assert_eq!(&*symbolizer.name(pid, function), "a_function_that_is_on_a_stack");
        assert_eq!(&*symbolizer.name(pid, 0x10), "0x10");
        assert_eq!(&*symbolizer.name(pid, 0x20), "0x20");
    }
}
