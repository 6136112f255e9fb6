//! vLLM's ring in shared memory, read by its writer's thread at the moment when it tells its workers to look.
//!
//! The chunk is complete then and cannot be overwritten before the workers have read it. Which chunk it is follows from
//! the one before; where that is not known, it is the one that is written and not yet read by all
//! (vllm/distributed/device_communicators/shm_broadcast.py).

use profiler_common::{
    cookie::Cookie,
    event::{Message, RING_CHUNKS, Ring, kind, way},
};

use super::message::{self, Copied};
use crate::{
    emit::{Tally, Task},
    map::RINGS,
    memory::read_user,
};

/// Bytes before the first buffer: overflow flag, how many buffers (2), size of the first (4). Big-endian.
const HEADER: u64 = 7;

/// A chunk was written, if the process has a ring; whether it has one.
#[inline(always)]
pub fn written(tally: Tally, task: Task, cookie: Cookie) -> bool {
    let Some(place) = RINGS.get_ptr_mut(task.tgid) else { return false };
    // SAFETY: the value is live, and only the main thread of its process comes here.
    let ring = unsafe { *place };
    let next = if is_fresh(&ring, ring.next) { ring.next } else { search(&ring) };
    if next >= ring.chunks {
        // SAFETY: as above.
        unsafe { (&raw mut (*place).missed).write_volatile(ring.missed.wrapping_add(1)) };
        return true;
    }
    let following = if next + 1 < ring.chunks { next + 1 } else { 0 };
    // SAFETY: as above.
    unsafe { (&raw mut (*place).next).write_volatile(following) };
    let address = ring.base + u64::from(next) * ring.chunk_bytes;
    let Some(header) = read_user::<u64>(address) else {
        tally.unreadable();
        return true;
    };
    let [overflow, _, _, a, b, c, d, _] = header.to_le_bytes();
    // What does not fit into a chunk travels as frames, which are seen by themselves.
    if overflow != 0 {
        return true;
    }
    let size = (HEADER + u64::from(u32::from_be_bytes([a, b, c, d]))).min(ring.chunk_bytes);
    let head = task.head(kind::MESSAGE, cookie.api, way::RING);
    let message = Message { head, socket: u64::from(next), size, len: 0, more: 0 };
    message::copy(tally, Copied { message, address });
    true
}

/// It has been written. Whether all have read it again says nothing: workers that spin are faster than we are.
#[inline(always)]
fn is_fresh(ring: &Ring, chunk: u32) -> bool {
    chunk < ring.chunks && flags(ring, chunk) & 0xff == 1
}

/// The only chunk that is written and that somebody has not read; else [`u32::MAX`].
#[inline(always)]
fn search(ring: &Ring) -> u32 {
    let mut found = u32::MAX;
    let mut count = 0u32;
    let wanted = (1u64 << (8 * u64::from(ring.readers.min(7)))) - 1;
    for chunk in 0..RING_CHUNKS {
        if chunk >= ring.chunks {
            break;
        }
        let flags = flags(ring, chunk);
        let all_read = 0x0001_0101_0101_0101 & wanted;
        if flags & 0xff == 1 && (flags >> 8) & wanted != all_read {
            found = chunk;
            count += 1;
        }
    }
    if count == 1 { found } else { u32::MAX }
}

/// The flags of a chunk: "written" in the lowest byte, then the readers'. 0 when they cannot be read.
#[inline(always)]
fn flags(ring: &Ring, chunk: u32) -> u64 {
    let each = u64::from(ring.readers) + 1;
    let address = ring.flags + u64::from(chunk) * each;
    // The last chunk's flags may end right before a page that is not there: what lies before them is read then.
    match read_user::<u64>(address) {
        Some(word) => word,
        None => read_user::<u64>(address - 8 + each).unwrap_or(0) >> (8 * (8 - each.min(8))),
    }
}
