//! Fork, exec, exit and executable mappings of the targets.
//!
//! A child becomes a target inside the fork, before it can run, so that nothing it does is missed, and gets the
//! connections that its parent has newly accepted.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use profiler_common::{
    counter::family,
    event::{Process, change, kind},
};

use crate::{
    emit::{Tally, Task},
    map,
    probe::{
        gpu::{self, context},
        socket::inherit,
        tls,
    },
};

/// The new task shares its parent's descriptors (`CLONE_FILES`, include/uapi/linux/sched.h).
const CLONE_FILES: u64 = 0x400;

/// A target made a thread or a process: `pid` at 8 and `clone_flags` at 32 of the event (`format` of
/// `task:task_newtask`, the same from Linux 3.4 to 6.18), which comes before the new task can run.
#[tracepoint(category = "task", name = "task_newtask")]
pub fn process_fork(ctx: TracePointContext) -> u32 {
    let task = Task::current();
    if map::is_target(task.tgid) {
        // SAFETY: any bytes of the event are a number.
        let (child, flags) = unsafe { (ctx.read_at::<u32>(8), ctx.read_at::<u64>(32)) };
        let (child, flags) = (child.unwrap_or(0), flags.unwrap_or(CLONE_FILES));
        if child != 0 {
            map::add_target(child);
            if flags & CLONE_FILES == 0 {
                inherit::passed_on(task.tgid, child);
            }
        }
        #[cfg(feature = "log")]
        aya_log_ebpf::debug!(&ctx, "{} made {}", task.tgid, child);
        report(task, change::FORK, 0, child);
    }
    0
}

/// A target replaced its program.
///
/// A thread that does so takes over the id of its process, whose first thread has ended by now and was forgotten; the
/// thread's own id ends without an exit. The event has it: the file's name at 8, `pid` at 12, `old_pid` at 16
/// (`format` of the event).
#[tracepoint(category = "sched", name = "sched_process_exec")]
pub fn process_exec(ctx: TracePointContext) -> u32 {
    let task = Task::current();
    // SAFETY: any four bytes of the event are a number.
    let old = unsafe { ctx.read_at::<u32>(16) }.unwrap_or(task.tid);
    if map::is_target(old) || map::is_target(task.tgid) {
        if old != task.tid {
            map::remove_target(old);
            map::add_target(task.tgid);
        }
        inherit::executed(task);
        context::executed(task);
        report(task, change::EXEC, 0, 0);
    }
    0
}

/// A thread of a target ended. When it was the first of its process, the process is forgotten, since it has ended too
/// but for the rare one that goes on without its first thread; user space sees that, and can add it again.
#[tracepoint(category = "sched", name = "sched_process_exit")]
pub fn process_exit(_: TracePointContext) -> u32 {
    let task = Task::current();
    if map::is_target(task.tgid) {
        gpu::thread_gone(task);
        context::thread_gone(task);
        tls::thread_gone(task);
        if task.tid == task.tgid {
            inherit::ended(task);
        }
        report(task, change::EXIT, 0, 0);
        map::remove_target(task.tid);
    } else if map::is_target(task.tid) {
        // The first of its process has ended before it, or is no target any more: nobody else takes the mark off.
        map::remove_target(task.tid);
    }
    0
}

/// A target mapped a file executable, by the system call `number`. If it is a GPU library, each millisecond until it is
/// probed may cost calls that nobody sees: the reader is woken.
#[inline(always)]
pub fn mapped(task: Task, number: u32) {
    if let Some(tally) = Tally::of(family::PROCESS) {
        let head = task.head(kind::PROCESS, number as u16, change::MAP);
        tally.send_and_wake(Process { head, other: 0, padding: 0 });
    }
}

/// A target made an io_uring, by the system call `number`.
#[inline(always)]
pub fn made_io_uring(task: Task, number: u32) {
    report(task, change::IO_URING, number, 0);
}

/// A target listens on the descriptor `fd`: what that is can be looked up before the first connection comes.
#[inline(always)]
pub fn listens(task: Task, number: u32, fd: u32) {
    report(task, change::LISTEN, number, fd);
}

#[inline(always)]
fn report(task: Task, change: u16, number: u32, other: u32) {
    if let Some(tally) = Tally::of(family::PROCESS) {
        let head = task.head(kind::PROCESS, number as u16, change);
        tally.send(Process { head, other, padding: 0 });
    }
}
