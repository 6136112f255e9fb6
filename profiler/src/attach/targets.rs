//! The kernel side's table of targets, one bit a pid, changed bit by bit.
//!
//! In: the map. Out: bits set and cleared by atomic operations on the memory that the kernel side reads, so that a
//! fork which marks its child at the same moment loses nothing. Through system calls only whole words could be
//! written.

use aya::maps::{Map, MapError};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

/// The table, mapped.
pub struct Targets {
    words: NonNull<AtomicU64>,
    len: usize,
}

// SAFETY: the mapping is memory of the process, of which only atomics are made.
unsafe impl Send for Targets {}

impl Targets {
    /// Maps the table, an array of `len` words. The mapping keeps it alive.
    ///
    /// # Errors
    /// What the kernel says when it cannot be mapped.
    pub fn map(map: &Map, len: u32) -> Result<Self, MapError> {
        let Map::Array(map) = map else { return Err(MapError::InvalidMapType { map_type: 0 }) };
        let len = len as usize;
        let fd = map.fd().as_fd();
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len * size_of::<u64>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(address.cast()) {
            Some(words) if address != libc::MAP_FAILED => Ok(Self { words, len }),
            _ => Err(MapError::IoError(io::Error::last_os_error())),
        }
    }

    /// Marks a process or thread, or takes the mark off. A pid beyond the table belongs to nobody.
    pub fn set(&self, pid: u32, on: bool) {
        let (index, bit) = ((pid >> 6) as usize, 1 << (pid & 63));
        if index >= self.len {
            return;
        }
        // SAFETY: the index lies inside the mapping, which lives as long as `self`, and the kernel aligns it to a page.
        let word = unsafe { self.words.add(index).as_ref() };
        if on {
            word.fetch_or(bit, Ordering::Relaxed);
        } else {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    /// Takes all marks off. Nobody may set one meanwhile.
    pub fn clear(&self) {
        for index in 0..self.len {
            // SAFETY: as in `set`.
            let word = unsafe { self.words.add(index).as_ref() };
            // Most stand for nobody, and their memory stays untouched.
            if word.load(Ordering::Relaxed) != 0 {
                word.store(0, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this length, and nothing refers to it any more.
        unsafe { libc::munmap(self.words.as_ptr().cast(), self.len * size_of::<u64>()) };
    }
}

/// Words of the table of targets: one bit a pid.
pub fn words() -> u32 {
    pid_max() / 64 + 1
}

/// The largest pid of this machine.
fn pid_max() -> u32 {
    const LIMIT: u32 = 4_194_304;
    let text = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default();
    text.trim().parse().unwrap_or(LIMIT)
}
