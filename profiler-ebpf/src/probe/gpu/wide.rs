//! Calls whose meaning lies in many arguments or in a structure: written into the ring where they will be read.

use profiler_common::{
    cookie::{Cookie, NONE, shape},
    event::{WIDE_WORDS, WideCall, kind},
};

use super::argument;
use crate::{
    arch::Frame,
    emit::{Tally, Task},
    map::Opaque,
    memory::{Source, read_user},
};

/// Elements of an array that are summed at most; the record says how many there were.
const MOST_SIZES: u32 = 512;
/// Likewise of `cudaMemcpy3DBatchOp`.
const MOST_VOLUMES: u32 = 128;

/// Bytes of a `cudaMemcpy3DBatchOp` and of a `CUDA_MEMCPY3D_BATCH_OP` (driver_types.h, cuda.h 12.8 and later), and
/// where in it the source's address, the destination's address and the extent lie.
mod operation {
    pub const SIZE: u64 = 112;
    pub const SOURCE: u64 = 8;
    pub const DESTINATION: u64 = 48;
    pub const EXTENT: u64 = 80;
}

/// Sends a wide call.
#[inline(always)]
pub fn send(tally: Tally, task: Task, cookie: Cookie, frame: &Frame) {
    let Some(caller) = frame.caller() else { return tally.unreadable() };
    let Some(mut entry) = tally.reserve::<WideCall>() else { return };
    let record: *mut WideCall = entry.as_mut_ptr();
    // SAFETY: the record is reserved, so each of its fields may be written.
    unsafe {
        (&raw mut (*record).head).write(task.head(kind::WIDE_CALL, cookie.api, 0));
        (&raw mut (*record).caller).write(caller);
        (&raw mut (*record).pointee).write([0; WIDE_WORDS]);
        if !frame.wide(&raw mut (*record).args) {
            // Arguments on a stack that ends here: no call of this API has them, but the registers stand.
            (&raw mut (*record).args).cast::<[u64; 6]>().write(frame.six());
        }
        pointee(cookie, &frame.six(), &raw mut (*record).pointee);
    }
    tally.submit(entry);
}

/// # Safety
///
/// There must be room at `to`.
#[inline(always)]
unsafe fn pointee(cookie: Cookie, args: &[u64; 6], to: *mut [u64; WIDE_WORDS]) {
    let address = argument(args, cookie.pointee);
    if cookie.pointee == NONE || address == 0 {
        return;
    }
    let summary = match cookie.shape {
        shape::WIDE_SUM => sizes(args, address, argument(args, cookie.pointee + 1)),
        shape::WIDE_VOLUMES => volumes(address, argument(args, cookie.pointee.wrapping_sub(1))),
        _ => {
            let words = u64::from(cookie.words).min(WIDE_WORDS as u64);
            // SAFETY: the caller vouches for the room, and the length is within it. What cannot be read stays 0.
            unsafe { Source::User(address).copy(to.cast(), words * 8) };
            return;
        }
    };
    // SAFETY: five words are within the room.
    unsafe { to.cast::<[u64; 5]>().write(summary) };
}

/// Sum, elements in it, elements, first destination and first source of `…(dsts, srcs, sizes, count, …)`.
#[inline(always)]
fn sizes(args: &[u64; 6], array: u64, count: u64) -> [u64; 5] {
    let [destinations, sources, ..] = *args;
    let sum = Opaque::new(0);
    let mut summed = 0;
    for index in 0..MOST_SIZES {
        if u64::from(index) >= count {
            break;
        }
        let Some(size) = read_user::<u64>(array + u64::from(index) * 8) else { break };
        sum.set(sum.get() + size);
        summed = u64::from(index) + 1;
    }
    let first = |array| read_user::<u64>(array).unwrap_or(0);
    [sum.get(), summed, count, first(destinations), first(sources)]
}

/// The same of an array of operations.
#[inline(always)]
fn volumes(array: u64, count: u64) -> [u64; 5] {
    let sum = Opaque::new(0);
    let mut summed = 0;
    for index in 0..MOST_VOLUMES {
        if u64::from(index) >= count {
            break;
        }
        let extent = array + u64::from(index) * operation::SIZE + operation::EXTENT;
        let Some([width, height, depth]) = read_user::<[u64; 3]>(extent) else { break };
        sum.set(sum.get() + width * height * depth);
        summed = u64::from(index) + 1;
    }
    let first = |offset| read_user::<u64>(array + offset).unwrap_or(0);
    [sum.get(), summed, count, first(operation::DESTINATION), first(operation::SOURCE)]
}
