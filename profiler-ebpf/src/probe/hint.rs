//! What happens on the machine that may make a server of a process: hints for whoever looks for servers.
//!
//! Both hooks stay while nobody is observed, so they stand where things are rare: an `exec`, and the states of TCP sockets,
//! of which only the one is looked at. A hint that finds no room is dropped: the next look sees the process without it.
//! Nothing is counted, and nothing of it goes through the ring of the records.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use profiler_common::hint::{Hint, what};

use crate::{emit::Task, map::HINTS};

/// `TCP_LISTEN` (include/net/tcp_states.h).
const LISTEN: u32 = 10;

/// A process runs another program.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn hint_exec(_: RawTracePointContext) -> i32 {
    tell(what::EXEC);
    0
}

/// A socket of TCP goes into another state, the third argument (`TP_PROTO` of `sock:inet_sock_set_state`, the same from
/// Linux 4.16 to 6.18). One begins to listen inside the system call of whoever it is of.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn hint_listen(ctx: RawTracePointContext) -> i32 {
    if ctx.arg::<u64>(2) as u32 == LISTEN {
        tell(what::LISTEN);
    }
    0
}

/// The reader is woken if it has taken all that was there: while it rests, hints gather and wake nobody.
#[inline(always)]
fn tell(what: u32) {
    if let Some(mut entry) = HINTS.reserve::<Hint>(0) {
        entry.write(Hint { what, pid: Task::current().tgid });
        entry.submit(0);
    }
}
