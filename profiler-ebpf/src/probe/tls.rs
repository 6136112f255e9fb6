//! Calls into TLS libraries with the interface of OpenSSL: what they decipher, and which connection carries it.
//!
//! A session is an `SSL` object. What it deciphers is a stream of its own, with an id and positions like a connection's.
//! Three observations tie it to the connection that carries it, none of which knows the library's structures:
//! ```text
//! SSL_set_fd(ssl, fd)                          the program says so
//! SSL_read(ssl) ─► read(fd) inside             the library does it itself
//! read(fd), then SSL_read(ssl)                 the program hands bytes over: the thread's last read (asyncio, Node)
//! SSL_write(ssl, n), then write(fd, n + r)     r is what records add to n bytes
//! ```
//! Connections that did not open like TLS are never carriers, so a server's own requests to others tie to nothing.
//! Bytes are reported at the return of a call, because only then is known how many there are.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_get_attach_cookie,
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use profiler_common::{
    cookie::{Cookie, tls as function},
    counter::family,
    event::{TlsSession, direction, end_reason, kind, tie},
    stream::{Session, SessionKey, mode},
};

use super::{
    payload::{Allowance, Sender},
    socket::connection::Connection,
};
use crate::{
    arch::{self, Frame},
    emit::{Tally, Task},
    map::{self, SESSIONS, STREAMS, TLS_THREADS, TlsThread, is_target},
    memory::read_user,
};

/// Most bytes of a TLS record, plain (RFC 8446, section 5.1).
const RECORD: u64 = 1 << 14;

/// What a record adds to its bytes: 5 of header and 16 of tag, with 1 for the type (TLS 1.3), or 8 of an explicit
/// nonce (AES-GCM in TLS 1.2, RFC 5288), or neither (ChaCha20-Poly1305 in TLS 1.2, RFC 7905).
const ADDED: [u64; 3] = [22, 29, 21];

/// Observations against a carrier that drop it.
const MOST_DOUBTS: u64 = 2;

/// No system call and no descriptor.
const NONE: u32 = u32::MAX;

/// Entry of a call.
#[uprobe]
pub fn tls_enter(ctx: ProbeContext) -> u32 {
    let Some(tally) = Tally::of(family::TLS) else { return 0 };
    // SAFETY: the context is the one this program was given.
    let cookie = Cookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    map::ran(cookie);
    let frame = Frame::at_entry(ctx.as_ptr());
    let call = Call { task: Task::current(), tally, cookie };
    let [ssl, second, _, fourth, fifth, _] = frame.six();
    match cookie.shape {
        function::FREE => call.ended(ssl),
        function::CLEAR => {
            call.ended(ssl);
            call.begin(ssl, tie::NEW);
        }
        function::SET_FD => call.set_descriptor(ssl, second as u32),
        function::SHUTDOWN => call.shut_down(ssl),
        function::HANDSHAKE => call.enter(ssl, 0, 0),
        function::READ | function::WRITE => call.enter(ssl, second, 0),
        function::READ_EX | function::WRITE_EX => call.enter(ssl, second, fourth),
        function::WRITE_EX2 => call.enter(ssl, second, fifth),
        function::SEND_FILE => call.enter(ssl, 0, 0),
        _ => {}
    }
    0
}

/// Return of a call that is reported then.
#[uretprobe]
pub fn tls_leave(ctx: RetProbeContext) -> u32 {
    let Some(tally) = Tally::of(family::TLS) else { return 0 };
    // SAFETY: the context is the one this program was given.
    let cookie = Cookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    map::ran(cookie);
    let result = arch::result(ctx.as_ptr());
    let call = Call { task: Task::current(), tally, cookie };
    if cookie.shape == function::NEW {
        if result != 0 {
            call.begin(result, tie::NEW);
        }
        return 0;
    }
    call.leave(result);
    0
}

/// A thread is gone.
#[inline(always)]
pub fn thread_gone(task: Task) {
    let _ = TLS_THREADS.remove(task.both());
}

/// The thread moved bytes on a connection that opened like TLS.
#[inline(always)]
pub fn moved(task: Task, connection: u64, sent: bool, bytes: u64) {
    let Some(thread) = thread(task) else { return };
    // SAFETY: the entry is this thread's own.
    let thread = unsafe { &mut *thread };
    if thread.ssl != 0 {
        thread.nested = connection;
    } else if !sent {
        thread.fed = connection;
    } else if thread.wrote != 0 {
        let (ssl, plain) = (thread.wrote, thread.wrote_bytes);
        thread.wrote = 0;
        if let Some(tally) = Tally::of(family::TLS)
            && become_records(plain, bytes)
        {
            tied(task, tally, 0, ssl, connection, tie::LENGTH);
        }
    }
}

