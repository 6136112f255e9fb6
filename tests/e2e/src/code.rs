//! The code of a running process, compared with its files: probes are bytes that differ.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result};
use profiler::attach::inspect;
use profiler::target::{Mapping, gpu_layer, mappings};

use crate::wait;

/// Bytes of the process's code that are not those of its files.
///
/// # Errors
/// When the process or its libraries cannot be read.
pub fn changed_bytes(pid: u32) -> Result<usize> {
    let memory = memory(pid)?;
    let mut changed = 0;
    for mapping in all_mappings(pid)? {
        let length = usize::try_from(mapping.end - mapping.start)?;
        let running = read(&memory, mapping.start, length)?;
        let original = read(&File::open(mapping.openable(pid))?, mapping.offset, length)?;
        changed += running.iter().zip(&original).filter(|(running, original)| running != original).count();
    }
    Ok(changed)
}

/// Whether every function that can be probed is, in every file of the process with GPU functions, of which there are
/// at least `at_least`.
///
/// # Errors
/// When the process or its libraries cannot be read.
pub fn is_probed(pid: u32, at_least: usize) -> Result<bool> {
    let memory = memory(pid)?;
    let mut files = HashSet::new();
    for mapping in all_mappings(pid)? {
        let Ok(library) = inspect(&mapping.openable(pid), gpu_layer(mapping.name())) else { continue };
        let file = File::open(mapping.openable(pid))?;
        let length = mapping.end - mapping.start;
        for point in library.points {
            let Some(at) = point.offset.checked_sub(mapping.offset).filter(|at| *at < length) else {
                continue;
            };
            if read(&memory, mapping.start + at, 1)? == read(&file, point.offset, 1)? {
                return Ok(false);
            }
            files.insert(mapping.file);
        }
    }
    Ok(files.len() >= at_least)
}

/// Waits until all that can be probed is.
///
/// # Errors
/// When it never is.
pub fn wait_until_probed(pid: u32, at_least: usize) -> Result<()> {
    wait::until("the probes in the libraries", || Ok(is_probed(pid, at_least)?.then_some(())))
}

fn memory(pid: u32) -> Result<File> {
    File::open(format!("/proc/{pid}/mem")).with_context(|| format!("failed to open the memory of {pid}"))
}

fn all_mappings(pid: u32) -> Result<Vec<Mapping>> {
    mappings(pid).with_context(|| format!("failed to read the mappings of {pid}"))
}

/// Up to `length` bytes; a mapping's last page may reach beyond its file.
fn read(file: &File, offset: u64, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
