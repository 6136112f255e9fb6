//! Kernel handles → names, or the reason why there is none.
//!
//! In: a process's mappings and the handles it launched. Out: a [`Name`]. Host functions of unstripped programs are
//! found in `.symtab` or `.dynsym`. CUDA 13's `cudaKernel_t` is found by the variable that keeps it ([`Handles`]); the
//! driver's `CUfunction` is no address of code and stays unknown here.

mod handle;

pub use handle::Handles;

use crate::target::{FileId, Mapping};
use object::read::ReadCache;
use object::{Object as _, ObjectSegment as _, ObjectSymbol as _};
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// What a kernel is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// The symbol of its host function.
    Known(Arc<str>),
    /// No name, and why.
    Unknown(Reason),
}

/// Why a kernel has no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The handle is no address in any mapped file: a handle of the driver or of CUDA 13's runtime.
    OpaqueHandle,
    /// The file has no symbol that starts there.
    NoSymbol,
    /// The file could not be read.
    Unreadable,
    /// The process was gone before its mappings could be read.
    ProcessGone,
}

impl Reason {
    /// The name in summaries.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OpaqueHandle => "opaque_handle",
            Self::NoSymbol => "no_symbol",
            Self::Unreadable => "unreadable",
            Self::ProcessGone => "process_gone",
        }
    }
}

/// The names of `functions` of process `pid`, given its executable mappings.
#[must_use]
pub fn names(pid: u32, mappings: &[Mapping], functions: &[u64]) -> Vec<(u64, Name)> {
    if mappings.is_empty() {
        return functions.iter().map(|function| (*function, Name::Unknown(Reason::ProcessGone))).collect();
    }
    let mut by_file: HashMap<FileId, Wanted> = HashMap::new();
    let mut named = Vec::new();
    for function in functions {
        match mappings.iter().find(|mapping| (mapping.start..mapping.end).contains(function)) {
            None => named.push((*function, Name::Unknown(Reason::OpaqueHandle))),
            Some(mapping) => {
                let offset = function - mapping.start + mapping.offset;
                let wanted = by_file.entry(mapping.file).or_insert(Wanted { mapping, functions: Vec::new() });
                wanted.functions.push((*function, offset));
            }
        }
    }
    for Wanted { mapping, functions } in by_file.into_values() {
        let offsets: Vec<u64> = functions.iter().map(|(_, offset)| *offset).collect();
        let found = symbols_at(&mapping.openable(pid), &offsets);
        named.extend(functions.into_iter().map(|(function, offset)| {
            let name = match &found {
                Err(reason) => Name::Unknown(*reason),
                Ok(found) => found.get(&offset).cloned().map_or(Name::Unknown(Reason::NoSymbol), Name::Known),
            };
            (function, name)
        }));
    }
    named
}

/// The functions to look for in one file, as address and offset in the file.
struct Wanted<'a> {
    mapping: &'a Mapping,
    functions: Vec<(u64, u64)>,
}

/// The symbols that start at these file offsets.
fn symbols_at(path: &Path, offsets: &[u64]) -> Result<HashMap<u64, Arc<str>>, Reason> {
    let file = File::open(path).map_err(|_| Reason::Unreadable)?;
    let cache = ReadCache::new(&file);
    let elf = object::File::parse(&cache).map_err(|_| Reason::Unreadable)?;
    let address_of = |offset: u64| {
        elf.segments().find_map(|segment| {
            let (start, size) = segment.file_range();
            let distance = offset.checked_sub(start)?;
            (distance < size).then(|| (segment.address() + distance, offset))
        })
    };
    let wanted: HashMap<u64, u64> = offsets.iter().filter_map(|offset| address_of(*offset)).collect();
    let mut found = HashMap::new();
    for symbol in elf.symbols().chain(elf.dynamic_symbols()).filter(|symbol| symbol.is_definition()) {
        let Some(offset) = wanted.get(&symbol.address()) else { continue };
        if let Ok(name) = symbol.name()
            && !name.is_empty()
        {
            found.entry(*offset).or_insert_with(|| Arc::from(name));
        }
    }
    Ok(found)
}

/// A symbol as a person reads it; a name that is not mangled stays as it is.
#[must_use]
pub fn demangle(symbol: &str) -> String {
    cpp_demangle::Symbol::new(symbol)
        .ok()
        .and_then(|parsed| parsed.demangle().ok())
        .unwrap_or_else(|| symbol.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[unsafe(no_mangle)]
    extern "C" fn a_function_of_this_test() -> u32 {
        42
    }

    #[test]
    fn our_own_function_has_its_name_and_a_handle_has_none() {
        let pid = std::process::id();
        let mappings = crate::target::mappings(pid).unwrap();
        let function = a_function_of_this_test as *const () as u64;
        assert_eq!(a_function_of_this_test(), 42);
        let named = names(pid, &mappings, &[function, 0x10]);
        let name = |address| named.iter().find(|(a, _)| *a == address).map(|(_, name)| name.clone()).unwrap();
        assert_eq!(name(function), Name::Known("a_function_of_this_test".into()));
        assert_eq!(name(0x10), Name::Unknown(Reason::OpaqueHandle));
        assert_eq!(names(pid, &[], &[1])[0].1, Name::Unknown(Reason::ProcessGone));
    }

    #[test]
    fn names_are_readable() {
        assert_eq!(demangle("_Z9flash_fwdPfPKfi"), "flash_fwd(float*, float const*, int)");
        assert_eq!(demangle("plain_c"), "plain_c");
    }
}
