//! Device code: one PTX kernel that burns time, under every kernel's name, bare or wrapped as a fat binary.
//!
//! A true driver compiles the PTX; the stand-ins only need the names. Layout of the fat binary: public
//! descriptions of the container (header magic `BA55ED50`, one entry of kind 1 = PTX, uncompressed).

use std::ffi::{CStr, c_void};
use std::fmt::Write;

/// Magic of the wrapper that nvcc's host code passes to `__cudaRegisterFatBinary`.
const WRAPPER_MAGIC: u32 = 0x4662_43b1;
const CONTAINER_MAGIC: u32 = 0xba55_ed50;
const CONTAINER_HEADER: u16 = 16;
const ENTRY_HEADER: u32 = 64;
const KIND_PTX: u16 = 1;
/// Host is Linux, addresses are 64 bits wide.
const FLAGS: u64 = 0x11;
/// The oldest architecture that CUDA 13 still compiles for.
const SM: u32 = 75;

/// PTX text with one entry per name, ending in a NUL.
pub(crate) fn ptx<'a>(names: impl Iterator<Item = &'a CStr>) -> Vec<u8> {
    let mut text = format!(".version 7.0\n.target sm_{SM}\n.address_size 64\n");
    for name in names {
        let name = name.to_string_lossy();
        // Parameters as in the mangled names: a buffer, a count, nanoseconds to burn.
        let written = write!(
            text,
            ".visible .entry {name}(.param .u64 {name}_param_0, .param .u32 {name}_param_1, .param .u64 {name}_param_2)\n\
             {{\n.reg .u64 %t<4>;\n.reg .pred %again;\nld.param.u64 %t0, [{name}_param_2];\nmov.u64 %t1, %globaltimer;\n\
             $wait:\nmov.u64 %t2, %globaltimer;\nsub.u64 %t3, %t2, %t1;\nsetp.lt.u64 %again, %t3, %t0;\n\
             @%again bra $wait;\nret;\n}}\n"
        );
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
    }
    let mut bytes = text.into_bytes();
    bytes.push(0);
    bytes
}

/// The structure behind `__cudaRegisterFatBinary`'s argument.
#[repr(C)]
pub(crate) struct Wrapper {
    magic: u32,
    version: u32,
    data: *const c_void,
    unused: *const c_void,
}

/// Wraps PTX as nvcc's host code would. The runtime keeps pointers into both parts until the process ends, so
/// both are leaked.
pub(crate) fn fat_binary(ptx: &[u8]) -> &'static mut Wrapper {
    let data: &'static [u8] = Box::leak(container(ptx).into_boxed_slice());
    Box::leak(Box::new(Wrapper {
        magic: WRAPPER_MAGIC,
        version: 1,
        data: data.as_ptr().cast(),
        unused: std::ptr::null(),
    }))
}

fn container(ptx: &[u8]) -> Vec<u8> {
    let payload_len = ptx.len().next_multiple_of(8);
    let mut out = Vec::with_capacity(payload_len + 80);
    out.extend(CONTAINER_MAGIC.to_le_bytes());
    out.extend(1u16.to_le_bytes());
    out.extend(CONTAINER_HEADER.to_le_bytes());
    out.extend((u64::from(ENTRY_HEADER) + payload_len as u64).to_le_bytes());
    out.extend(entry_header(payload_len));
    out.extend(ptx);
    out.resize(out.len() + payload_len - ptx.len(), 0);
    out
}

fn entry_header(payload_len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.extend(KIND_PTX.to_le_bytes());
    out.extend(0x0101u16.to_le_bytes());
    out.extend(ENTRY_HEADER.to_le_bytes());
    out.extend((payload_len as u64).to_le_bytes());
    // Compressed size and option offset: neither.
    out.extend([0; 8]);
    // PTX 7.0: minor, then major.
    out.extend(0u16.to_le_bytes());
    out.extend(7u16.to_le_bytes());
    out.extend(SM.to_le_bytes());
    // Offset and length of an identifier: none.
    out.extend([0; 8]);
    out.extend(FLAGS.to_le_bytes());
    // Reserved, and the uncompressed size (0: stored as it is).
    out.extend([0; 16]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_sizes_agree() {
        let ptx = ptx([c"_Z1aPfjy"].into_iter());
        assert!(ptx.ends_with(b"}\n\0"));
        let container = container(&ptx);
        let size = u64::from_le_bytes(container[8..16].try_into().unwrap());
        assert_eq!(container.len() as u64, size + 16);
        assert_eq!(entry_header(8).len(), 64);
        assert_eq!(&container[80..80 + ptx.len()], ptx);
    }
}
