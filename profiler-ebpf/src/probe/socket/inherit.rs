//! Connections that a fork passes on to the new process, and that an `exec` or its end takes from it.
//!
//! Some servers accept and then fork: the parent closes at once and the child answers. Any other child, one that a
//! server spawns to run a tool, holds the connections for a moment too. The kernel lends no way to go through a
//! process's descriptors here, so the newest ones are remembered by process: a server that forks for a connection does
//! so right after it has accepted it.

use profiler_common::{
    counter::family,
    event::end_reason,
    stream::{RECENT as ENTRIES, Recent, recent},
};

use super::{
    Exit,
    connection::{Connection, forget},
};
use crate::{
    emit::{Tally, Task},
    map::RECENT,
};

const NOBODY: u32 = u32::MAX;
const BITS: u32 = recent::CLOSED_BY_EXEC | recent::INHERITED;

/// A process has a new connection at `fd`.
#[inline(always)]
pub fn remember(tgid: u32, fd: u32, closed_by_exec: bool) {
    let entry = fd & !BITS | if closed_by_exec { recent::CLOSED_BY_EXEC } else { 0 };
    if let Some(known) = RECENT.get_ptr_mut(tgid) {
        // SAFETY: a live map value; two threads that accept at once may overwrite each other's entry, no more.
        unsafe {
            let at = (*known).entered as usize & (ENTRIES - 1);
            (*known).descriptors[at] = entry;
            (*known).entered += 1;
        }
        return;
    }
    let mut fresh = Recent { descriptors: [NOBODY; ENTRIES], entered: 1 };
    fresh.descriptors[0] = entry;
    let _ = RECENT.insert(tgid, fresh, 0);
}

/// `child` is a new process with copies of its parent's descriptors.
#[inline(always)]
pub fn passed_on(parent: u32, child: u32) {
    let Some(known) = RECENT.get_ptr(parent) else { return };
    let Some(tally) = Tally::of(family::SOCKET) else { return };
    // SAFETY: a live map value, copied at once.
    let mut copy = unsafe { *known };
    for entry in &mut copy.descriptors {
        let fd = *entry & !BITS;
        let goes_along =
            *entry != NOBODY && Connection::behind(parent, fd).is_some_and(|it| it.refer(tally, child, fd));
        *entry = if goes_along { *entry | recent::INHERITED } else { NOBODY };
    }
    let _ = RECENT.insert(child, copy, 0);
}

/// The process runs another program: descriptors that were marked so are closed.
#[inline(always)]
pub fn executed(task: Task) {
    drop_marked(task, recent::CLOSED_BY_EXEC, end_reason::CLOSED);
}

/// The process ended. What it had from its parent is closed with it; what it had itself went down with it, which user
/// space tells.
#[inline(always)]
pub fn ended(task: Task) {
    drop_marked(task, recent::INHERITED, end_reason::PROCESS_EXITED);
    let _ = RECENT.remove(task.tgid);
}

#[inline(always)]
fn drop_marked(task: Task, mark: u32, reason: u16) {
    let Some(known) = RECENT.get_ptr_mut(task.tgid) else { return };
    let Some(tally) = Tally::of(family::SOCKET) else { return };
    let exit = Exit { task, tally, number: 0, args: [0; 6], result: 0 };
    // SAFETY: a live map value; the process has no second thread that could accept meanwhile.
    for entry in unsafe { &mut (*known).descriptors } {
        if *entry != NOBODY && *entry & mark != 0 {
            forget(&exit, *entry & !BITS, reason);
            *entry = NOBODY;
        }
    }
}
