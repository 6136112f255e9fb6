//! Calls with an array of words, such as the requests of a batch.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use profiler_common::{
    cookie::Cookie,
    event::{LIST_CLASSES, List, kind},
};

use crate::{
    arch::Frame,
    emit::{Tally, Task},
    memory::bounded,
    probe::gpu::argument,
};

/// A record with room for `N` words.
#[repr(C)]
struct Filled<const N: usize> {
    list: List,
    words: [u64; N],
}

/// Sends the call with its array.
#[inline(always)]
pub fn send(tally: Tally, task: Task, cookie: Cookie, frame: &Frame) {
    let args = frame.six();
    let (address, count) = (argument(&args, cookie.pointee), argument(&args, cookie.pointee + 1) as u32);
    let head = task.head(kind::LIST, cookie.api, 0);
    let list = List { head, args, count, len: 0 };
    if count <= LIST_CLASSES[0] as u32 {
        fill::<{ LIST_CLASSES[0] }>(tally, list, address);
    } else {
        fill::<{ LIST_CLASSES[1] }>(tally, list, address);
    }
}

#[inline(always)]
fn fill<const N: usize>(tally: Tally, list: List, address: u64) {
    let Some(mut entry) = tally.reserve::<Filled<N>>() else { return };
    let filled = entry.as_mut_ptr();
    // SAFETY: there is room for N words, which the length does not exceed; the helper checks the source.
    let len = unsafe { bounded((&raw mut (*filled).words).cast(), u64::from(list.count), N as u64) } as u32;
    // SAFETY: as above.
    let status = unsafe {
        bpf_probe_read_user((&raw mut (*filled).words).cast::<c_void>(), len * 8, address as *const c_void)
    };
    let len = if status == 0 { len } else { 0 };
    // SAFETY: the record was reserved above and is aligned to 8 bytes.
    unsafe { (&raw mut (*filled).list).write(List { len, ..list }) };
    tally.submit(entry);
}
