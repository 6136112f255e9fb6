//! Which thread asked for what a slot does, where the server's own functions are probed (`server_queue::get_new_id`
//! gives a task its id on the thread that serves the HTTP request, `server_context_impl::launch_slot_with_task` puts the
//! task into a slot; llama.cpp c392e50 and 0c1e570, `tools/server/server-queue.cpp`, `server-context.cpp`).
//!
//! In: their returns. Out: a [`Tie`]. Both ids are the first `int` of their objects, so no layout is assumed beyond it.
//! Deliberately absent: what else is in a task.

pub(super) use crate::probe::{LLAMA_LAUNCH as LAUNCH, LLAMA_NEW_ID as NEW_ID};
use crate::server::said::Tie;
use std::collections::BTreeMap;

/// Ids that were given and not yet seen in a slot: those of tasks for metrics never are.
const MAX_TASKS: usize = 1024;
/// Ids that a thread takes for one HTTP request (several prompts, `n` > 1) come one after the other.
const ONE_REQUEST_NS: u64 = 20_000_000;

/// An id that was given.
#[derive(Clone, Copy, Debug)]
struct Task {
    tid: u32,
    given_ns: u64,
    /// Its place among those that the thread took for one HTTP request.
    place: u32,
    /// Others were taken with it.
    several: bool,
}

/// The tasks of a server process.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    by_id: BTreeMap<i32, Task>,
    last: BTreeMap<u32, (i32, Task)>,
}

/// A task whose thread is known.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) tie: Tie,
    pub(super) given_ns: u64,
}

impl Tasks {
    /// `get_new_id` returned `id` on thread `tid`.
    pub(super) fn given(&mut self, tid: u32, id: i32, now_ns: u64) {
        let mut task = Task { tid, given_ns: now_ns, place: 0, several: false };
        if let Some((before, last)) = self.last.get(&tid).copied()
            && now_ns.saturating_sub(last.given_ns) < ONE_REQUEST_NS
        {
            (task.place, task.several) = (last.place.saturating_add(1), true);
            if let Some(before) = self.by_id.get_mut(&before) {
                before.several = true;
            }
        }
        if self.by_id.len() >= MAX_TASKS {
            self.by_id.pop_first();
            self.last.clear();
        }
        self.by_id.insert(id, task);
        self.last.insert(tid, (id, task));
    }

    /// Task `id` is in a slot.
    pub(super) fn launched(&mut self, pid: u32, id: i32) -> Option<Asked> {
        let task = self.by_id.remove(&id)?;
        let part = task.several.then_some(task.place);
        let tie = Tie { part, thread: Some((pid, task.tid)), ..Tie::default() };
        Some(Asked { tie, given_ns: task.given_ns })
    }
}
