//! Frames of libzmq: `zmq_msg_t`, whose layout has been the same since libzmq 4.2 (src/msg.hpp, 64 bytes).

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use profiler_common::{
    cookie::Cookie,
    event::{MESSAGE_CLASSES, Message, kind as record},
};

use crate::{
    emit::{Tally, Task},
    memory::read_user,
};

/// Types of a frame, and its flag for more.
mod frame {
    /// Up to 33 bytes, inside the structure.
    pub const SMALL: u8 = 101;
    /// Bytes of its own, or of the caller's, behind a pointer to (data, size).
    pub const LARGE: u8 = 102;
    /// Constant bytes: pointer and size inside the structure.
    pub const CONSTANT: u8 = 104;
    /// As large, with bytes in the receiver's buffer.
    pub const ZERO_COPY: u8 = 105;
    pub const MORE: u8 = 1;
}

/// A record with room for `N` bytes.
#[repr(C)]
struct Filled<const N: usize> {
    message: Message,
    bytes: [u8; N],
}

/// A frame to be copied.
pub struct Copied {
    pub message: Message,
    pub address: u64,
}

/// Where the bytes of a frame lie.
#[derive(Clone, Copy)]
pub struct Found {
    address: u64,
    size: u64,
    /// More frames of the same message follow, as the frame says.
    more: bool,
}

impl Found {
    /// One zero byte: vLLM's "there is something in the ring".
    #[inline(always)]
    pub fn is_notification(self) -> bool {
        self.size == 1 && read_user::<u8>(self.address) == Some(0)
    }
}

/// Finds the frame at `message`; what cannot be read is counted.
#[inline(always)]
pub fn find(tally: Tally, message: u64) -> Option<Found> {
    let Some(words) = read_user::<[u64; 8]>(message) else {
        tally.unreadable();
        return None;
    };
    // Bytes 40 to 47: of a small frame its size at 41, type at 42, flags at 43.
    let [_, small, kind, flags, ..] = words[5].to_le_bytes();
    let more = flags & frame::MORE != 0;
    let (address, size) = match kind {
        frame::SMALL => (message + 8, u64::from(small)),
        frame::CONSTANT => (words[1], words[2]),
        frame::LARGE | frame::ZERO_COPY => match read_user::<[u64; 2]>(words[1]) {
            Some([data, size]) => (data, size),
            None => {
                tally.unreadable();
                return None;
            }
        },
        // Joins, leaves and delimiters carry nothing.
        _ => return None,
    };
    Some(Found { address, size, more })
}

/// Sends a frame. `more` as the caller says, else as the frame does.
#[inline(always)]
pub fn send(
    tally: Tally,
    task: Task,
    cookie: Cookie,
    found: Found,
    socket: u64,
    more: Option<bool>,
    way: u16,
) {
    let Found { address, size, .. } = found;
    let more = more.unwrap_or(found.more);
    let head = task.head(record::MESSAGE, cookie.api, way);
    let message = Message { head, socket, size, len: 0, more: u32::from(more) };
    copy(tally, Copied { message, address });
}

/// Sends as much of a frame as the largest record carries.
#[inline(always)]
pub fn copy(tally: Tally, copied: Copied) {
    let size = copied.message.size;
    if size <= MESSAGE_CLASSES[0] as u64 {
        fill::<{ MESSAGE_CLASSES[0] }>(tally, copied);
    } else if size <= MESSAGE_CLASSES[1] as u64 {
        fill::<{ MESSAGE_CLASSES[1] }>(tally, copied);
    } else if size <= MESSAGE_CLASSES[2] as u64 {
        fill::<{ MESSAGE_CLASSES[2] }>(tally, copied);
    } else if size <= MESSAGE_CLASSES[3] as u64 {
        fill::<{ MESSAGE_CLASSES[3] }>(tally, copied);
    } else {
        fill::<{ MESSAGE_CLASSES[4] }>(tally, copied);
    }
}

#[inline(always)]
fn fill<const N: usize>(tally: Tally, Copied { message, address }: Copied) {
    let Some(mut entry) = tally.reserve::<Filled<N>>() else { return };
    let filled = entry.as_mut_ptr();
    let len = message.size.min(N as u64) as u32;
    // SAFETY: the payload has room for N bytes, which the length does not exceed; the helper checks the source.
    let status = unsafe {
        bpf_probe_read_user((&raw mut (*filled).bytes).cast::<c_void>(), len, address as *const c_void)
    };
    // What cannot be read is a frame of which nothing was copied, and says so by its size.
    let len = if status == 0 { len } else { 0 };
    // SAFETY: the record was reserved above and is aligned to 8 bytes.
    unsafe { (&raw mut (*filled).message).write(Message { len, ..message }) };
    tally.submit(entry);
    if u64::from(len) < message.size {
        tally.uncopied(message.size - u64::from(len));
    }
}