/// Whether `plain` bytes, written at once, are as many as `bytes` in records.
#[inline(always)]
fn become_records(plain: u64, bytes: u64) -> bool {
    let records = plain.div_ceil(RECORD);
    let [a, b, c] = ADDED;
    bytes == plain + a * records || bytes == plain + b * records || bytes == plain + c * records
}

/// A call into the library.
struct Call {
    task: Task,
    tally: Tally,
    cookie: Cookie,
}

impl Call {
    /// Keeps what the return will need, unless this is the inner half of the thread's call for the same session.
    #[inline(always)]
    fn enter(&self, ssl: u64, buffer: u64, done_at: u64) {
        let Some(thread) = thread(self.task) else { return self.tally.map_full() };
        // SAFETY: the entry is this thread's own.
        let thread = unsafe { &mut *thread };
        if thread.ssl == ssl && thread.api != u64::from(self.cookie.api) && self.may_be_inner(thread, buffer)
        {
            return;
        }
        let fed = thread.fed;
        thread.fed = 0;
        thread.nested = 0;
        thread.buffer = buffer;
        thread.done_at = done_at;
        thread.api = u64::from(self.cookie.api);
        thread.ssl = ssl;
        if fed != 0 && !self.writes() {
            tied(self.task, self.tally, self.cookie.api, ssl, fed, tie::ORDER);
        }
    }

    /// `SSL_write_ex` goes on as `SSL_write_ex2` (OpenSSL 3.3), and everything may go on as `SSL_do_handshake`
    /// (`SSL_accept`; `SSL_read` in BoringSSL).
    #[inline(always)]
    fn may_be_inner(&self, thread: &TlsThread, buffer: u64) -> bool {
        self.cookie.shape == function::HANDSHAKE
            || self.cookie.shape == function::WRITE_EX2 && thread.buffer == buffer
    }

    #[inline(always)]
    fn writes(&self) -> bool {
        matches!(
            self.cookie.shape,
            function::WRITE | function::WRITE_EX | function::WRITE_EX2 | function::SEND_FILE
        )
    }

    /// Reports what the call deciphered or enciphered, and what it did on which connection.
    #[inline(always)]
    fn leave(&self, result: u64) {
        let Some(thread) = TLS_THREADS.get_ptr_mut(self.task.both()) else { return };
        // SAFETY: the entry is this thread's own.
        let thread = unsafe { &mut *thread };
        // An inner half, or a call that was entered before its probe stood.
        if thread.api != u64::from(self.cookie.api) || thread.ssl == 0 {
            return;
        }
        let (ssl, nested) = (thread.ssl, thread.nested);
        thread.ssl = 0;
        if nested != 0 {
            tied(self.task, self.tally, self.cookie.api, ssl, nested, tie::NESTED);
        }
        let bytes = self.bytes(result, thread.done_at);
        if bytes == 0 {
            return;
        }
        if self.writes() && nested == 0 {
            thread.wrote_bytes = if thread.wrote == ssl { thread.wrote_bytes + bytes } else { bytes };
            thread.wrote = ssl;
        }
        self.carry(ssl, thread, bytes);
    }

    /// How many bytes the call moved.
    #[inline(always)]
    fn bytes(&self, result: u64, done_at: u64) -> u64 {
        match self.cookie.shape {
            // `int`: what is left of it in the register's upper half means nothing.
            function::READ | function::WRITE => (result as u32 as i32).max(0) as u64,
            function::READ_EX | function::WRITE_EX | function::WRITE_EX2 if result as u32 == 1 => {
                read_user(done_at).unwrap_or(0)
            }
            function::SEND_FILE => (result as i64).max(0) as u64,
            _ => 0,
        }
    }

    #[inline(always)]
    fn carry(&self, ssl: u64, thread: &'static mut TlsThread, bytes: u64) {
        let session = match session(self.task, ssl) {
            Some(session) => session,
            None => {
                self.begin(ssl, tie::MET);
                let Some(session) = session(self.task, ssl) else { return };
                session
            }
        };
        // SAFETY: a live map value; the field does not change.
        let Some(stream) = Connection::with_id(unsafe { (*session).connection }) else { return };
        let sent = self.writes();
        let position = stream.moved(sent, bytes);
        let allowance: Option<Allowance> = stream.allowance(sent, position);
        if position == 0 {
            stream.opens_with(read_user(thread.buffer).unwrap_or(0));
        }
        let Some(allowance) = allowance else { return };
        let way = if sent { direction::SENT } else { direction::RECEIVED };
        let head = self.task.head(kind::SOCKET_DATA, self.cookie.api, way);
        let buffer = thread.buffer;
        let mut sender =
            Sender::new(self.tally, head, stream.id, &thread.cursor, (position, bytes), allowance);
        if self.cookie.shape == function::SEND_FILE { sender.send_none() } else { sender.send_flat(buffer) }
    }

