//! The kernel side as user space holds it: object loaded, hooks in place, tables within reach.
//!
//! In: [`KernelSettings`]. Out: a [`Kernel`] whose ring is ready to be drained, with the socket and process hooks
//! attached, or ready to be, and no target yet: until a pid's bit is set, nothing is sent.

mod publishers;

use super::btf;
use super::hooks::Hooks;
use super::multi::{self, MultiError};
use super::programs::MultiPrograms;
use super::settings::{Adapters, Detail, KernelSettings, LinkKind};
use super::tables::{
    CountPod, DescriptorPod, LayoutPod, RingPod, SessionPod, StreamPod, Tables, ThreadPod, WishPod,
};
use super::targets;
use crate::decode::Burst;
use crate::probe::{self, Results};
use aya::maps::{MapData, RingBuf};
use aya::programs::{ProgramError, UProbe};
use aya::{Ebpf, EbpfError, EbpfLoader};
use aya_log::EbpfLogger;
use profiler_common::cookie::{GROUPS, runs};
use profiler_common::counter::{Counters, family};
use profiler_common::event::{BatchLayout, Count, CountKey, Ring, Settings, detail};
use profiler_common::stream::{Descriptor, FOUND_OPEN, Stream, WISHES, Wish, map};
use std::collections::BTreeMap;

/// The compiled kernel side for this machine.
#[cfg(target_arch = "x86_64")]
const OBJECT: &[u8] = aya::include_bytes_aligned!("../../../profiler-ebpf/prebuilt/gpuspan-x86_64.bpf.o");
/// The compiled kernel side for this machine.
#[cfg(target_arch = "aarch64")]
const OBJECT: &[u8] = aya::include_bytes_aligned!("../../../profiler-ebpf/prebuilt/gpuspan-aarch64.bpf.o");

