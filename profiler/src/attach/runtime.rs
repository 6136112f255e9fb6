//! A CUDA runtime that was linked into a program or library: ELF file → its functions and where its code lies.
//!
//! `libcudart_static.a` is one relocatable object, so the linker keeps its code together, and every function of it
//! that is not part of the API is called `libcudart_static_` and a hash (seen in 12.9.79 and 13.5.37, in programs of
//! nvcc 13 and in the wheels of ctranslate2 4.8.5 and nccl 2.32.3). Those names are the evidence: a program that
//! merely defines functions named like CUDA's is none. They tell where the runtime's code ends and its host's begins,
//! which matters because the host may call the driver itself. Absent: stripped files, whose runtime nothing tells
//! from other code; their calls are seen at the driver.

use super::elf::{self, Elf, Kind};
use super::library::{self, Found, Library, LibraryError, MOST_FOUND, Role};
use crate::probe::Layer;
use crate::target::Mapping;
use std::collections::HashMap;
use std::sync::Arc;

/// What is known of a runtime inside a file.
#[derive(Debug)]
pub enum Linked {
    /// It brings none.
    None,
    /// It has device code, and does not say how that is launched.
    Unseen,
    /// It brings one, with symbols.
    Runtime {
        /// Which CUDA it belongs to, where it tells.
        major: Option<u32>,
        /// Its functions that the catalogue knows.
        found: Vec<Found>,
        /// Where in the file its code lies, as start and end.
        code: Vec<(u64, u64)>,
    },
}

/// What functions of the archive that are not part of the API are called.
const INTERNAL: &str = "libcudart_static_";
/// Sections in which nvcc embeds device code; they survive `strip`.
const DEVICE_CODE: [&str; 2] = [".nv_fatbin", ".nvFatBinSegment"];
/// What every unit with device code calls at start-up.
const REGISTRATION: &[u8] = b"__cudaRegisterFatBinary\0";

/// A function that CUDA 13 took out of the API. Only the difference from 13 matters.
const LAST_IN_12: &[u8] = b"cudaLaunchCooperativeKernelMultiDevice\0";

/// How far the names of a file with device code are searched for the evidence: libtorch_cuda's are 60 MB long.
const SEARCHED: u64 = 512 << 20;
/// How far those of other files are: a runtime without kernels is rare and in small libraries.
const SEARCHED_WITHOUT_DEVICE_CODE: u64 = 32 << 20;
/// The most names that are held in memory at once. Files with a linked runtime have a few megabytes.
const MOST_NAMES: u64 = 64 << 20;
/// The most functions of one file that are put in order.
const MOST_FUNCTIONS: usize = 1 << 21;
/// The most pieces of code; one copy of the archive has one or two.
const MOST_PIECES: usize = 64;

/// Looks for a runtime inside the file, which asks for the libraries `needed`.
pub fn find(elf: &Elf, needed: &[String]) -> Linked {
    if needed.iter().any(|library| library.starts_with("libcudart")) {
        return Linked::None;
    }
    let has_device_code = DEVICE_CODE.iter().any(|name| elf.section(name).is_some());
    let limit = if has_device_code { SEARCHED } else { SEARCHED_WITHOUT_DEVICE_CODE };
    if let Some((table, strings)) = elf.symbol_table()
        && (has_device_code || strings.size() <= limit)
        && elf.contains(strings, INTERNAL.as_bytes(), limit)
        && let Some(names) = elf.load(strings, MOST_NAMES)
    {
        let major = elf.contains(strings, LAST_IN_12, limit).then_some(12);
        let functions = functions(elf, table, &names, major);
        let pieces = pieces(&functions);
        if !pieces.is_empty() {
            return runtime(elf, major, &functions, &pieces);
        }
    }
    if has_device_code && !imports_runtime(elf) { Linked::Unseen } else { Linked::None }
}

/// Whether a runtime library that the file does not ask for by name serves it all the same, as in plug-ins.
fn imports_runtime(elf: &Elf) -> bool {
    elf.dynamic_table().is_some_and(|(_, strings)| elf.contains(strings, REGISTRATION, MOST_NAMES))
}

/// Whose a function is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    /// The archive's own.
    Internal,
    /// Named like the API: the archive's, or a few lines that nvcc puts into every unit.
    Api(Option<u16>),
    /// The host's.
    Host,
}

#[derive(Clone, Copy, Debug)]
struct Function {
    address: u64,
    size: u64,
    owner: Owner,
}

/// All functions in order of address.
fn functions(elf: &Elf, table: &elf::Section, names: &[u8], major: Option<u32>) -> Vec<Function> {
    let apis = library::apis(Layer::Runtime, major);
    let mut functions = Vec::new();
    elf.symbols(table, |symbol| {
        if symbol.defined && symbol.kind != Kind::Other {
            let owner = owner(elf::name(names, symbol.name).unwrap_or(""), &apis);
            functions.push(Function { address: symbol.address, size: symbol.size, owner });
        }
        functions.len() < MOST_FUNCTIONS
    });
    functions.sort_unstable_by_key(|function| (function.address, function.owner));
    functions
}

