//! Probes in libraries that a process has not mapped yet, so that its very first call is seen.
//!
//! A program calls a library within microseconds of mapping it, and registers its kernels before that call returns; a
//! profiler that first sees the mapping comes too late. Where one link carries all probes of a file, the files in the
//! process's reach get theirs ahead: the kernel puts them in place as it maps the file. A file that is never mapped
//! costs the process nothing.

use super::links::{LinkError, Links};
use super::{Attacher, Learnt, Library};
use crate::target::{self, Mapping, StatId};
use std::collections::HashMap;
use std::time::Instant;

/// Links by the file they stand in.
#[derive(Default)]
pub struct Ahead {
    links: HashMap<StatId, Links>,
    /// Some were placed, whether they have been met in the mappings or not.
    any: bool,
    /// A library was mapped that nobody expected: its first calls may have been missed.
    surprised: bool,
}

impl Ahead {
    /// Whether calls may come from libraries whose mapping has not been looked at.
    pub fn is_any(&self) -> bool {
        self.any
    }

    /// Whether a library came unexpected since the last call.
    pub fn take_surprise(&mut self) -> bool {
        std::mem::take(&mut self.surprised)
    }

    /// All links that stand in files which were never mapped.
    pub fn take_all(&mut self) -> impl Iterator<Item = Links> {
        self.links.drain().map(|(_, links)| links)
    }
}

impl Attacher {
    /// Places probes in the GPU libraries that `pid` may load, if it has loaded none so far.
    pub fn expect_libraries(&mut self, pid: u32, learn: &mut dyn FnMut(Learnt)) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        // Single links take 0.1 s each to remove: too dear for a guess.
        if process.has_gpu_library() || !self.scope.gpu || self.kernel().multi().is_none() {
            return;
        }
        let start = Instant::now();
        for library in target::in_reach(pid) {
            let known =
                self.processes.get(&pid).is_some_and(|process| process.ahead.links.contains_key(&library.id));
            if known {
                continue;
            }
            let name = library.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Ok(found) = super::inspect(&library.path, target::gpu_layer(name)) else { continue };
            if found.points.is_empty() {
                continue;
            }
            // The first probe may be hit before the next line runs.
            if let Some(process) = self.processes.get_mut(&pid).filter(|process| !process.ahead.any) {
                process.ahead.any = true;
                learn(Learnt { ahead: true, from_start: true, ..Learnt::nothing(pid) });
            }
            let attached = Links::attach(&mut self.kernel(), self.scope, &library.path, pid, &found);
            match attached {
                Ok(links) => {
                    if let Some(process) = self.processes.get_mut(&pid) {
                        process.ahead.links.insert(library.id, links);
                    }
                }
                Err(error) => {
                    tracing::debug!(pid, library = %library.path.display(), error = %crate::chain(&error), "not probed ahead");
                }
            }
        }
        self.attach_time += start.elapsed();
        // A library that was mapped meanwhile is ours already.
        self.rescan(pid, learn);
    }

    /// The links of a mapped library: those that were placed ahead, or new ones.
    pub(super) fn links(
        &mut self,
        pid: u32,
        mapping: &Mapping,
        library: &Library,
    ) -> Result<Links, LinkError> {
        let path = mapping.openable(pid);
        if let Some(ahead) = self.processes.get_mut(&pid).map(|process| &mut process.ahead) {
            if let Some(links) = StatId::of(&path).and_then(|id| ahead.links.remove(&id)) {
                return Ok(links);
            }
            ahead.surprised |= ahead.any;
        }
        Links::attach(&mut self.kernel(), self.scope, &path, pid, library)
    }
}
