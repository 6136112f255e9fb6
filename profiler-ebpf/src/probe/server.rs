//! Functions of model servers and of the libraries that they talk through: messages, batches, requests.
//!
//! As with GPU calls the cookie says what to copy, and all meaning is left to user space. The links are scoped to the
//! targets' processes, so there is no filter here.

mod batch;
mod list;
mod message;
mod ring;

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_get_attach_cookie,
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use profiler_common::{
    cookie::{Cookie, report, server as function},
    counter::family,
    event::{Call, CallFailed, kind, way},
};

use super::gpu::{argument, done, key, name, take_held, wide, word};
use crate::{
    arch::{self, Frame},
    emit::{Tally, Task, now},
    map::{self, IDLE_RECEIVES, IN_FLIGHT, InFlight},
};

/// `ZMQ_SNDMORE` (zmq.h): the frame is not the last of its message.
const SEND_MORE: u64 = 2;

/// Entry of a call.
#[uprobe]
pub fn server_enter(ctx: ProbeContext) -> u32 {
    let Some(tally) = Tally::of(family::SERVER) else { return 0 };
    // SAFETY: the context is the one this program was given.
    let cookie = Cookie::unpack(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    map::ran(cookie);
    let frame = Frame::at_entry(ctx.as_ptr());
    let task = Task::current();
    let [first, second, third, ..] = frame.six();
    match cookie.shape {
        function::SEND => {
            let more = third & SEND_MORE != 0;
            if let Some(found) = message::find(tally, first) {
                // Of the two that come with a chunk of the ring, one record is enough.
                let is_notification = !more && task.tgid == task.tid && found.is_notification();
                if !(is_notification && ring::written(tally, task, cookie)) {
                    message::send(tally, task, cookie, found, second, Some(more), way::SENT);
                }
            }
        }
        function::BATCH => batch::by_value(tally, task, cookie, &frame),
        function::OPAQUE_BATCH => batch::opaque(tally, task, cookie, &frame),
        function::WIDE => wide::send(tally, task, cookie, &frame),
        function::LIST => list::send(tally, task, cookie, &frame),
        function::TEXT if cookie.report == report::ENTRY => {
            name::send(tally, task, cookie, first, argument(&frame.six(), cookie.pointee));
        }
        function::CALL if matches!(cookie.report, report::ENTRY | report::ENTRY_AND_FAILURE) => {
            tally.send(Call { head: task.head(kind::CALL, cookie.api, 0), caller: 0, args: frame.six() });
        }
        _ => {}
    }
    if cookie.report == report::RETURN {
        let held = InFlight { entered_ns: now(), caller: 0, args: frame.six() };
        if IN_FLIGHT.insert(key(task, cookie), held, 0).is_err() {
            tally.map_full();
        }
    }
    0
}

/// Return of a call whose result, or what it brought, is wanted.
#[uretprobe]
pub fn server_leave(ctx: RetProbeContext) -> u32 {
    let Some(tally) = Tally::of(family::SERVER) else { return 0 };
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
    match cookie.shape {
        function::RECEIVE if result >= 0 => {
            let [message, socket, ..] = held.args;
            if let Some(found) = message::find(tally, message) {
                message::send(tally, task, cookie, found, socket, None, way::RECEIVED);
            }
        }
        function::RECEIVE => count_idle(task),
        function::TEXT if result == 0 => {
            let text = argument(&held.args, cookie.pointee);
            name::send(tally, task, cookie, word(&held.args, cookie.out, 0), text);
        }
        _ => done(tally, task, cookie, &held, result),
    }
    0
}

/// A receive found nothing: a process that asks again and again pays for each, and user space must know.
#[inline(always)]
fn count_idle(task: Task) {
    match IDLE_RECEIVES.get_ptr_mut(task.tgid) {
        // SAFETY: the value is a live, aligned u64 of a map, changed by atomics alone.
        Some(count) => unsafe { crate::atomic::Word::new(count) }.add(1),
        // Without room nothing is counted, and the receives go on being seen.
        None => drop(IDLE_RECEIVES.insert(task.tgid, 1, 0)),
    }
}