fn owner(name: &str, apis: &HashMap<&str, u16>) -> Owner {
    let is_api = |rest: &str| rest.starts_with(|c: char| c.is_ascii_uppercase());
    if name.starts_with(INTERNAL) {
        Owner::Internal
    } else if name.strip_prefix("__cuda").or(name.strip_prefix("cuda")).is_some_and(is_api) {
        Owner::Api(apis.get(name).copied())
    } else {
        Owner::Host
    }
}

/// Where the archive's functions follow each other without one of the host between them, as start and end.
fn pieces(functions: &[Function]) -> Vec<(u64, u64)> {
    let mut pieces = Vec::new();
    // A second name of the same code does not end a piece: the archive's own sorts first.
    let distinct: Vec<_> =
        functions.chunk_by(|a, b| a.address == b.address).filter_map(<[_]>::first).collect();
    let is_host = |function: &&Function| function.owner == Owner::Host;
    let mut rest = distinct.as_slice();
    while !rest.is_empty() && pieces.len() < MOST_PIECES {
        let hosts = rest.iter().take_while(|function| is_host(function)).count();
        let (_, others) = rest.split_at(hosts);
        let length = others.iter().take_while(|function| !is_host(function)).count();
        let (piece, after) = others.split_at(length);
        if let (Some(first), Some(last)) = (piece.first(), piece.last())
            && piece.iter().any(|function| function.owner == Owner::Internal)
        {
            let end = last.address.saturating_add(last.size.max(1));
            pieces.push((first.address, after.first().map_or(end, |next| end.min(next.address))));
        }
        rest = after;
    }
    pieces
}

fn runtime(elf: &Elf, major: Option<u32>, functions: &[Function], pieces: &[(u64, u64)]) -> Linked {
    let found = functions.iter().filter_map(|function| match function.owner {
        Owner::Api(Some(api))
            if pieces.iter().any(|(start, end)| (*start..*end).contains(&function.address)) =>
        {
            Some(Found { api, address: function.address, kind: Kind::Function })
        }
        _ => None,
    });
    let code = pieces.iter().filter_map(|(start, end)| {
        let offset = elf.code_offset(*start)?;
        Some((offset, offset.checked_add(end - start)?))
    });
    Linked::Runtime { major, found: found.take(MOST_FOUND).collect(), code: code.collect() }
}

/// A mapping and what its file offers.
pub type Look<'a> = (&'a Mapping, Arc<Result<Library, LibraryError>>);

/// Where the code of probed runtimes lies: driver calls from there are nested. All of a runtime library, which may be
/// mapped in several pieces and several times; of any other file the runtime that was linked into it alone, because
/// its host may call the driver itself.
pub fn ranges(libraries: &[Look<'_>]) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    for (mapping, library) in libraries {
        let Ok(library) = library.as_ref() else { continue };
        if library.points.is_empty() {
            continue;
        }
        if library.roles.contains(&Role::Shared(Layer::Runtime)) {
            ranges.push((mapping.start, mapping.end));
        }
        ranges.extend(library.runtime_code.iter().filter_map(|code| mapping.addresses(*code)));
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: u64, name: &str) -> Function {
        let apis = HashMap::from([("cudaMalloc", 7)]);
        Function { address, size: 8, owner: owner(name, &apis) }
    }

    fn ordered(mut functions: Vec<Function>) -> Vec<Function> {
        functions.sort_unstable_by_key(|function| (function.address, function.owner));
        functions
    }

    #[test]
    fn the_archive_ends_where_the_host_begins() {
        let functions = ordered(vec![
            at(0x10, "libcudart_static_0a"),
            at(0x20, "main"),
            at(0x30, "__cudaUnregisterBinaryUtil"),
            at(0x40, "_Z6kernelv"),
            at(0x50, "libcudart_static_0b"),
            at(0x60, "cudaMalloc"),
            at(0x70, "cudaNotProbed"),
            at(0x80, "libcudart_static_0c"),
            // Another name of the archive's last function.
            at(0x80, "_ZN4host5aliasEv"),
            at(0x84, "atexit"),
        ]);
        assert_eq!(pieces(&functions), [(0x10, 0x18), (0x50, 0x84)]);
    }

    #[test]
    fn functions_that_are_merely_named_like_the_runtime_are_no_runtime() {
        // TensorFlow defines such functions, which look the real ones up.
        let functions = ordered(vec![at(0x10, "cudaMalloc"), at(0x20, "cudaLaunchKernel"), at(0x30, "main")]);
        assert_eq!(pieces(&functions), []);
        assert_eq!(owner("cudart", &HashMap::new()), Owner::Host);
        assert_eq!(owner("", &HashMap::new()), Owner::Host);
    }

    #[test]
    fn hostile_sizes_and_addresses() {
        let wild = |address, size| Function { address, size, owner: Owner::Internal };
        let functions = ordered(vec![wild(u64::MAX, u64::MAX), wild(1, u64::MAX), at(5, "main")]);
        assert_eq!(pieces(&functions), [(1, 5), (u64::MAX, u64::MAX)]);
    }
}
