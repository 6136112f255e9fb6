//! Fork, exec, exit and executable mappings of the targets.
//!
//! A child becomes a target inside the fork, before it can run, so that nothing it does is missed. Connections
//! stay with the parent: which descriptors the child uses is for user space to find out.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use profiler_common::{
    counter::family,
    event::{Process, change, kind},
};

use crate::{
    emit::{Tally, Task},
    map,
    probe::gpu,
};

/// A target made a thread or a process.
#[tracepoint(category = "sched", name = "sched_process_fork")]
pub fn process_fork(ctx: TracePointContext) -> u32 {
    let task = Task::current();
    if map::is_target(task.tgid) {
        let child = child_of(&ctx, task.tid).unwrap_or(0);
        if child != 0 {
            map::add_target(child);
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
        report(task, change::EXIT, 0, 0);
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

#[inline(always)]
fn report(task: Task, change: u16, number: u32, other: u32) {
    if let Some(tally) = Tally::of(family::PROCESS) {
        let head = task.head(kind::PROCESS, number as u16, change);
        tally.send(Process { head, other, padding: 0 });
    }
}

/// The new task's id in a `sched_process_fork` event, which has come in two layouts (`format` of the event).
///
/// Older kernels have both names in place: `char parent_comm[16]` at 8, `parent_pid` at 24, `child_comm[16]` at
/// 28, `child_pid` at 44. Newer ones (6.18) have references to the event's end: length << 16 | 24 at 8,
/// `parent_pid` at 12, a second reference at 16, `child_pid` at 20. No task's name starts with the bytes 24 and 0,
/// and the parent is the running task; when neither layout fits, the child stays unknown.
#[inline(always)]
fn child_of(ctx: &TracePointContext, parent: u32) -> Option<u32> {
    // SAFETY: any four bytes of the event are a number.
    let at = |offset| unsafe { ctx.read_at::<u32>(offset) }.ok();
    if at(8)? & 0xffff == 24 && at(12)? == parent {
        return at(20);
    }
    if at(24)? == parent { at(44) } else { None }
}
