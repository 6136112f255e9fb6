//! CUDA 13's kernel handles → device names, also for handles that were made before anybody looked.
//!
//! A launch by `<<<>>>` compiled with nvcc 13 asks `__cudaGetKernel` once for the kernel's handle and keeps it in a
//! static variable of the launch stub. In the symbol table that variable is a local of
//! `__device_stub_` + the kernel's mangled device name: `_ZZL48__device_stub__Z13quantize_q8_1…E8__handle`. So its
//! value in the target's memory is the handle, and its name says of which kernel. Seen in ggml-cuda built with CUDA 13
//! (node-llama-cpp 3.22.1: 3,365 such variables) and in PyTorch 2.15.0 built with CUDA 13.2 (24,114).
//!
//! In: a process's mappings and its memory. Out: names by handle. Absent: stripped files, and the driver's own handles
//! (`CUfunction`), which no variable of a known name keeps.

use crate::target::{FileId, Mapping};
use object::read::ReadCache;
use object::{Object as _, ObjectSegment as _, ObjectSymbol as _, SegmentFlags};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// The section in which nvcc embeds device code: a file without it has no kernels.
const DEVICE_CODE: &str = ".nv_fatbin";
/// Variables that lie closer together are read together: one system call instead of thousands.
const GAP: u64 = 4096;
/// The most that is read at once.
const RUN: u64 = 1 << 20;

/// A handle's variable in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Variable {
    /// As linked; the process adds where it loaded the file.
    address: u64,
    device_name: Arc<str>,
}

/// Which variables hold handles, by file; each file is looked at once.
#[derive(Debug, Default)]
pub struct Handles {
    /// In order of address.
    files: HashMap<FileId, Arc<[Variable]>>,
}

impl Handles {
    /// The device names of those `wanted` handles that process `pid` keeps in variables.
    pub fn names(&mut self, pid: u32, mappings: &[Mapping], wanted: &HashSet<u64>) -> HashMap<u64, Arc<str>> {
        let mut found = HashMap::new();
        let Ok(memory) = File::open(format!("/proc/{pid}/mem")) else { return found };
        for mapping in mappings {
            let variables = self.files.entry(mapping.file).or_insert_with(|| variables(pid, mapping));
            if let Some(bias) = (!variables.is_empty()).then(|| bias(pid, mapping)).flatten() {
                for run in runs(variables) {
                    read_run(&memory, bias, run, wanted, &mut found);
                }
            }
        }
        found
    }
}

fn variables(pid: u32, mapping: &Mapping) -> Arc<[Variable]> {
    let read = || {
        let file = File::open(mapping.openable(pid)).ok()?;
        let cache = ReadCache::new(&file);
        let elf = object::File::parse(&cache).ok()?;
        elf.section_by_name(DEVICE_CODE)?;
        let variable = |symbol: object::Symbol<'_, '_, _>| {
            let device_name = Arc::from(device_name(symbol.name().ok()?)?);
            Some(Variable { address: symbol.address(), device_name })
        };
        let mut variables: Vec<_> = elf.symbols().filter_map(variable).collect();
        variables.sort_unstable_by_key(|variable| variable.address);
        Some(variables)
    };
    read().unwrap_or_default().into()
}

/// The kernel whose handle the variable `symbol` keeps, if it keeps one: `_ZZ[L]<length><stub>…E8__handle`.
fn device_name(symbol: &str) -> Option<&str> {
    let local = symbol.strip_prefix("_ZZ")?.strip_suffix("E8__handle")?;
    let local = local.strip_prefix('L').unwrap_or(local);
    let digits = local.find(|c: char| !c.is_ascii_digit())?;
    let (length, rest) = local.split_at_checked(digits)?;
    rest.get(..length.parse().ok()?)?.strip_prefix("__device_stub_")
}

/// What the process adds to the addresses of the file, told by the mapping of its code.
fn bias(pid: u32, mapping: &Mapping) -> Option<u64> {
    let file = File::open(mapping.openable(pid)).ok()?;
    let cache = ReadCache::new(&file);
    let elf = object::File::parse(&cache).ok()?;
    let is_code =
        |flags| matches!(flags, SegmentFlags::Elf { p_flags, .. } if p_flags.contains(object::elf::PF_X));
    elf.segments().filter(|segment| is_code(segment.flags())).find_map(|segment| {
        // The loader rounds a segment's start down to a page.
        let into_page = segment.file_range().0.checked_sub(mapping.offset)?;
        (into_page < segment.align().max(GAP))
            .then(|| (mapping.start + into_page).wrapping_sub(segment.address()))
    })
}

