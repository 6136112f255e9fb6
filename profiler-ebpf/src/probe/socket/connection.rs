//! Which descriptors belong to which connection, from `accept` to the last `close`.

use profiler_common::{
    event::{SocketEnd, SocketOpen, end_reason, kind},
    stream::{BRIEF, Descriptor, REDUCED, Stream, TURN_BYTES, WISHES as WISHES_ENTRIES, Wish, mode},
};

use super::{Exit, file};
use crate::{
    atomic::Word,
    emit::{Tally, Task},
    map::{self, CURSOR, DESCRIPTORS, STREAMS, WISHES},
    probe::payload::Allowance,
};

/// Descriptors that one `close_range` is followed over.
const LONGEST_RANGE: u64 = 1024;

/// How HTTP/2 opens: `PRI ` (RFC 9113, section 3.4).
const PREFACE: u32 = u32::from_le_bytes(*b"PRI ");

/// A connection that the kernel side knows, with the words of it that change.
#[derive(Clone, Copy)]
pub struct Connection {
    /// Its id.
    pub id: u64,
    stream: *mut Stream,
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident: $ty:ty),* $(,)?) => {$(
        $(#[$doc])*
        #[inline(always)]
        fn $name(self) -> Word<$ty> {
            // SAFETY: map values stay mapped while the program runs, and their fields are aligned.
            unsafe { Word::new(&raw mut (*self.stream).$name) }
        }
    )*};
}

impl Connection {
    words! {
        received: u64,
        sent: u64,
        request_from: u64,
        response_from: u64,
        mode: u32,
        descriptors: u32,
        file: u64,
    }

    /// The connection behind a descriptor.
    #[inline(always)]
    pub fn behind(tgid: u32, fd: u32) -> Option<Self> {
        // SAFETY: the value is one aligned word, which is copied at once.
        let id = unsafe { *DESCRIPTORS.get_ptr(Descriptor { tgid, fd })? };
        Self::with_id(id)
    }

    /// Whether there is one.
    #[inline(always)]
    pub fn is_behind(tgid: u32, fd: u32) -> bool {
        DESCRIPTORS.get_ptr(Descriptor { tgid, fd }).is_some()
    }

    /// The connection of this id.
    #[inline(always)]
    pub fn with_id(id: u64) -> Option<Self> {
        Some(Self { id, stream: STREAMS.get_ptr_mut(id)? })
    }

    /// Enters a new stream, of a `file` if it is known; its connection has no descriptor yet.
    #[inline(always)]
    pub fn enter(tally: Tally, file: u64) -> Option<u64> {
        let id = map::next_connection()?;
        let stream = Stream { descriptors: 1, file, ..Stream::EMPTY };
        if STREAMS.insert(id, stream, 0).is_err() {
            tally.map_full();
            return None;
        }
        Some(id)
    }

    /// Counts bytes that went by; returns where they stand. A write ends the turn of the client, and a read that of the
    /// target.
    #[inline(always)]
    pub fn moved(self, sent: bool, bytes: u64) -> u64 {
        if sent {
            self.request_from().set(self.received().get());
            self.sent().fetch_add(bytes)
        } else {
            self.response_from().set(self.sent().get());
            self.received().fetch_add(bytes)
        }
    }

    /// How much of the bytes at `position` may travel; `None` for nothing, not even that they went by.
    #[inline(always)]
    pub fn allowance(self, sent: bool, position: u64) -> Option<Allowance> {
        let mode = self.mode().get();
        if mode & mode::TLS != 0 {
            return None;
        }
        if let Some(wish) = WISHES.get(self.id as u32 & (WISHES_ENTRIES - 1))
            && wish.connection == self.id
        {
            if wish.brief_while == Wish::NOTHING {
                return None;
            }
            if wish.brief_while == Wish::WHOLE {
                return Some(Allowance::WHOLE);
            }
            if sent && wish.brief_while == self.received().get() {
                return Some(Allowance::cut(BRIEF));
            }
        }
        let from = if sent { self.response_from() } else { self.request_from() };
        let whole = mode & mode::WHOLE != 0 || position.wrapping_sub(from.get()) < TURN_BYTES;
        Some(if whole { Allowance::WHOLE } else { Allowance::cut(REDUCED) })
    }

    /// Takes what the first bytes say about the protocol: a TLS record has its type, from 20 to 23, and its version,
    /// which begins with 3 (RFC 8446, section 5.1).
    #[inline(always)]
    pub fn opens_with(self, bytes: u32) {
        if bytes == PREFACE {
            self.mode().or(mode::WHOLE);
        }
        let [kind, version, ..] = bytes.to_le_bytes();
        if matches!(kind, 20..=23) && version == 3 {
            self.mode().or(mode::TLS);
        }
    }

    /// Whether it opened like TLS.
    #[inline(always)]
    pub fn is_tls(self) -> bool {
        self.mode().get() & mode::TLS != 0
    }

    /// Reports an end of the connection or of one of its directions. `once` is the bit of the mode that remembers
    /// it: a server that reads on behind the end must not flood the ring.
    #[inline(always)]
    pub fn ended(self, exit: &Exit, fd: u32, reason: u16, error: u32, once: u32) {
        if self.first_time(once) {
            self.report_end(exit.tally, exit.task, exit.number as u16, [fd, error], reason);
        }
    }

