//! What listening inside servers needs from the system: where their rings lie, whether a receive probe is worth its
//! price, what they publish in shared memory.

use super::Control;
use crate::clock;
use crate::probe::Layer;
use crate::server::Limits;
use crate::session::Input;
use crate::target;
use std::collections::{HashMap, HashSet};
use std::time::Instant;

/// Receives that find nothing, a second, from which on a process is asking in a loop. A server that waits makes a few;
/// each costs two probes.
const MOST_IDLE_RECEIVES: u64 = 5_000;

/// Why requests into a process are not seen.
const SPINS: &str =
    "it asks its message queue again and again: receives are not probed any more, what others send it is";

/// The largest snapshot that is read: SGLang's are 16 KiB for each data-parallel rank.
const MOST_SNAPSHOT: usize = 1 << 20;

/// What has been looked into.
#[derive(Default)]
pub struct Inside {
    /// The server that the correlation was told.
    told: Option<&'static str>,
    /// The limits that it was told.
    limits: Limits,
    /// Processes whose ring is followed.
    rings: HashSet<u32>,
    /// Processes whose messages are heard at their engine.
    silent: HashSet<u32>,
    /// Receives that found nothing, by process, as of when.
    idle: HashMap<u32, (u64, Instant)>,
}

impl Control {
    /// Where threads publish what they work for shows once the dynamic linker is done; what hinders it is told once.
    pub(super) fn look_at_contexts(&mut self) {
        self.attacher.look_at_unpublished();
        let hindered: Vec<_> = self
            .attacher
            .pids()
            .filter_map(|pid| Some((pid, self.attacher.unpublished(pid)?.blind())))
            .collect();
        for (pid, why) in hindered {
            if self.blind.insert((pid, why)) {
                tracing::warn!(pid, "{why}");
            }
        }
    }

    /// Tells the correlation which server this is, when that is news.
    pub(super) fn tell_server(&mut self, learn: &mut dyn FnMut(Input)) {
        if self.inside.told != Some(self.server) {
            self.inside.told = Some(self.server);
            learn(Input::Serves(self.server));
        }
    }

    /// Tells the correlation what a process's command line says of its engines, when that is news.
    pub(super) fn tell_limits(&mut self, command_line: &[String], learn: &mut dyn FnMut(Input)) {
        let limits = self.inside.limits.or(Limits::of(self.server, command_line));
        if limits != self.inside.limits {
            self.inside.limits = limits;
            learn(Input::Limits(limits));
        }
    }

    /// Looks after all processes that are listened to inside.
    pub(super) fn look_inside(&mut self, learn: &mut dyn FnMut(Input)) {
        if !self.attacher.kernel().listens_inside() {
            return;
        }
        let pids: Vec<u32> =
            self.attacher.pids().filter(|pid| self.attacher.listens_inside(*pid, Layer::Zmq)).collect();
        for pid in &pids {
            if !self.inside.silent.contains(pid) {
                self.guard_receives(*pid);
                self.follow_ring(*pid);
            }
        }
        self.leave_to_engine(&pids);
        if self.server == "sglang" {
            self.read_snapshots(learn);
        }
    }

    /// A process is gone.
    pub(super) fn forget_inside(&mut self, pid: u32) {
        self.inside.rings.remove(&pid);
        self.inside.silent.remove(&pid);
        self.inside.idle.remove(&pid);
    }

    fn guard_receives(&mut self, pid: u32) {
        let count = self.attacher.kernel().idle_receives(pid);
        let now = Instant::now();
        let Some((before, since)) = self.inside.idle.insert(pid, (count, now)) else { return };
        let elapsed = now.duration_since(since).as_secs_f64().max(0.001);
        let rate = count.saturating_sub(before) as f64 / elapsed;
        if rate > MOST_IDLE_RECEIVES as f64 && self.attacher.stop_receives(pid) {
            tracing::warn!(pid, rate = rate.round(), "{SPINS}");
            self.blind.insert((pid, SPINS));
        }
    }

    /// vLLM's front ends repeat what its engine says, and its workers tell it only that they are done: four of the eight
    /// probed messages of a step. Once the engine is listened to, nobody else need be.
    fn leave_to_engine(&mut self, pids: &[u32]) {
        let engines: Vec<u32> = pids.iter().copied().filter(|pid| self.is_engine(*pid)).collect();
        if self.server != "vllm" || engines.is_empty() {
            return;
        }
        for pid in pids.iter().filter(|pid| !engines.contains(pid)) {
            if self.inside.silent.contains(pid) {
                continue;
            }
            // A process that has not told its name yet may be another engine; the one that started engines is none.
            if target::comm(*pid).starts_with("VLLM::")
                || engines.iter().any(|engine| target::parent_of(*engine) == Some(*pid))
            {
                tracing::debug!(pid, "its messages are heard at the engine");
                self.attacher.stop_listening(*pid, Layer::Zmq);
                self.inside.silent.insert(*pid);
            }
        }
    }

    /// vLLM's engines name themselves, some time after they started.
    fn is_engine(&self, pid: u32) -> bool {
        self.inside.rings.contains(&pid) || target::comm(pid).starts_with("VLLM::EngineC")
    }

    /// vLLM's engine tells its workers what to compute through a ring in shared memory.
    fn follow_ring(&mut self, pid: u32) {
        if self.inside.rings.contains(&pid) || !self.is_engine(pid) {
            return;
        }
        if let Some(ring) = target::rings(pid).into_iter().find(|ring| ring.holds(b"execute_model")) {
            tracing::info!(
                pid,
                chunks = ring.ring.chunks,
                readers = ring.ring.readers,
                "following the engine's ring"
            );
            self.attacher.kernel().follow_ring(pid, ring.ring);
            self.inside.rings.insert(pid);
        }
    }

    /// SGLang's schedulers publish their load in shared memory that they have mapped; other servers of the machine have
    /// files of their own.
    fn read_snapshots(&mut self, learn: &mut dyn FnMut(Input)) {
        let mut read = HashSet::new();
        for pid in self.attacher.pids().collect::<Vec<_>>() {
            for path in target::shared_memory(pid, "sglang_loads_") {
                // One that cannot be read now can be at the next look.
                let Ok(mut bytes) = std::fs::read(&path) else { continue };
                if !read.insert(path.file_name().map(ToOwned::to_owned)) {
                    continue;
                }
                bytes.truncate(MOST_SNAPSHOT);
                learn(Input::Snapshot { pid, time_ns: clock::monotonic_ns(), bytes });
            }
        }
    }
}
