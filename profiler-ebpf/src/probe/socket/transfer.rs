//! Reads and writes on known connections: positions counted, payload copied.
//!
//! The bytes of one system call leave as up to [`MOST_RECORDS`] records at rising positions. Pieces of a vectored
//! call are put side by side first, so that the number of records depends on the bytes and not on the pieces.

use profiler_common::{
    event::{Head, PAYLOAD_CLASSES, SocketData, direction, end_reason, kind},
    stream::mode,
};

use super::{Exit, connection::Connection};
use crate::{
    arch::nr,
    emit::Tally,
    map::{Cursor, LARGEST_PAYLOAD, SCRATCH, Scratch},
    memory::{Source, read_user},
};

/// Records that one system call may fill: 16 of the largest class are 255 KiB.
const MOST_RECORDS: u64 = 16;

/// Pieces of a vectored call that are followed.
const MOST_PIECES: u64 = 64;

/// Flags of `recvfrom` and `recvmsg` under which no bytes leave the stream: `MSG_OOB`, `MSG_PEEK`, `MSG_ERRQUEUE`
/// (include/linux/socket.h).
const NOT_FROM_STREAM: u64 = 0x1 | 0x2 | 0x2000;

const LARGEST: u64 = LARGEST_PAYLOAD as u64;

/// Where a system call keeps the bytes it moved.
#[derive(Clone, Copy)]
enum Buffer {
    /// One piece at this address.
    Flat(u64),
    /// An array of `struct iovec`, and its length.
    Vector(u64, u64),
    /// A `struct user_msghdr`.
    Message(u64),
    /// Not in the target's memory: the record says how much was lost.
    Elsewhere,
}

/// A system call that moves bytes.
pub struct Transfer {
    direction: u16,
    buffer: Buffer,
    /// Size of the buffer, as far as the call says: a read into no room returns 0 too.
    room: u64,
    /// Whether the bytes enter or leave the stream at all.
    counts: bool,
}

impl Transfer {
    /// What the call moved, or `None` for one that moves nothing.
    #[inline(always)]
    pub fn of(exit: &Exit) -> Option<Self> {
        let [_, second, third, fourth, ..] = exit.args;
        let received = |buffer, room, flags| Self {
            direction: direction::RECEIVED,
            buffer,
            room,
            counts: flags & NOT_FROM_STREAM == 0,
        };
        let sent = |buffer| Self { direction: direction::SENT, buffer, room: 0, counts: true };
        Some(match exit.number {
            nr::READ => received(Buffer::Flat(second), third, 0),
            nr::RECVFROM => received(Buffer::Flat(second), third, fourth),
            nr::READV => received(Buffer::Vector(second, third), third, 0),
            nr::RECVMSG => received(Buffer::Message(second), 1, third),
            nr::WRITE | nr::SENDTO => sent(Buffer::Flat(second)),
            nr::WRITEV => sent(Buffer::Vector(second, third)),
            nr::SENDMSG => sent(Buffer::Message(second)),
            nr::SENDFILE => sent(Buffer::Elsewhere),
            _ => return None,
        })
    }

    /// Counts the bytes and sends them to user space, or reports the end that the call met.
    #[inline(always)]
    pub fn carry(&self, exit: &Exit) {
        let Some(connection) = Connection::behind(exit.task.tgid, exit.args[0] as u32) else { return };
        if !self.counts {
            return;
        }
        if exit.result < 0 {
            return connection.ended(exit, end_reason::FAILED, -exit.result as u32, mode::FAILED);
        }
        if exit.result == 0 {
            if self.direction == direction::RECEIVED && self.room > 0 {
                connection.ended(exit, end_reason::END_OF_INPUT, 0, mode::INPUT_ENDED);
            }
            return;
        }
        let bytes = exit.result as u64;
        let total =
            if self.direction == direction::RECEIVED { connection.received() } else { connection.sent() };
        let position = total.fetch_add(bytes);
        if connection.is_off() {
            return;
        }
        let head = exit.task.head(kind::SOCKET_DATA, exit.number as u16, self.direction);
        let Some(mut sender) = Sender::new(exit.tally, head, connection.id, position, bytes) else { return };
        match self.buffer {
            Buffer::Flat(address) => sender.send_flat(address),
            Buffer::Vector(address, pieces) => sender.send_vector(address, pieces),
            Buffer::Message(address) => {
                let (address, pieces) = vector_of(address);
                sender.send_vector(address, pieces);
            }
            Buffer::Elsewhere => sender.send_vector(0, 0),
        }
    }
}

/// `msg_iov` and `msg_iovlen` of a `struct user_msghdr` (include/linux/socket.h); no pieces when it is unreadable.
#[inline(always)]
fn vector_of(message: u64) -> (u64, u64) {
    let [address, pieces] = read_user(message.wrapping_add(16)).unwrap_or([0; 2]);
    (address, pieces)
}

/// A record with room for `N` bytes of payload.
#[repr(C)]
struct Chunk<const N: usize> {
    data: SocketData,
    payload: [u8; N],
}

/// Sends the payload of one system call.
struct Sender {
    tally: Tally,
    head: Head,
    connection: u64,
    cursor: &'static Cursor,
    scratch: *mut u8,
    /// What remains when the last record but one is full.
    least: u64,
}

