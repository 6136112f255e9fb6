//! Payload into the ring: from one piece of memory or from many, whole or in head and tail.
//!
//! The bytes of one call leave as up to [`MOST_RECORDS`] records at rising positions. Pieces of a vectored call are put
//! side by side first, so that the number of records depends on the bytes and not on the pieces. What is left out says
//! so in the record before it.

use profiler_common::event::{Head, PAYLOAD_CLASSES, SocketData};

use crate::{
    emit::Tally,
    map::{Cursor, LARGEST_PAYLOAD},
    memory::{Source, read_user},
};

/// Records that one call may fill: 16 of the largest class are 255 KiB.
const MOST_RECORDS: u64 = 16;

/// Pieces of a vectored call that are followed.
const MOST_PIECES: u64 = 64;

/// Messages of a `recvmmsg` or `sendmmsg` that are followed.
pub const MOST_MESSAGES: u64 = 32;

/// Size of a `struct mmsghdr` (include/linux/socket.h), and where in it its length stands.
pub const MESSAGE_BYTES: u64 = 64;
pub const MESSAGE_LEN: u64 = 56;

const SMALL: u64 = PAYLOAD_CLASSES[0] as u64;
const MEDIUM: u64 = PAYLOAD_CLASSES[1] as u64;
const LARGE: u64 = PAYLOAD_CLASSES[2] as u64;
const LARGEST: u64 = LARGEST_PAYLOAD as u64;

/// All that is left.
const REST: u64 = u64::MAX;

/// How much of a call's bytes may travel.
#[derive(Clone, Copy)]
pub struct Allowance {
    /// Bytes of its start. At most [`LARGE`], unless there is no limit.
    head: u64,
    /// Bytes of its end. At most [`MEDIUM`].
    tail: u64,
}

impl Allowance {
    /// As much as [`MOST_RECORDS`] carry.
    pub const WHOLE: Self = Self { head: LARGEST * MOST_RECORDS, tail: 0 };

    /// Head and tail alone.
    #[inline(always)]
    pub const fn cut((head, tail): (u64, u64)) -> Self {
        Self { head, tail }
    }

    /// What of `bytes` is left out between head and tail.
    #[inline(always)]
    fn left_out(self, bytes: u64) -> u64 {
        if self.head > LARGE { 0 } else { bytes.saturating_sub(self.head + self.tail) }
    }
}

/// A record with room for `N` bytes of payload.
#[repr(C)]
struct Chunk<const N: usize> {
    data: SocketData,
    payload: [u8; N],
}

/// Sends the payload of one call.
pub struct Sender {
    pub tally: Tally,
    pub head: Head,
    pub connection: u64,
    pub cursor: &'static Cursor,
}

impl Sender {
    /// For `bytes` bytes at `position` of the connection's stream. Nobody else may use the cursor meanwhile.
    #[inline(always)]
    pub fn new(
        tally: Tally,
        head: Head,
        connection: u64,
        cursor: &'static Cursor,
        (position, bytes): (u64, u64),
        allowance: Allowance,
    ) -> Self {
        cursor.remaining.set(bytes);
        cursor.position.set(position);
        cursor.least.set(bytes.saturating_sub(LARGEST * (MOST_RECORDS - 1)));
        cursor.head.set(allowance.head);
        cursor.left_out.set(allowance.left_out(bytes));
        Self { tally, head, connection, cursor }
    }

    /// Says that bytes went by and carries none of them.
    #[inline(always)]
    pub fn send_none(&mut self) {
        self.send::<{ PAYLOAD_CLASSES[0] }>(0, REST, Source::User(0));
    }

    /// Sends bytes that lie in one piece.
    #[inline(always)]
    pub fn send_flat(&mut self, address: u64) {
        let cursor = self.cursor;
        cursor.address.set(address);
        if cursor.left_out.get() > 0 {
            let head = cursor.head.get();
            if !self.send_head(head, Source::User(address)) {
                return;
            }
            cursor.address.set(address.wrapping_add(head + cursor.left_out.get()));
        }
        for _ in 1..MOST_RECORDS {
            if cursor.remaining.get() <= LARGEST {
                break;
            }
            let address = cursor.address.get();
            if !self.send_full(Source::User(address)) {
                return;
            }
            cursor.address.set(address.wrapping_add(LARGEST));
        }
        let len = cursor.remaining.get().min(LARGEST);
        self.send_last(len, Source::User(cursor.address.get()));
    }

