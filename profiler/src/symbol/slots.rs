//! CUDA 13's kernel handles of a running process: the variables that keep them → which handle is which kernel's.
//!
//! A launch asks `__cudaGetKernel` once for its kernel's handle and keeps it in a static variable. Where that variable
//! is and whose handle it keeps, the file says ([`Table`]); what is in it, the target's memory says, also for handles
//! that were made before anybody looked. In: a process's mappings. Out: names by handle. Reads, never writes.

use super::Evidence;
use super::image::Image;
use super::table::Table;
use crate::target::Mapping;
use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Variables that lie closer together are read together: one system call instead of thousands.
const GAP: u64 = 4096;
/// The most that is read at once.
const RUN: u64 = 1 << 20;

/// The handles among `wanted` that the file's variables keep, each with its kernel; `bias` is what the process adds to
/// the file's addresses.
pub fn kept<'a>(
    memory: &File,
    table: &'a Table,
    bias: u64,
    wanted: &HashSet<u64>,
) -> Vec<(u64, &'a str, Evidence)> {
    let variables: Vec<u64> = table.variables().collect();
    let mut values = Vec::with_capacity(variables.len());
    for run in runs(&variables) {
        read_run(memory, bias, run, &mut values);
    }
    let named = table.handles().zip(values);
    named
        .filter(|(_, value)| wanted.contains(value))
        .map(|((_, name, evidence), value)| (value, name, evidence))
        .collect()
}

/// What the process adds to the addresses of the file, told by a mapping of its code.
#[must_use]
pub fn bias(image: &Image, mapping: &Mapping) -> Option<u64> {
    image.segments.iter().filter(|segment| segment.executable).find_map(|segment| {
        // The loader rounds a segment's start down to a page.
        let into_page = segment.offset.checked_sub(mapping.offset)?;
        (into_page < segment.align.max(GAP))
            .then(|| mapping.start.wrapping_add(into_page).wrapping_sub(segment.address))
    })
}

/// Neighbours that one read covers.
fn runs(variables: &[u64]) -> impl Iterator<Item = &[u64]> {
    let mut start = variables.first().copied().unwrap_or(0);
    variables.chunk_by(move |one, next| {
        let together = next - one <= GAP && next - start < RUN;
        if !together {
            start = *next;
        }
        together
    })
}

/// Appends the value of each variable; zero, which is no handle, where memory is gone.
fn read_run(memory: &File, bias: u64, run: &[u64], values: &mut Vec<u64>) {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return };
    let length = usize::try_from(last - first).unwrap_or(0) + size_of::<u64>();
    let mut bytes = vec![0; length];
    let read = memory.read_exact_at(&mut bytes, bias.wrapping_add(*first)).is_ok();
    values.extend(run.iter().map(|variable| {
        let at = usize::try_from(variable - first).unwrap_or(usize::MAX);
        if read { super::image::long(&bytes, at) } else { 0 }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_read_together_up_to_a_limit() {
        let lengths = |addresses: &[u64]| runs(addresses).map(<[u64]>::len).collect::<Vec<_>>();
        assert_eq!(lengths(&[]), [0; 0]);
        assert_eq!(lengths(&[8, 16, 16 + GAP, 17 + 2 * GAP, 25 + 2 * GAP]), [3, 2]);
        let dense: Vec<u64> = (0..=2 * RUN / GAP).map(|i| i * GAP).collect();
        assert_eq!(lengths(&dense), [256, 256, 1]);
    }

    #[test]
    fn memory_gives_the_values() {
        static VALUES: [u64; 3] = [0x1111_2222, 0x3333_4444, 0];
        let base = VALUES.as_ptr() as u64;
        let memory = File::open("/proc/self/mem").unwrap();
        let mut values = Vec::new();
        read_run(&memory, base, &[0, 8, 16], &mut values);
        assert_eq!(values, VALUES);
        read_run(&memory, 0, &[0, 8], &mut values);
        assert_eq!(values.split_off(3), [0, 0], "memory that is not mapped is passed over");
    }

    #[test]
    fn our_own_code_is_loaded_where_its_symbols_say() {
        let pid = std::process::id();
        let mappings = crate::target::mappings(pid).unwrap();
        let function = our_own_code_is_loaded_where_its_symbols_say as *const () as u64;
        let mapping = mappings.iter().find(|m| (m.start..m.end).contains(&function)).unwrap();
        let image = Image::open(&mapping.openable(pid)).unwrap();
        let address = function.wrapping_sub(bias(&image, mapping).unwrap());
        let names = super::super::symtab::names_at(
            &image,
            super::super::symtab::Table::Full,
            &HashSet::from([address]),
        );
        assert!(names[&address].iter().any(|name| name.contains("our_own_code")), "{names:?}");
    }
}