impl Sender {
    #[inline(always)]
    fn new(tally: Tally, head: Head, connection: u64, position: u64, bytes: u64) -> Option<Self> {
        // SAFETY: a value of a per-CPU array. The kernel keeps a tracing program on its CPU and does not start it
        // there a second time before it has ended, so nobody else uses the value meanwhile.
        let Scratch { cursor, bytes: scratch } = unsafe { &mut *SCRATCH.get_ptr_mut(0)? };
        cursor.remaining.set(bytes);
        cursor.position.set(position);
        let least = bytes.saturating_sub(LARGEST * (MOST_RECORDS - 1));
        Some(Self { tally, head, connection, cursor, scratch: scratch.as_mut_ptr(), least })
    }

    /// Sends bytes that lie in one piece.
    #[inline(always)]
    fn send_flat(&mut self, address: u64) {
        let cursor = self.cursor;
        cursor.address.set(address);
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

    /// Sends bytes that lie in several pieces, gathering them in the scratch buffer.
    #[inline(always)]
    fn send_vector(&mut self, vector: u64, pieces: u64) {
        let cursor = self.cursor;
        cursor.vector.set(vector);
        cursor.vector_end.set(vector.wrapping_add(16 * pieces.min(MOST_PIECES)));
        cursor.rest.set(0);
        cursor.gathered.set(0);
        // A round ends a piece or fills a record.
        for _ in 0..MOST_PIECES + MOST_RECORDS {
            if cursor.rest.get() == 0 && !self.take_piece() {
                break;
            }
            if cursor.gathered.get() >= LARGEST {
                // More follows, since there is a piece.
                if cursor.remaining.get() <= self.least {
                    break;
                }
                if !self.send_full(Source::Map(self.scratch)) {
                    return;
                }
                cursor.gathered.set(0);
            }
            if !self.gather() {
                break;
            }
        }
        self.send_last(cursor.gathered.get().min(LARGEST), Source::Map(self.scratch));
    }

    /// Goes to the next piece. False when there is none, or nothing is missing, or it cannot be read.
    #[inline(always)]
    fn take_piece(&self) -> bool {
        let cursor = self.cursor;
        let (vector, gathered, remaining) =
            (cursor.vector.get(), cursor.gathered.get(), cursor.remaining.get());
        if vector == cursor.vector_end.get() || gathered >= remaining {
            return false;
        }
        let Some([start, len]) = read_user::<[u64; 2]>(vector) else { return false };
        cursor.address.set(start);
        cursor.rest.set(len.min(remaining - gathered));
        cursor.vector.set(vector.wrapping_add(16));
        true
    }

    /// Copies as much of the current piece as fits. False when it cannot be read.
    #[inline(always)]
    fn gather(&self) -> bool {
        let cursor = self.cursor;
        let (address, rest, gathered) = (cursor.address.get(), cursor.rest.get(), cursor.gathered.get());
        if gathered >= LARGEST {
            return false;
        }
        let len = rest.min(LARGEST - gathered);
        // SAFETY: both the start and the length stay below half of the scratch buffer.
        let copied = unsafe { Source::User(address).copy(self.scratch.add(gathered as usize).cast(), len) };
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
        self.send::<LARGEST_PAYLOAD>(LARGEST, false, source)
    }

    /// Sends the last record of the call, in the smallest class that holds `len` bytes. What remains behind it is
    /// lost, and the record says so.
    #[inline(always)]
    fn send_last(&mut self, len: u64, source: Source) {
        const SMALL: u64 = PAYLOAD_CLASSES[0] as u64;
        const MEDIUM: u64 = PAYLOAD_CLASSES[1] as u64;
        const LARGE: u64 = PAYLOAD_CLASSES[2] as u64;
        if len <= SMALL {
            self.send::<{ PAYLOAD_CLASSES[0] }>(len, true, source);
        } else if len <= MEDIUM {
            self.send::<{ PAYLOAD_CLASSES[1] }>(len, true, source);
        } else if len <= LARGE {
            self.send::<{ PAYLOAD_CLASSES[2] }>(len, true, source);
        } else {
            self.send::<LARGEST_PAYLOAD>(len, true, source);
        }
    }

    /// Sends one record. Returns whether its bytes were copied, which says whether more can follow.
    ///
    /// Without room in the ring the rest of the call is given up: the positions of later records show the gap.
    #[inline(always)]
    fn send<const N: usize>(&mut self, len: u64, last: bool, source: Source) -> bool {
        let Some(mut entry) = self.tally.reserve::<Chunk<N>>() else { return false };
        let chunk = entry.as_mut_ptr();
        // SAFETY: the payload has room for N bytes, which no caller's `len` exceeds; the helper checks the source.
        let copied = unsafe { source.copy((&raw mut (*chunk).payload).cast(), len) };
        let cursor = self.cursor;
        let (remaining, position) = (cursor.remaining.get(), cursor.position.get());
        let taken = if copied { len } else { 0 };
        let left = remaining - taken;
        let lost = if last || !copied { left } else { 0 };
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
        cursor.remaining.set(left);
        cursor.position.set(position + taken);
        copied
    }
}