/// Why the kernel side could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The kernel refused the object.
    #[error("the kernel refused gpuspan's programs: run as root, or with CAP_BPF and CAP_PERFMON")]
    Load(#[source] Box<EbpfError>),
    /// A program could not be loaded or attached.
    #[error("failed to attach the hook `{hook}`")]
    Hook {
        /// Which.
        hook: &'static str,
        /// What aya or the kernel said.
        #[source]
        source: Box<ProgramError>,
    },
    /// The uprobe programs could not be loaded for multi links.
    #[error("failed to load the uprobe programs")]
    Multi(#[from] MultiError),
    /// The object lacks something it must have.
    #[error("the kernel object has no `{0}`: it does not belong to this build of gpuspan")]
    Incomplete(&'static str),
    /// A table of the kernel side could not be used.
    #[error("failed to use the kernel table `{0}`")]
    Table(&'static str, #[source] aya::maps::MapError),
    /// An object file that was asked for could not be read.
    #[error("failed to read the kernel object {0}")]
    Object(std::path::PathBuf, #[source] std::io::Error),
    /// Multi links were asked for and are not to be had.
    #[error("--links multi cannot be had here: leave it out, or use --links perf")]
    NoMulti(#[source] multi::Unsupported),
}

/// The loaded kernel side.
pub struct Kernel {
    /// Holds programs and links; dropping it removes every hook but the uprobes.
    ebpf: Ebpf,
    /// Set when uprobes go by multi links.
    multi: Option<MultiPrograms>,
    tables: Tables,
    ring: Option<RingBuf<MapData>>,
    /// Log lines of a debug build of the kernel side.
    log: Option<EbpfLogger<&'static dyn log::Log>>,
    hooks: Hooks,
    hints: Option<RingBuf<MapData>>,
    results: Results,
    adapters: Adapters,
    /// By target group.
    settings: Vec<Settings>,
    /// Processes whose threads publish what they work for, and their target groups.
    publishing: BTreeMap<u32, u8>,
    /// Where a task has its thread pointer is known.
    finds_threads: bool,
}

/// Entry program of the GPU probes.
pub(super) const ENTER: &str = "gpu_enter";
/// Return program of the GPU probes.
pub(super) const LEAVE: &str = "gpu_leave";
/// Entry program of the probes on TLS libraries.
pub(super) const TLS_ENTER: &str = "tls_enter";
/// Return program of the probes on TLS libraries.
pub(super) const TLS_LEAVE: &str = "tls_leave";
/// Entry program of the probes on model servers.
pub(super) const SERVER_ENTER: &str = "server_enter";
/// Return program of the probes on model servers.
pub(super) const SERVER_LEAVE: &str = "server_leave";
/// Loaded in any case.
const ALWAYS: [&str; 2] = [ENTER, LEAVE];
/// All of them.
const UPROBES: [&str; 6] = [ENTER, LEAVE, TLS_ENTER, TLS_LEAVE, SERVER_ENTER, SERVER_LEAVE];

impl Kernel {
    /// Loads the object, and attaches the socket and process hooks unless they are to wait.
    ///
    /// # Errors
    /// When privileges or kernel features lack; the message says which.
    pub fn load(settings: &KernelSettings) -> Result<Self, KernelError> {
        let own;
        let object = match &settings.object {
            None => OBJECT,
            Some(path) => {
                own = std::fs::read(path).map_err(|error| KernelError::Object(path.clone(), error))?;
                &own
            }
        };
        let wake_at = u64::from(settings.ring_bytes / 4);
        let [task_files, files_fdt, fdt_fd] = btf::files_layout().unwrap_or_default();
        let thread_pointer = btf::thread_pointer().unwrap_or_default();
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(map::EVENTS, settings.ring_bytes)
            .map_max_entries(map::TARGETS, targets::words())
            .override_global("WAKE_THRESHOLD", &wake_at, true)
            .override_global("TASK_FILES", &task_files, true)
            .override_global("FILES_FDT", &files_fdt, true)
            .override_global("FDT_FD", &fdt_fd, true)
            .override_global("THREAD_POINTER", &thread_pointer, true)
            .load(object)
            .map_err(|error| KernelError::Load(Box::new(error)))?;
        let multi = load_uprobes(&mut ebpf, object, settings.links)?;
        let mut hooks = Hooks::load(&mut ebpf, settings.raw_tracepoint)?;
        if !settings.hooks_wait {
            hooks.watch(&mut ebpf)?;
        }
        let tables = Tables::take(&mut ebpf)?;
        let ring = ring_of(&mut ebpf, map::EVENTS)?;
        let hints = ring_of(&mut ebpf, map::HINTS)?;
        // The built-in object has no log; a debug build's says so if it cannot be read.
        let log = settings.object.as_ref().and_then(|_| {
            let logger = EbpfLogger::init(&mut ebpf);
            logger.inspect_err(|error| tracing::warn!(%error, "the kernel side's log cannot be read")).ok()
        });
        let mut kernel = Self {
            ebpf,
            multi,
            tables,
            ring: Some(ring),
            log,
            hooks,
            hints: Some(hints),
            results: settings.results,
            adapters: settings.adapters,
            settings: vec![
                Settings { stack_every: settings.stack_every, ..Settings::default() };
                GROUPS as usize
            ],
            publishing: BTreeMap::new(),
            finds_threads: thread_pointer != 0,
        };
        for group in 0..=u8::MAX {
            kernel.set_detail(group, settings.detail)?;
        }
        kernel.set_layouts(probe::LAYOUTS)?;
        Ok(kernel)
    }

    /// Of which calls failures are reported.
    #[must_use]
    pub fn results(&self) -> Results {
        self.results
    }

    /// Whether servers are listened to inside.
    #[must_use]
    pub fn listens_inside(&self) -> bool {
        self.adapters == Adapters::Auto
    }

    /// Changes how much is sent of a target group, from the next call on.
    ///
    /// # Errors
    /// When the table cannot be changed.
    pub fn set_detail(&mut self, group: u8, level: Detail) -> Result<(), KernelError> {
        let Some(settings) = self.settings.get_mut(usize::from(group)) else { return Ok(()) };
        settings.generation += 1;
        settings.detail = match level {
            Detail::Events => detail::EVENTS,
            Detail::Aggregate => detail::AGGREGATE,
        };
        self.set_settings(group)
    }

    /// Says how opaque batches lie.
    fn set_layouts(&mut self, layouts: &[BatchLayout]) -> Result<(), KernelError> {
        for (number, layout) in (0u32..).zip(layouts) {
            let set = self.tables.layouts.set(number, LayoutPod(*layout), 0);
            set.map_err(|error| KernelError::Table(map::LAYOUTS, error))?;
        }
        Ok(())
    }

    /// Follows a ring that a process writes.
    pub fn follow_ring(&mut self, pid: u32, ring: Ring) {
        // Without room for it the ring is not followed: less is known, and nothing is wrong.
        let _ = self.tables.rings.insert(pid, RingPod(ring), 0);
    }

    /// Receives of a process that found nothing, so far.
    #[must_use]
    pub fn idle_receives(&self, pid: u32) -> u64 {
        self.tables.idle_receives.get(&pid, 0).unwrap_or(0)
    }

    /// How often the uprobe programs ran for a target group so far: at probes that the kernel emulates, at dear ones.
    #[must_use]
    pub fn runs(&self, group: u8) -> [u64; 2] {
        [false, true].map(|dear| {
            let values = self.tables.runs.get(&runs(group, dear), 0);
            values.map_or(0, |values| values.iter().sum())
        })
    }

    /// What has been counted in the kernel, summed over CPUs.
    #[must_use]
    pub fn counts(&self) -> Vec<(CountKey, Count)> {
        let entries = self.tables.counts.iter().flatten();
        let sum = |values: aya::maps::PerCpuValues<CountPod>| {
            let mut sum = Count::default();
            values.iter().for_each(|value| sum.add(&value.0));
            sum
        };
        entries.map(|(key, values)| (key.0, sum(values))).collect()
    }

    /// What each thread has sent, as counted in the kernel: process, thread, sums.
    #[must_use]
    pub fn threads(&self) -> Vec<(u32, u32, Burst)> {
        let entries = self.tables.threads.iter().flatten().filter(|(_, thread)| thread.0.last_ns != 0);
        let burst = |ThreadPod(thread): ThreadPod| Burst {
            first_ns: thread.first_ns,
            last_ns: thread.last_ns,
            launches: thread.launches,
            copies: thread.copies,
            copy_bytes: thread.copy_bytes,
        };
        entries.map(|(both, thread)| ((both >> 32) as u32, both as u32, burst(thread))).collect()
    }

    /// The ring, once.
    pub fn take_ring(&mut self) -> Option<RingBuf<MapData>> {
        self.ring.take()
    }

    /// The ring of the hints, once.
    pub fn take_hints(&mut self) -> Option<RingBuf<MapData>> {
        self.hints.take()
    }

    /// Name of the system call hook.
    #[must_use]
    pub fn socket_hook(&self) -> &'static str {
        self.hooks.socket()
    }

    /// Puts the socket and process hooks in place before the first target, or takes them out behind the last.
    ///
    /// # Errors
    /// When the kernel refuses one; none stands then.
    pub fn watch(&mut self, on: bool) -> Result<(), KernelError> {
        if on {
            return self.hooks.watch(&mut self.ebpf);
        }
        self.hooks.ignore();
        // A mark that stayed would make a target of whoever gets the number next.
        self.tables.targets.clear();
        Ok(())
    }

    /// Whether the socket and process hooks stand.
    #[must_use]
    pub fn is_watching(&self) -> bool {
        self.hooks.are_watching()
    }

    /// Puts the hints for discovery in place, or takes them out.
    ///
    /// # Errors
    /// When the kernel refuses one; none stands then.
    pub fn hint(&mut self, on: bool) -> Result<(), KernelError> {
        if on {
            return self.hooks.hint(&mut self.ebpf);
        }
        self.hooks.hush();
        Ok(())
    }

    /// Passes log lines of a debug build of the kernel side on.
    pub fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    /// Whether one link carries all probes of a library.
    #[must_use]
    pub fn multi(&self) -> Option<&MultiPrograms> {
        self.multi.as_ref()
    }

    /// The entry or return program, for perf links.
    ///
    /// # Errors
    /// When the object lacks it.
    pub fn uprobe(&mut self, name: &'static str) -> Result<&mut UProbe, KernelError> {
        let program: &mut UProbe = program(&mut self.ebpf, name)?;
        if program.fd().is_err() {
            program.load().map_err(|source| KernelError::Hook { hook: name, source: Box::new(source) })?;
        }
        Ok(program)
    }

    /// Makes a process a target of the socket and process hooks, or ends that.
    pub fn set_target(&mut self, pid: u32, on: bool) {
        self.tables.targets.set(pid, on);
    }

    /// Enters a connection that was found open. False when the kernel side has met the descriptor by itself.
    pub fn watch_open(&mut self, pid: u32, fd: u32, connection: u64) -> bool {
        let stream = StreamPod(Stream { descriptors: 1, ..Stream::EMPTY });
        const ONLY_NEW: u64 = 1;
        if self.tables.streams.insert(connection, stream, 0).is_err() {
            return false;
        }
        let descriptor = DescriptorPod(Descriptor { tgid: pid, fd });
        let entered = self.tables.descriptors.insert(descriptor, connection, ONLY_NEW).is_ok();
        if !entered {
            // The id was ours alone, so nobody misses it.
            let _ = self.tables.streams.remove(&connection);
        }
        entered
    }

    /// Says how much of a connection's payload is of use: see [`Wish::brief_while`].
    pub fn wish(&mut self, connection: u64, brief_while: u64) {
        let place = (connection & u64::from(WISHES - 1)) as u32;
        // A wish that could not be written costs payload that nobody needs, no more.
        let _ = self.tables.wishes.set(place, WishPod(Wish { connection, brief_while }), 0);
    }

    /// Forgets the descriptors of a process that is gone.
    pub fn forget_process(&mut self, pid: u32) {
        let of_process: Vec<_> =
            self.tables.descriptors.iter().flatten().filter(|(key, _)| key.0.tgid == pid).collect();
        for (key, connection) in of_process {
            let _ = self.tables.descriptors.remove(&key);
            let _ = self.tables.streams.remove(&connection);
        }
        let sessions: Vec<_> =
            self.tables.sessions.iter().flatten().filter(|(key, _)| key.0.tgid == u64::from(pid)).collect();
        for (key, SessionPod(session)) in sessions {
            let _ = self.tables.sessions.remove(&key);
            let _ = self.tables.streams.remove(&session.connection);
        }
        let counted: Vec<_> = self.tables.counts.keys().flatten().filter(|key| key.0.tgid == pid).collect();
        for key in counted {
            let _ = self.tables.counts.remove(&key);
        }
        // Most processes never captured.
        let _ = self.tables.capturing.remove(&pid);
        self.publishes_nothing(pid);
        let _ = self.tables.rings.remove(&pid);
        let _ = self.tables.idle_receives.remove(&pid);
    }

    /// Time in the uprobe programs, nanoseconds, and how often they ran; 0 unless the kernel keeps statistics.
    #[must_use]
    pub fn run_statistics(&self) -> (u64, u64) {
        let Some(programs) = &self.multi else { return (0, 0) };
        let each = UPROBES.into_iter().filter_map(|name| programs.loaded(name)?.statistics().ok());
        each.fold((0, 0), |(time, count), one| (time + one.run_time_ns, count + one.run_count))
    }

    /// The kernel side's own counters, summed over CPUs, by family.
    #[must_use]
    pub fn counters(&self) -> [Counters; family::COUNT as usize] {
        let mut sums = [Counters::default(); family::COUNT as usize];
        for (index, sum) in (0u32..).zip(&mut sums) {
            if let Ok(values) = self.tables.counters.get(&index, 0) {
                for value in values.iter() {
                    sum.add(&value.0);
                }
            }
        }
        sums
    }
}

/// Ids of connections that a target group found open: apart from all ids of the kernel side and of other groups.
#[must_use]
pub fn found_open_id(group: u8, number: u64) -> u64 {
    FOUND_OPEN | u64::from(group) << 48 | number
}

fn ring_of(ebpf: &mut Ebpf, name: &'static str) -> Result<RingBuf<MapData>, KernelError> {
    RingBuf::try_from(take(ebpf, name)?).map_err(|error| KernelError::Table(name, error))
}

pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<aya::maps::Map, KernelError> {
    ebpf.take_map(name).ok_or(KernelError::Incomplete(name))
}

pub(super) fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, KernelError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
{
    let program = ebpf.program_mut(name).ok_or(KernelError::Incomplete(name))?;
    program.try_into().map_err(|_| KernelError::Incomplete(name))
}

/// Loads the uprobe programs the way the links will want them.
fn load_uprobes(
    ebpf: &mut Ebpf,
    object: &[u8],
    kind: LinkKind,
) -> Result<Option<MultiPrograms>, KernelError> {
    let wants_multi = match (kind, multi::support()) {
        (LinkKind::Perf, _) => false,
        (LinkKind::Auto | LinkKind::Multi, Ok(())) => true,
        (LinkKind::Multi, Err(why)) => return Err(KernelError::NoMulti(why)),
        (LinkKind::Auto, Err(why)) => {
            tracing::info!(%why, "using one perf link a probe");
            false
        }
    };
    if wants_multi {
        return Ok(Some(MultiPrograms::load(object, ebpf, &UPROBES, &ALWAYS)?));
    }
    for name in ALWAYS {
        let program: &mut UProbe = program(ebpf, name)?;
        program.load().map_err(|source| KernelError::Hook { hook: name, source: Box::new(source) })?;
    }
    Ok(None)
}
