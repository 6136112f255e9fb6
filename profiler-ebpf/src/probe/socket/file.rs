//! Which file a descriptor of the running process stands for: `task->files->fdt->fd[n]`.
//!
//! Only the address is taken, to tell one file from another. User space says where the fields lie, from the kernel's BTF.

use aya_ebpf::helpers::{bpf_get_current_task, bpf_probe_read_kernel};

/// Offset of `task_struct.files`, bytes; 0 where the kernel does not tell its types.
#[unsafe(no_mangle)]
static TASK_FILES: u64 = 0;

/// Offset of `files_struct.fdt`, bytes.
#[unsafe(no_mangle)]
static FILES_FDT: u64 = 0;

/// Offset of `fdtable.fd`, bytes.
#[unsafe(no_mangle)]
static FDT_FD: u64 = 0;

/// The address of the file behind a descriptor; 0 if there is none, or if it cannot be known.
#[inline(always)]
pub fn behind(fd: u32) -> u64 {
    let task_files = setting(&raw const TASK_FILES);
    if task_files == 0 {
        return 0;
    }
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    let files = pointer(task + task_files);
    let table = pointer(files + setting(&raw const FILES_FDT));
    pointer(pointer(table + setting(&raw const FDT_FD)) + u64::from(fd) * 8)
}

/// A word that user space sets before the program is loaded.
#[inline(always)]
fn setting(word: *const u64) -> u64 {
    // SAFETY: the pointer is that of a live static, whose value is not what the compiler sees.
    unsafe { word.read_volatile() }
}

/// The pointer that stands at an address of the kernel; 0 if none can be read there.
#[inline(always)]
fn pointer(address: u64) -> u64 {
    // SAFETY: the helper reads only memory that is there.
    unsafe { bpf_probe_read_kernel(address as *const u64) }.unwrap_or(0)
}