/// Neighbours that one read covers.
fn runs(variables: &[Variable]) -> impl Iterator<Item = &[Variable]> {
    let mut start = variables.first().map_or(0, |first| first.address);
    variables.chunk_by(move |one, next| {
        let together = next.address - one.address <= GAP && next.address - start < RUN;
        if !together {
            start = next.address;
        }
        together
    })
}

fn read_run(
    memory: &File,
    bias: u64,
    run: &[Variable],
    wanted: &HashSet<u64>,
    found: &mut HashMap<u64, Arc<str>>,
) {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return };
    let length = usize::try_from(last.address - first.address).unwrap_or(0) + size_of::<u64>();
    let mut bytes = vec![0; length];
    // Memory that is gone names nothing.
    if memory.read_exact_at(&mut bytes, bias.wrapping_add(first.address)).is_err() {
        return;
    }
    for variable in run {
        let at = usize::try_from(variable.address - first.address).unwrap_or(usize::MAX);
        let value = bytes.get(at..).and_then(|rest| rest.first_chunk()).map(|word| u64::from_ne_bytes(*word));
        if let Some(value) = value.filter(|value| wanted.contains(value)) {
            found.insert(value, variable.device_name.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_says_which_kernel() {
        let quantize = "_ZZL48__device_stub__Z13quantize_q8_1PKfPvlllllj5uint3PKfPvllllljRK5uint3E8__handle";
        assert_eq!(device_name(quantize), Some("_Z13quantize_q8_1PKfPvlllllj5uint3"));
        let exported = "_ZZ24__device_stub__Z4spinPfiPfiE8__handle";
        assert_eq!(device_name(exported), Some("_Z4spinPfi"));
        for other in [
            "_ZGVZL48__device_stub__Z13quantize_q8_1PKfPvlllllj5uint3PKfPvllllljRK5uint3E5__tmp",
            "_ZZL48__device_stub__Z13quantize_q8_1PKfPvlllllj5uint3PKfPvllllljRK5uint3E5__tmp",
            "_ZZL99999999999999999999__device_stub__Z1aE8__handle",
            "_ZZL99__device_stub__Z1aE8__handle",
            "_ZZL3fooE8__handle",
            "_ZZE8__handle",
            "",
        ] {
            assert_eq!(device_name(other), None, "{other}");
        }
    }

    #[test]
    fn neighbours_are_read_together_up_to_a_limit() {
        let at = |address| Variable { address, device_name: "k".into() };
        let lengths = |addresses: &[u64]| {
            let variables: Vec<_> = addresses.iter().map(|address| at(*address)).collect();
            runs(&variables).map(<[Variable]>::len).collect::<Vec<_>>()
        };
        assert_eq!(lengths(&[]), [0; 0]);
        assert_eq!(lengths(&[8, 16, 16 + GAP, 17 + 2 * GAP, 25 + 2 * GAP]), [3, 2]);
        let dense: Vec<u64> = (0..=2 * RUN / GAP).map(|i| i * GAP).collect();
        assert_eq!(lengths(&dense), [256, 256, 1]);
    }

    #[test]
    fn memory_gives_the_values() {
        static VALUES: [u64; 3] = [0x1111_2222, 0x3333_4444, 0];
        let base = VALUES.as_ptr() as u64;
        let names = ["a", "b", "never launched"];
        let run: Vec<_> =
            (0..3).map(|i| Variable { address: 8 * i, device_name: names[i as usize].into() }).collect();
        let memory = File::open("/proc/self/mem").unwrap();
        let mut found = HashMap::new();
        read_run(&memory, base, &run, &HashSet::from([0x3333_4444, 0x5555]), &mut found);
        assert_eq!(found, HashMap::from([(0x3333_4444, Arc::from("b"))]));
        read_run(&memory, 0, &run, &HashSet::from([0]), &mut found);
        assert_eq!(found.len(), 1, "memory that is not mapped is passed over");
    }

    #[test]
    fn our_own_code_is_loaded_where_its_symbols_say() {
        let pid = std::process::id();
        let mappings = crate::target::mappings(pid).unwrap();
        let function = our_own_code_is_loaded_where_its_symbols_say as *const () as u64;
        let mapping = mappings.iter().find(|m| (m.start..m.end).contains(&function)).unwrap();
        let bias = bias(pid, mapping).unwrap();
        let file = std::fs::read("/proc/self/exe").unwrap();
        let elf = object::File::parse(&*file).unwrap();
        assert!(elf.symbols().any(|symbol| symbol.address().wrapping_add(bias) == function));
        assert!(variables(pid, mapping).is_empty(), "no kernels in a test");
    }
}
