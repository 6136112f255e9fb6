//! Calls into GPU libraries: one program at entry, one at return, for every API there is.
//!
//! The cookie of the probe says how the arguments lie and when to report. A call becomes one record, at entry or at
//! return, or a count ([`count`]). The links are scoped to the targets' processes, so there is no filter here.

pub mod context;
mod count;
mod launch;
pub(super) mod name;
mod stack;
pub(super) mod wide;

pub use count::thread_gone;

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_get_attach_cookie,
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use profiler_common::{
    cookie::{BEHIND, Cookie, NO_SECOND, NOT_READY, capture, report, shape},
    counter::family,
    event::{Call, CallDone, CallFailed, detail, kind},
};

use crate::{
    arch::{self, Frame},
    emit::{Tally, Task, now},
    map::{self, IN_FLIGHT, InFlight, InFlightKey, SETTINGS, is_target},
    memory::read_user,
};

/// Entry of a call.
#[uprobe]
pub fn gpu_enter(ctx: ProbeContext) -> u32 {
    let Some(tally) = Tally::of(family::GPU) else { return 0 };
    // SAFETY: the context is the one this program was given.
    let cookie = Cookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    map::ran(cookie);
    let frame = Frame::at_entry(ctx.as_ptr());
    let task = Task::current();
    if matches!(cookie.report, report::RETURN | report::RETURN_UNLESS_NOT_READY) {
        hold(tally, task, cookie, &frame);
        return 0;
    }
    let Some(settings) = SETTINGS.get(u32::from(cookie.group)) else { return 0 };
    if settings.stack_every != 0 && launch::is(cookie.shape) {
        stack::sample(tally, ctx.as_ptr(), task, cookie, &frame, settings.stack_every);
    }
    if settings.contexts != 0 {
        context::tell(task);
    }
    if settings.detail == detail::AGGREGATE {
        if count::call(task, cookie, &frame, settings.generation) {
            return 0;
        }
        if cookie.waits {
            count::told(tally, task);
        }
    }
    match cookie.shape {
        shape::CALL | shape::CALL_WITH_CALLER | shape::MALLOC_3D | shape::MEMSET_3D => {
            call(tally, task, cookie, &frame)
        }
        shape::WIDE | shape::WIDE_SUM | shape::WIDE_VOLUMES => wide::send(tally, task, cookie, &frame),
        _ => launch::send(tally, task, cookie, &frame),
    }
    0
}

/// Return of a call that is reported at return, or only if it fails.
#[uretprobe]
pub fn gpu_leave(ctx: RetProbeContext) -> u32 {
    let Some(tally) = Tally::of(family::GPU) else { return 0 };
    // SAFETY: the context is the one this program was given.
    let cookie = Cookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    map::ran(cookie);
    let result = i64::from(arch::result(ctx.as_ptr()) as i32);
    let task = Task::current();
    if cookie.report == report::ENTRY_AND_FAILURE {
        if result != 0 {
            tally.send(CallFailed { head: task.head(kind::CALL_FAILED, cookie.api, 0), result });
        }
        return 0;
    }
    let Some(held) = take_held(tally, task, cookie) else { return 0 };
    let over = cookie.capture == capture::ENDS || cookie.capture == capture::BEGINS && result != 0;
    if over {
        count::capture_ended(task.tgid);
    }
    if cookie.report == report::RETURN_UNLESS_NOT_READY
        && result == NOT_READY
        && count::not_ready(task, cookie)
    {
        return 0;
    }
    done(tally, task, cookie, &held, result);
    0
}

/// What the entry of the call that returns left behind.
#[inline(always)]
pub(super) fn take_held(tally: Tally, task: Task, cookie: Cookie) -> Option<InFlight> {
    let key = key(task, cookie);
    let Some(held) = IN_FLIGHT.get_ptr(key) else {
        // The mark goes first when the probes are taken out. From then on entries may be gone where returns are
        // not yet, and such calls are no loss: nobody observes the process any more.
        if is_target(task.tgid) {
            tally.map_full();
        }
        return None;
    };
    // SAFETY: the entry belongs to this thread, which is here and nowhere else.
    let held = unsafe { *held };
    // An entry that is gone already is no loss: it has been read.
    let _ = IN_FLIGHT.remove(key);
    Some(held)
}

#[inline(always)]
pub(super) fn done(tally: Tally, task: Task, cookie: Cookie, held: &InFlight, result: i64) {
    let InFlight { entered_ns, caller, args } = *held;
    let out = [word(&args, cookie.out, 0), second(&args, cookie.second)];
    if cookie.shape == shape::NAMED && result == 0 {
        return name::send(tally, task, cookie, out[0], argument(&args, cookie.pointee));
    }
    let head = task.head(kind::CALL_DONE, cookie.api, 0);
    tally.send(CallDone { head, entered_ns, caller, args, result, out });
}

#[inline(always)]
fn call(tally: Tally, task: Task, cookie: Cookie, frame: &Frame) {
    match arguments(cookie, frame) {
        Some((caller, args)) => {
            tally.send(Call { head: task.head(kind::CALL, cookie.api, 0), caller, args });
        }
        None => tally.unreadable(),
    }
}

/// Keeps a paired call until its return; without room for it, reports it at once and counts its return as lost.
#[inline(always)]
fn hold(tally: Tally, task: Task, cookie: Cookie, frame: &Frame) {
    if cookie.waits {
        count::told(tally, task);
    }
    if cookie.capture == capture::BEGINS {
        count::capture_begins(task.tgid);
    }
    let Some((caller, args)) = arguments(cookie, frame) else { return tally.unreadable() };
    let held = InFlight { entered_ns: now(), caller, args };
    if IN_FLIGHT.insert(key(task, cookie), held, 0).is_err() {
        tally.map_full();
        tally.send(Call { head: task.head(kind::CALL, cookie.api, 0), caller, args });
    }
}

/// Return address, where it is wanted, and six arguments.
#[inline(always)]
fn arguments(cookie: Cookie, frame: &Frame) -> Option<(u64, [u64; 6])> {
    match cookie.shape {
        shape::CALL_WITH_CALLER | shape::NAMED => Some((frame.caller()?, frame.six())),
        shape::MALLOC_3D => Some((frame.caller()?, frame.malloc_3d()?)),
        shape::MEMSET_3D => Some((0, frame.memset_3d()?)),
        _ => Some((0, frame.six())),
    }
}

#[inline(always)]
pub(super) fn key(task: Task, cookie: Cookie) -> InFlightKey {
    InFlightKey { pid_tgid: task.both(), api: u64::from(cookie.api) }
}

/// The word that lies `behind` where an argument points, or 0 when there is no such argument.
#[inline(always)]
pub(super) fn word(args: &[u64; 6], which: u8, behind: u64) -> u64 {
    match argument(args, which) {
        0 => 0,
        address => read_user(address + behind).unwrap_or(0),
    }
}

#[inline(always)]
fn second(args: &[u64; 6], second: u8) -> u64 {
    if second == NO_SECOND {
        return 0;
    }
    word(args, second & !BEHIND, if second & BEHIND == 0 { 0 } else { 8 })
}

/// The argument of this position, or 0 when there is none. Spelt out, because the verifier loses track of an index
/// into an array.
#[inline(always)]
pub(super) fn argument([a, b, c, d, e, f]: &[u64; 6], which: u8) -> u64 {
    match which {
        0 => *a,
        1 => *b,
        2 => *c,
        3 => *d,
        4 => *e,
        5 => *f,
        _ => 0,
    }
}
