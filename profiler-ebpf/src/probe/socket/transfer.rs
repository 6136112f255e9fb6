//! Reads and writes on known connections: positions counted, payload sent as far as it is of use.

use profiler_common::{
    event::{direction, end_reason, kind},
    stream::mode,
};

use super::{Exit, connection::Connection};
use crate::{
    arch::nr,
    map::{CURSOR, SCRATCH},
    memory::read_user,
    probe::{
        gpu::context,
        payload::{MESSAGE_BYTES, MESSAGE_LEN, MOST_MESSAGES, Sender},
        tls,
    },
};

/// Flags of `recvfrom` and `recvmsg` under which no bytes leave the stream: `MSG_OOB`, `MSG_PEEK`, `MSG_ERRQUEUE`
/// (include/linux/socket.h).
const NOT_FROM_STREAM: u64 = 0x1 | 0x2 | 0x2000;

/// `MSG_TRUNC`: the bytes of a TCP stream are thrown away instead of copied (tcp(7)).
const THROWN_AWAY: u64 = 0x20;

/// Where a system call keeps the bytes it moved.
#[derive(Clone, Copy)]
enum Buffer {
    /// One piece at this address.
    Flat(u64),
    /// An array of `struct iovec`, and its length.
    Vector(u64, u64),
    /// A `struct user_msghdr`.
    Message(u64),
    /// An array of `struct mmsghdr`; the result says how many were used.
    Messages(u64),
    /// Not in the target's memory: the record says how much was lost.
    Elsewhere,
}

/// A system call that moves bytes.
pub struct Transfer {
    fd: u32,
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
        let [first, second, third, fourth, ..] = exit.args;
        let received = |buffer, room, flags| Self {
            fd: first as u32,
            direction: direction::RECEIVED,
            buffer: if flags & THROWN_AWAY == 0 { buffer } else { Buffer::Elsewhere },
            room,
            counts: flags & NOT_FROM_STREAM == 0,
        };
        let sent =
            |buffer| Self { fd: first as u32, direction: direction::SENT, buffer, room: 0, counts: true };
        Some(match exit.number {
            nr::READ => received(Buffer::Flat(second), third, 0),
            nr::RECVFROM => received(Buffer::Flat(second), third, fourth),
            nr::READV | nr::PREADV2 => received(Buffer::Vector(second, third), third, 0),
            nr::RECVMSG => received(Buffer::Message(second), 1, third),
            nr::RECVMMSG => received(Buffer::Messages(second), third, fourth),
            nr::WRITE | nr::SENDTO => sent(Buffer::Flat(second)),
            nr::WRITEV | nr::PWRITEV2 => sent(Buffer::Vector(second, third)),
            nr::SENDMSG => sent(Buffer::Message(second)),
            nr::SENDMMSG => sent(Buffer::Messages(second)),
            nr::SENDFILE => sent(Buffer::Elsewhere),
            // (fd_in, off_in, fd_out, off_out, len, flags): one of them is a pipe.
            nr::SPLICE if Connection::is_behind(exit.task.tgid, third as u32) => {
                Self { fd: third as u32, ..sent(Buffer::Elsewhere) }
            }
            nr::SPLICE => received(Buffer::Elsewhere, exit.args[4], 0),
            _ => return None,
        })
    }

    /// Counts the bytes and sends them to user space, or reports the end that the call met.
    #[inline(always)]
    pub fn carry(&self, exit: &Exit) {
        let Some(connection) = Connection::behind(exit.task.tgid, self.fd) else { return };
        if exit.result < 0 {
            let error = -exit.result as u32;
            return connection.ended(exit, self.fd, end_reason::FAILED, error, mode::FAILED);
        }
        if exit.result == 0 {
            if self.direction == direction::RECEIVED && self.room > 0 {
                connection.ended(exit, self.fd, end_reason::END_OF_INPUT, 0, mode::INPUT_ENDED);
            }
            return;
        }
        // Looking ahead finds the end of the input like reading, and moves no bytes.
        if !self.counts {
            return;
        }
        let bytes = match self.buffer {
            Buffer::Messages(messages) => {
                let count = exit.result as u64;
                if count > MOST_MESSAGES {
                    exit.tally.unreadable();
                }
                bytes_of(messages, count)
            }
            _ => exit.result as u64,
        };
        if bytes == 0 {
            return;
        }
        context::tell_of_socket(exit.task);
        let sent = self.direction == direction::SENT;
        let position = connection.moved(sent, bytes);
        let allowance = connection.allowance(sent, position);
        if position == 0 {
            connection.opens_with(self.opening());
        }
        if connection.is_tls() {
            tls::moved(exit.task, connection.id, sent, bytes);
        }
        let Some(allowance) = allowance else { return };
        let (Some(cursor), Some(scratch)) = (CURSOR.get(0), SCRATCH.get_ptr_mut(0)) else { return };
        // The kernel keeps a tracing program on its CPU and does not start it there a second time before it has ended,
        // so nobody else uses the values meanwhile.
        let scratch = scratch.cast();
        let head = exit.task.head(kind::SOCKET_DATA, exit.number as u16, self.direction);
        let mut sender = Sender::new(exit.tally, head, connection.id, cursor, (position, bytes), allowance);
        match self.buffer {
            Buffer::Flat(address) => return sender.send_flat(address),
            Buffer::Elsewhere => return sender.send_none(),
            Buffer::Vector(address, pieces) => sender.from_vector(address, pieces),
            Buffer::Message(address) => {
                let (address, pieces) = vector_of(address);
                sender.from_vector(address, pieces);
            }
            Buffer::Messages(address) => sender.from_messages(address, exit.result as u64),
        }
        sender.send_gathered(scratch);
    }

    /// The first four bytes; 0 when the first piece does not hold them.
    #[inline(always)]
    fn opening(&self) -> u32 {
        let first = match self.buffer {
            Buffer::Flat(address) => Some(address),
            Buffer::Vector(vector, _) => read_user(vector),
            Buffer::Message(message) | Buffer::Messages(message) => read_user(vector_of(message).0),
            Buffer::Elsewhere => None,
        };
        first.and_then(read_user).unwrap_or(0)
    }
}

/// `msg_iov` and `msg_iovlen` of a `struct user_msghdr` (include/linux/socket.h); no pieces when it is unreadable.
#[inline(always)]
fn vector_of(message: u64) -> (u64, u64) {
    let [address, pieces] = read_user(message.wrapping_add(16)).unwrap_or([0; 2]);
    (address, pieces)
}

/// Bytes of `count` messages. Those beyond the bound are missing, which later positions do not show: such a call is
/// counted as one that did not fit.
#[inline(always)]
fn bytes_of(messages: u64, count: u64) -> u64 {
    let mut bytes = 0;
    for n in 0..MOST_MESSAGES {
        if n >= count {
            break;
        }
        bytes += u64::from(read_user::<u32>(messages + n * MESSAGE_BYTES + MESSAGE_LEN).unwrap_or(0));
    }
    bytes
}