    /// Whether `once`, a bit of the mode, was not set before.
    #[inline(always)]
    pub fn first_time(self, once: u32) -> bool {
        self.mode().fetch_or(once) & once == 0
    }

    /// Reports its end, `[fd, error]` and all.
    #[inline(always)]
    pub fn report_end(self, tally: Tally, task: Task, api: u16, [fd, error]: [u32; 2], reason: u16) {
        tally.send(SocketEnd {
            head: task.head(kind::SOCKET_END, api, reason),
            connection: self.id,
            fd,
            error,
            received: self.received().get(),
            sent: self.sent().get(),
        });
    }

    /// Another descriptor refers to it.
    #[inline(always)]
    pub fn refer(self, tally: Tally, tgid: u32, fd: u32) -> bool {
        self.descriptors().add(1);
        if DESCRIPTORS.insert(Descriptor { tgid, fd }, self.id, 0).is_err() {
            self.descriptors().fetch_sub(1);
            tally.map_full();
            return false;
        }
        true
    }
}

/// The target accepted a connection on `listener`; the result is its descriptor. False without room for it.
#[inline(always)]
pub fn opened(exit: &Exit, listener: u32) -> bool {
    let fd = exit.result as u32;
    // The number can still stand for a connection whose close was not seen, such as one at exec.
    forget(exit, fd, end_reason::CLOSED);
    let Some(connection) = Connection::enter(exit.tally, file::behind(fd)) else { return false };
    if DESCRIPTORS.insert(Descriptor { tgid: exit.task.tgid, fd }, connection, 0).is_err() {
        let _ = STREAMS.remove(connection);
        exit.tally.map_full();
        return false;
    }
    exit.tally.send(SocketOpen {
        head: exit.task.head(kind::SOCKET_OPEN, exit.number as u16, 0),
        connection,
        fd,
        listener_fd: listener,
    });
    true
}

/// The target closed a descriptor.
#[inline(always)]
pub fn closed(exit: &Exit, fd: u32) {
    if !is_taken_again(exit.task.tgid, fd) {
        forget(exit, fd, end_reason::CLOSED);
    }
}

/// Whether a descriptor that was closed is a connection's all the same.
///
/// Between the moment when a descriptor is free and the exit of the call that freed it, another thread may accept a
/// connection on the same number, and be seen here first.
#[inline(always)]
fn is_taken_again(tgid: u32, fd: u32) -> bool {
    let Some(connection) = Connection::behind(tgid, fd) else { return false };
    let file = connection.file().get();
    file != 0 && file == file::behind(fd)
}

/// The target sends nothing more on a descriptor, if `how` says so (`SHUT_WR`, `SHUT_RDWR`).
#[inline(always)]
pub fn shut_down(exit: &Exit, fd: u32, how: u64) {
    if how == 0 {
        return;
    }
    if let Some(connection) = Connection::behind(exit.task.tgid, fd) {
        connection.ended(exit, fd, end_reason::END_OF_OUTPUT, 0, mode::OUTPUT_ENDED);
    }
}

/// The target closed all descriptors from `first` to `last`.
#[inline(always)]
pub fn closed_range(exit: &Exit, first: u32, last: u32) {
    // As in the transfer of payload: the value belongs to this program while it runs.
    let Some(cursor) = CURSOR.get(0) else { return };
    let next = &cursor.skip;
    next.set(u64::from(first));
    for _ in 0..LONGEST_RANGE {
        let fd = next.get();
        if fd > u64::from(last) {
            return;
        }
        // Not `closed`: with its looks at the file the verifier gives up, and who closes ranges is about to run another
        // program.
        forget(exit, fd as u32, end_reason::CLOSED);
        next.set(fd + 1);
    }
}

/// The result of the call is another descriptor of what `old` stands for; what it stood for before is closed.
#[inline(always)]
pub fn duplicated(exit: &Exit, old: u32) {
    let new = exit.result as u32;
    if new == old {
        return;
    }
    forget(exit, new, end_reason::CLOSED);
    if let Some(connection) = Connection::behind(exit.task.tgid, old) {
        connection.refer(exit.tally, exit.task.tgid, new);
    }
}

/// Takes a descriptor off its connection, and reports the end of the connection with its last one.
///
/// A function of its own, since every way to lose a descriptor ends here. Its name is not mangled in the
/// prebuilt objects: a mangled one has the build machine in it. With BTF (`--debug`) it must be, because the verifier
/// checks an exported function apart from its callers and would know nothing of `exit`.
#[cfg_attr(not(feature = "log"), unsafe(no_mangle))]
#[inline(never)]
pub fn forget(exit: &Exit, fd: u32, reason: u16) {
    let key = Descriptor { tgid: exit.task.tgid, fd };
    // SAFETY: the value is one aligned word, which is copied at once.
    let Some(id) = DESCRIPTORS.get_ptr(key).map(|id| unsafe { *id }) else { return };
    let _ = DESCRIPTORS.remove(key);
    let Some(connection) = Connection::with_id(id) else { return };
    if connection.descriptors().fetch_sub(1) > 1 {
        return;
    }
    connection.report_end(exit.tally, exit.task, exit.number as u16, [fd, 0], reason);
    let _ = STREAMS.remove(id);
}
