//! Copies out of memory that the program cannot read itself: the target's, and the kernel's.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_probe_read_user, generated};

/// Where bytes are to be copied from.
#[derive(Clone, Copy)]
pub enum Source {
    /// An address of the running task. It need not be valid.
    User(u64),
    /// A place in a map.
    Map(*const u8),
}

impl Source {
    /// Copies `len` bytes to `to`; false when they cannot be read, as where the page is not present.
    ///
    /// # Safety
    ///
    /// There must be room for `len` bytes at `to`.
    #[inline(always)]
    pub unsafe fn copy(self, to: *mut c_void, len: u64) -> bool {
        // SAFETY: the caller vouches for the destination, and the helpers check the source.
        let status = unsafe {
            match self {
                Self::User(address) => {
                    generated::bpf_probe_read_user(to, len as u32, address as *const c_void)
                }
                Self::Map(place) => generated::bpf_probe_read_kernel(to, len as u32, place.cast()),
            }
        };
        status == 0
    }
}

/// A value that any bytes make: what may be read out of a target's memory.
///
/// # Safety
///
/// Every bit pattern must be a valid value of the type.
pub unsafe trait Plain: Copy {}

// SAFETY: integers and arrays of plain values have no invalid bit patterns.
unsafe impl Plain for u64 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}
// SAFETY: as above.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// The smaller of both. The value goes through memory, so that the compiler forgets what it knows of it and compares
/// where the verifier sees it.
///
/// # Safety
///
/// There must be room for a word at `through`.
#[inline(always)]
pub unsafe fn bounded(through: *mut u64, value: u64, most: u64) -> u64 {
    // SAFETY: the caller vouches for the room.
    unsafe {
        through.write_volatile(value);
        through.read_volatile().min(most)
    }
}

/// The value at an address of the running task, or `None` when it cannot be read.
#[inline(always)]
pub fn read_user<T: Plain>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address, and any bytes there make a value.
    unsafe { bpf_probe_read_user(address as *const T) }.ok()
}