    /// A session that is new, or that is met in the middle of its life.
    #[inline(always)]
    fn begin(&self, ssl: u64, how: u16) {
        let Some(connection) = Connection::enter(self.tally, 0) else { return };
        let session = Session { connection, carrier: 0, doubts: 0 };
        if SESSIONS.insert(key(self.task, ssl), session, 0).is_err() {
            let _ = STREAMS.remove(connection);
            return self.tally.map_full();
        }
        report(self.task, self.tally, self.cookie.api, connection, 0, how);
    }

    #[inline(always)]
    fn ended(&self, ssl: u64) {
        let Some(session) = session(self.task, ssl) else { return };
        // SAFETY: a live map value; the field does not change.
        let connection = unsafe { (*session).connection };
        let _ = SESSIONS.remove(key(self.task, ssl));
        let Some(stream) = Connection::with_id(connection) else { return };
        stream.report_end(self.tally, self.task, self.cookie.api, [NONE, 0], end_reason::CLOSED);
        let _ = STREAMS.remove(connection);
    }

    #[inline(always)]
    fn shut_down(&self, ssl: u64) {
        let Some(session) = session(self.task, ssl) else { return };
        // SAFETY: a live map value; the field does not change.
        let Some(stream) = Connection::with_id(unsafe { (*session).connection }) else { return };
        if stream.first_time(mode::OUTPUT_ENDED) {
            let ends = [NONE, 0];
            stream.report_end(self.tally, self.task, self.cookie.api, ends, end_reason::END_OF_OUTPUT);
        }
    }

    #[inline(always)]
    fn set_descriptor(&self, ssl: u64, fd: u32) {
        if session(self.task, ssl).is_none() {
            self.begin(ssl, tie::MET);
        }
        if let Some(carrier) = Connection::behind(self.task.tgid, fd) {
            tied(self.task, self.tally, self.cookie.api, ssl, carrier.id, tie::DESCRIPTOR);
        }
    }
}

/// An observation says that `carrier` carries the session: new, agreeing, or against what was thought.
#[inline(always)]
fn tied(task: Task, tally: Tally, api: u16, ssl: u64, carrier: u64, how: u16) {
    let Some(session) = session(task, ssl) else { return };
    // SAFETY: a live map value. Threads that use one session take turns, since the library demands it.
    let session = unsafe { &mut *session };
    if session.carrier == carrier {
        session.doubts = 0;
        return;
    }
    let known = session.carrier;
    if known != 0 && how != tie::DESCRIPTOR {
        session.doubts += 1;
        if session.doubts < MOST_DOUBTS {
            return;
        }
        session.carrier = 0;
        session.doubts = 0;
        return report(task, tally, api, session.connection, known, tie::DROPPED);
    }
    session.carrier = carrier;
    session.doubts = 0;
    report(task, tally, api, session.connection, carrier, how);
}

#[inline(always)]
fn report(task: Task, tally: Tally, api: u16, connection: u64, carrier: u64, how: u16) {
    // The mark goes first when the probes are taken out: nobody observes the process any more.
    if is_target(task.tgid) {
        tally.send(TlsSession {
            head: task.head(kind::TLS_SESSION, api, how),
            connection,
            carrier,
            reserved: 0,
        });
    }
}

#[inline(always)]
fn session(task: Task, ssl: u64) -> Option<*mut Session> {
    SESSIONS.get_ptr_mut(key(task, ssl))
}

#[inline(always)]
fn key(task: Task, ssl: u64) -> SessionKey {
    SessionKey { ssl, tgid: u64::from(task.tgid) }
}

/// The entry of the running thread, made when there is none.
#[inline(always)]
fn thread(task: Task) -> Option<*mut TlsThread> {
    if let Some(thread) = TLS_THREADS.get_ptr_mut(task.both()) {
        return Some(thread);
    }
    TLS_THREADS.insert(task.both(), TlsThread::idle(), 0).ok()?;
    TLS_THREADS.get_ptr_mut(task.both())
}