    /// The bytes lie in the pieces of an array of `struct iovec`.
    #[inline(always)]
    pub fn from_vector(&self, vector: u64, pieces: u64) {
        self.cursor.message.set(0);
        self.cursor.message_end.set(0);
        self.cursor.message_rest.set(u64::MAX);
        self.cursor.vector.set(vector);
        self.cursor.vector_end.set(vector.wrapping_add(16 * pieces.min(MOST_PIECES)));
    }

    /// The bytes lie in the pieces of `count` messages, an array of `struct mmsghdr`.
    #[inline(always)]
    pub fn from_messages(&self, messages: u64, count: u64) {
        self.cursor.message.set(messages);
        self.cursor.message_end.set(messages.wrapping_add(MESSAGE_BYTES * count.min(MOST_MESSAGES)));
        self.cursor.message_rest.set(0);
        self.cursor.vector.set(0);
        self.cursor.vector_end.set(0);
    }

    /// Sends bytes that lie in pieces, gathering them in `scratch`.
    #[inline(always)]
    pub fn send_gathered(&mut self, scratch: *mut u8) {
        let cursor = self.cursor;
        cursor.rest.set(0);
        cursor.gathered.set(0);
        cursor.skip.set(0);
        cursor.limit.set(if cursor.left_out.get() > 0 { cursor.head.get() } else { LARGEST });
        // A round ends a piece, a message, a record or the part that is left out.
        for _ in 0..MOST_PIECES + MOST_MESSAGES + MOST_RECORDS + 1 {
            if cursor.rest.get() == 0 {
                if !self.take_piece() {
                    break;
                }
                if cursor.rest.get() == 0 {
                    continue;
                }
            }
            if self.skip() {
                continue;
            }
            if cursor.gathered.get() >= cursor.limit.get() {
                if !self.empty(scratch) {
                    return;
                }
                continue;
            }
            if !self.gather(scratch) {
                break;
            }
        }
        self.send_last(cursor.gathered.get().min(LARGEST), Source::Map(scratch));
    }

    /// Sends what has been gathered, since more follows: there is a piece. False when the call must be given up.
    #[inline(always)]
    fn empty(&mut self, scratch: *mut u8) -> bool {
        let cursor = self.cursor;
        let goes_on = if cursor.limit.get() < LARGEST {
            let went = self.send_head(cursor.head.get(), Source::Map(scratch));
            cursor.skip.set(cursor.left_out.get());
            cursor.limit.set(LARGEST);
            went
        } else if cursor.remaining.get() <= cursor.least.get() {
            self.send_last(LARGEST, Source::Map(scratch));
            false
        } else {
            self.send_full(Source::Map(scratch))
        };
        cursor.gathered.set(0);
        goes_on
    }

    /// Goes to the next piece, or to the next message's first. False when there is none, or nothing is missing, or it
    /// cannot be read.
    #[inline(always)]
    fn take_piece(&self) -> bool {
        let cursor = self.cursor;
        let (vector, wanted) = (cursor.vector.get(), self.wanted());
        if wanted == 0 {
            return false;
        }
        if vector == cursor.vector_end.get() || cursor.message_rest.get() == 0 {
            return self.take_message();
        }
        let Some([start, len]) = read_user::<[u64; 2]>(vector) else { return false };
        let rest = len.min(wanted).min(cursor.message_rest.get());
        cursor.address.set(start);
        cursor.rest.set(rest);
        cursor.message_rest.set(cursor.message_rest.get() - rest);
        cursor.vector.set(vector.wrapping_add(16));
        true
    }

    /// Bytes that no piece has been found for yet.
    #[inline(always)]
    fn wanted(&self) -> u64 {
        let cursor = self.cursor;
        cursor.remaining.get().saturating_sub(cursor.gathered.get()).wrapping_add(cursor.skip.get())
    }

    #[inline(always)]
    fn take_message(&self) -> bool {
        let cursor = self.cursor;
        let message = cursor.message.get();
        if message == cursor.message_end.get() {
            return false;
        }
        let Some([vector, pieces]) = read_user::<[u64; 2]>(message.wrapping_add(16)) else { return false };
        let Some(len) = read_user::<u32>(message.wrapping_add(MESSAGE_LEN)) else { return false };
        cursor.vector.set(vector);
        cursor.vector_end.set(vector.wrapping_add(16 * pieces.min(MOST_PIECES)));
        cursor.message_rest.set(u64::from(len));
        cursor.message.set(message.wrapping_add(MESSAGE_BYTES));
        true
    }

