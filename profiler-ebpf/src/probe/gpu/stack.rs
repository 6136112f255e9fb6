//! User stacks of a sample of the launches.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_F_USER_STACK,
    helpers::generated::{bpf_get_prandom_u32, bpf_get_stack},
};
use profiler_common::{
    cookie::Cookie,
    event::{STACK_FRAMES, Stack, kind},
};

use super::launch;
use crate::{
    arch::Frame,
    emit::{Tally, Task},
};

/// Sends the stack of one launch in `every`, drawn by chance: calls come in patterns, and counting them off would meet
/// the same ones again and again.
#[inline(always)]
pub fn sample(tally: Tally, ctx: *mut c_void, task: Task, cookie: Cookie, frame: &Frame, every: u32) {
    // SAFETY: the helper takes nothing and cannot fail.
    if unsafe { bpf_get_prandom_u32() } % every.max(1) != 0 {
        return;
    }
    let Some(caller) = frame.caller() else { return };
    let Some(mut entry) = tally.reserve::<Stack>() else { return };
    let record: *mut Stack = entry.as_mut_ptr();
    // SAFETY: the record is reserved, so each of its fields may be written, and the helper writes the frames' bytes
    // at most.
    unsafe {
        let frames = &raw mut (*record).frames;
        frames.write([0; STACK_FRAMES]);
        let size = size_of::<[u64; STACK_FRAMES]>() as u32;
        let bytes = bpf_get_stack(ctx, frames.cast(), size, u64::from(BPF_F_USER_STACK));
        let found = if bytes < 0 { 0 } else { bytes as u16 / 8 };
        (&raw mut (*record).head).write(task.head(kind::STACK, cookie.api, found));
        (&raw mut (*record).function).write(launch::function(cookie.shape, frame));
        (&raw mut (*record).caller).write(caller);
    }
    tally.submit(entry);
}
