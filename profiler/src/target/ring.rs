//! Rings in shared memory that a process has mapped (vLLM's `ShmRingBuffer`,
//! vllm/distributed/device_communicators/shm_broadcast.py).
//!
//! In: a pid. Out: where each ring's chunks and flags lie. The shape follows from the file's size: ten chunks of whole
//! mebibytes, and for each chunk one byte "written" and one for each reader.

use super::file::open_regular;
use profiler_common::event::Ring;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Chunks of a ring (`max_chunks`, vllm/v1/executor/multiproc_executor.py).
const CHUNKS: u64 = 10;
const MEBIBYTE: u64 = 1 << 20;
/// Readers whose flags are followed.
const MOST_READERS: u64 = 7;
/// How far into a chunk is looked for a text.
const LOOKED_AT: usize = 512;

/// A ring, and the file that it lies in.
#[derive(Debug)]
pub struct FoundRing {
    /// Where it lies. The next chunk is not known.
    pub ring: Ring,
    file: File,
}

impl FoundRing {
    /// Whether a chunk holds this text near its beginning: what travels there.
    #[must_use]
    pub fn holds(&self, text: &[u8]) -> bool {
        let mut head = [0; LOOKED_AT];
        (0..u64::from(self.ring.chunks)).any(|chunk| {
            let read = self.file.read_at(&mut head, chunk * self.ring.chunk_bytes).unwrap_or(0);
            memchr::memmem::find(head.get(..read).unwrap_or(&[]), text).is_some()
        })
    }
}

/// The rings that `pid` has mapped.
#[must_use]
pub fn rings(pid: u32) -> Vec<FoundRing> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.lines().filter(|line| line.contains(" /dev/shm/psm_")).filter_map(|line| ring(pid, line)).collect()
}

/// Files of shared memory with this prefix that `pid` has mapped, as paths that open them from our mount namespace.
#[must_use]
pub fn shared_memory(pid: u32, prefix: &str) -> BTreeSet<PathBuf> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let path = |line: &str| {
        let path = line.get(line.find("/dev/shm/")?..)?.trim_end_matches(" (deleted)");
        let named = path.strip_prefix("/dev/shm/")?.starts_with(prefix);
        named.then(|| PathBuf::from(format!("/proc/{pid}/root{path}")))
    };
    maps.lines().filter_map(path).collect()
}

/// One line of `maps` (proc(5)).
fn ring(pid: u32, line: &str) -> Option<FoundRing> {
    let (range, rest) = line.split_once(' ')?;
    let (start, _) = range.split_once('-')?;
    // Only a mapping of the whole file tells where its chunks lie.
    let offset = rest.split(' ').nth(1)?;
    if u64::from_str_radix(offset, 16) != Ok(0) {
        return None;
    }
    let file = File::open(format!("/proc/{pid}/map_files/{range}")).ok().or_else(|| {
        let path = line.get(line.find("/dev/shm/")?..)?;
        open_regular(Path::new(&format!("/proc/{pid}/root{path}"))).ok()
    })?;
    let (chunk_bytes, readers) = shape(file.metadata().ok()?.len())?;
    let base = u64::from_str_radix(start, 16).ok()?;
    let ring = Ring {
        base,
        chunk_bytes,
        flags: base.checked_add(CHUNKS * chunk_bytes)?,
        chunks: CHUNKS as u32,
        readers: u32::try_from(readers).ok()?,
        next: u32::MAX,
        missed: 0,
    };
    Some(FoundRing { ring, file })
}

/// Bytes of a chunk and number of readers of a ring of this size.
fn shape(size: u64) -> Option<(u64, u64)> {
    (1..=MOST_READERS).find_map(|readers| {
        let data = size.checked_sub(CHUNKS * (1 + readers))?;
        let chunk = data / CHUNKS;
        (chunk > 0 && data.is_multiple_of(CHUNKS) && chunk.is_multiple_of(MEBIBYTE))
            .then_some((chunk, readers))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_follows_from_the_size() {
        assert_eq!(shape(10 * (16 << 20) + 20), Some((16 << 20, 1)));
        assert_eq!(shape(10 * (24 << 20) + 50), Some((24 << 20, 4)));
        for size in [0, 10, 20, 4096, 16 << 20, 10 * (16 << 20), 10 * (16 << 20) + 21] {
            assert_eq!(shape(size), None, "{size}");
        }
    }

    #[test]
    fn a_process_without_rings_has_none() {
        assert!(rings(std::process::id()).is_empty());
    }
}
