//! Which descriptors belong to which connection, from `accept` to the last `close`.

use profiler_common::{
    event::{SocketEnd, SocketOpen, end_reason, kind},
    stream::{Descriptor, Stream, mode},
};

use super::Exit;
use crate::{
    atomic::Word,
    map::{self, DESCRIPTORS, STREAMS},
};

/// Descriptors that one `close_range` is followed over. Servers use the call in a child that is about to exec,
/// where nothing is tracked; the verifier wants a bound.
const LONGEST_RANGE: u32 = 16;

/// A connection that the kernel side knows, with the words of it that change.
#[derive(Clone, Copy)]
pub struct Connection {
    /// Its id.
    pub id: u64,
    stream: *mut Stream,
}

impl Connection {
    /// The connection behind a descriptor.
    #[inline(always)]
    pub fn behind(tgid: u32, fd: u32) -> Option<Self> {
        // SAFETY: the value is one aligned word, which is copied at once.
        let id = unsafe { *DESCRIPTORS.get_ptr(Descriptor { tgid, fd })? };
        Self::with_id(id)
    }

    #[inline(always)]
    fn with_id(id: u64) -> Option<Self> {
        Some(Self { id, stream: STREAMS.get_ptr_mut(id)? })
    }

    /// Bytes the target has read.
    #[inline(always)]
    pub fn received(self) -> Word<u64> {
        // SAFETY: map values stay mapped while the program runs, and their fields are aligned.
        unsafe { Word::new(&raw mut (*self.stream).received) }
    }

    /// Bytes the target has written.
    #[inline(always)]
    pub fn sent(self) -> Word<u64> {
        // SAFETY: as in `received`.
        unsafe { Word::new(&raw mut (*self.stream).sent) }
    }

    /// Whether user space wants its payload.
    #[inline(always)]
    pub fn is_off(self) -> bool {
        self.mode().get() & mode::OFF != 0
    }

    /// Reports an end of the connection or of one of its directions. `once` is the bit of the mode that remembers
    /// it: a server that reads on behind the end must not flood the ring.
    #[inline(always)]
    pub fn ended(self, exit: &Exit, reason: u16, error: u32, once: u32) {
        if self.mode().fetch_or(once) & once == 0 {
            self.report_end(exit, exit.args[0] as u32, reason, error);
        }
    }

    #[inline(always)]
    fn report_end(self, exit: &Exit, fd: u32, reason: u16, error: u32) {
        exit.tally.send(SocketEnd {
            head: exit.task.head(kind::SOCKET_END, exit.number as u16, reason),
            connection: self.id,
            fd,
            error,
            received: self.received().get(),
            sent: self.sent().get(),
        });
    }

    #[inline(always)]
    fn mode(self) -> Word<u32> {
        // SAFETY: as in `received`.
        unsafe { Word::new(&raw mut (*self.stream).mode) }
    }

    #[inline(always)]
    fn descriptors(self) -> Word<u32> {
        // SAFETY: as in `received`.
        unsafe { Word::new(&raw mut (*self.stream).descriptors) }
    }
}

/// The target accepted a connection on `listener`; the result is its descriptor.
#[inline(always)]
pub fn opened(exit: &Exit, listener: u32) {
    let fd = exit.result as u32;
    // The number can still stand for a connection whose close was not seen, such as one at exec.
    forget(exit, fd);
    let Some(connection) = map::next_connection() else { return };
    let stream = Stream { received: 0, sent: 0, mode: mode::FULL, descriptors: 1 };
    if STREAMS.insert(connection, stream, 0).is_err() {
        return exit.tally.map_full();
    }
    if DESCRIPTORS.insert(Descriptor { tgid: exit.task.tgid, fd }, connection, 0).is_err() {
        let _ = STREAMS.remove(connection);
        return exit.tally.map_full();
    }
    exit.tally.send(SocketOpen {
        head: exit.task.head(kind::SOCKET_OPEN, exit.number as u16, 0),
        connection,
        fd,
        listener_fd: listener,
    });
}

/// The target closed a descriptor.
#[inline(always)]
pub fn closed(exit: &Exit, fd: u32) {
    forget(exit, fd);
}

/// The target closed all descriptors from `first` to `last`.
#[inline(always)]
pub fn closed_range(exit: &Exit, first: u32, last: u32) {
    for n in 0..LONGEST_RANGE {
        let fd = first.saturating_add(n);
        if fd > last {
            return;
        }
        forget(exit, fd);
    }
}

/// The result of the call is another descriptor of what `old` stands for; what it stood for before is closed.
#[inline(always)]
pub fn duplicated(exit: &Exit, old: u32) {
    let new = exit.result as u32;
    if new == old {
        return;
    }
    forget(exit, new);
    let Some(connection) = Connection::behind(exit.task.tgid, old) else { return };
    connection.descriptors().add(1);
    if DESCRIPTORS.insert(Descriptor { tgid: exit.task.tgid, fd: new }, connection.id, 0).is_err() {
        connection.descriptors().fetch_sub(1);
        exit.tally.map_full();
    }
}

/// Takes a descriptor off its connection, and reports the end of the connection with its last one.
///
/// A function of its own, since every way to lose a descriptor ends here. Its name is not mangled in the
/// prebuilt objects: a mangled one has the build machine in it. With BTF (`--debug`) it must be, because the verifier
/// checks an exported function apart from its callers and would know nothing of `exit`.
#[cfg_attr(not(feature = "log"), unsafe(no_mangle))]
#[inline(never)]
fn forget(exit: &Exit, fd: u32) {
    let key = Descriptor { tgid: exit.task.tgid, fd };
    // SAFETY: the value is one aligned word, which is copied at once.
    let Some(id) = DESCRIPTORS.get_ptr(key).map(|id| unsafe { *id }) else { return };
    let _ = DESCRIPTORS.remove(key);
    let Some(connection) = Connection::with_id(id) else { return };
    if connection.descriptors().fetch_sub(1) > 1 {
        return;
    }
    connection.report_end(exit, fd, end_reason::CLOSED, 0);
    let _ = STREAMS.remove(id);
}