    /// Passes over what is left out. True when it did.
    #[inline(always)]
    fn skip(&self) -> bool {
        let cursor = self.cursor;
        let (rest, skip) = (cursor.rest.get(), cursor.skip.get());
        if skip == 0 {
            return false;
        }
        let passed = rest.min(skip);
        cursor.address.set(cursor.address.get().wrapping_add(passed));
        cursor.rest.set(rest - passed);
        cursor.skip.set(skip - passed);
        true
    }

    /// Copies as much of the current piece as fits. False when it cannot be read.
    #[inline(always)]
    fn gather(&self, scratch: *mut u8) -> bool {
        let cursor = self.cursor;
        let (address, rest, gathered) = (cursor.address.get(), cursor.rest.get(), cursor.gathered.get());
        if gathered >= LARGEST {
            return false;
        }
        let len = rest.min(cursor.limit.get().min(LARGEST).saturating_sub(gathered)).min(LARGEST);
        // SAFETY: both the start and the length stay below half of the scratch buffer.
        let copied = unsafe { Source::User(address).copy(scratch.add(gathered as usize).cast(), len) };
        if copied {
            cursor.address.set(address.wrapping_add(len));
            cursor.rest.set(rest - len);
            cursor.gathered.set(gathered + len);
        }
        copied
    }

    /// Sends a full record of the largest class, behind which more follows. Returns whether to go on.
    #[inline(always)]
    fn send_full(&mut self, source: Source) -> bool {
        self.send::<LARGEST_PAYLOAD>(LARGEST, 0, source)
    }

    /// Sends the head of a call, behind which a part is left out. Returns whether to go on.
    #[inline(always)]
    fn send_head(&mut self, len: u64, source: Source) -> bool {
        if len <= SMALL {
            self.send::<{ PAYLOAD_CLASSES[0] }>(len, self.cursor.left_out.get(), source)
        } else {
            self.send::<{ PAYLOAD_CLASSES[2] }>(len.min(LARGE), self.cursor.left_out.get(), source)
        }
    }

    /// Sends the last record of the call, in the smallest class that holds `len` bytes. What remains behind it is
    /// lost, and the record says so.
    #[inline(always)]
    fn send_last(&mut self, len: u64, source: Source) {
        if len <= SMALL {
            self.send::<{ PAYLOAD_CLASSES[0] }>(len, REST, source);
        } else if len <= MEDIUM {
            self.send::<{ PAYLOAD_CLASSES[1] }>(len, REST, source);
        } else if len <= LARGE {
            self.send::<{ PAYLOAD_CLASSES[2] }>(len, REST, source);
        } else {
            self.send::<LARGEST_PAYLOAD>(len, REST, source);
        }
    }

    /// Sends one record, behind which `lost` bytes are left out. Returns whether its bytes were copied, which says
    /// whether more can follow.
    ///
    /// Without room in the ring the rest of the call is given up: the positions of later records show the gap.
    #[inline(always)]
    fn send<const N: usize>(&mut self, len: u64, lost: u64, source: Source) -> bool {
        let Some(mut entry) = self.tally.reserve::<Chunk<N>>() else { return false };
        let chunk = entry.as_mut_ptr();
        // SAFETY: the payload has room for N bytes, which no caller's `len` exceeds; the helper checks the source.
        let copied = len == 0 || unsafe { source.copy((&raw mut (*chunk).payload).cast(), len) };
        let cursor = self.cursor;
        let (remaining, position) = (cursor.remaining.get(), cursor.position.get());
        let taken = if copied { len } else { 0 };
        let left = remaining.saturating_sub(taken);
        let lost = if copied { lost.min(left) } else { left };
        let data = SocketData {
            head: self.head,
            connection: self.connection,
            position,
            len: taken as u32,
            lost_after: lost as u32,
        };
        // SAFETY: the record was reserved above and is aligned to 8 bytes.
        unsafe { (&raw mut (*chunk).data).write(data) };
        self.tally.submit(entry);
        if lost > 0 {
            self.tally.uncopied(lost);
        }
        cursor.remaining.set(left - lost);
        cursor.position.set(position + taken + lost);
        copied
    }
}
