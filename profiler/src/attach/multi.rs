//! uprobe_multi links: any number of probes in one library, attached and detached as one.
//!
//! In come the kernel side's object, loaded by aya, and a list of places; out comes a link whose drop detaches.
//! aya 0.14 cannot make such links: a program for them must be loaded with an attach type that aya does not set.
//! So aya makes the maps, its object parser (aya-obj) relocates a second parse of the same object against them,
//! and two raw `bpf` system calls do the rest. Kernels without such links are served elsewhere, by aya's uprobes.

use std::{
    collections::HashSet,
    ffi::{CString, NulError},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use aya::{Ebpf, maps::Map};
use aya_obj::{
    Object, ParseError,
    generated::{
        bpf_attach_type::BPF_TRACE_UPROBE_MULTI, bpf_attr, bpf_cmd, bpf_insn, bpf_prog_info,
        bpf_prog_type::BPF_PROG_TYPE_KPROBE,
    },
    relocation::EbpfRelocationError,
};
use thiserror::Error;

/// `BPF_F_UPROBE_MULTI_RETURN` (include/uapi/linux/bpf.h).
const RETURN_FLAG: u32 = 1;

/// The verifier's messages of a program that it refuses; the end of them matters.
const LOG_BYTES: usize = 1 << 20;

/// `BPF_PROG_LOAD` gives up with `EAGAIN` when a signal arrives while the verifier works.
const LOAD_ATTEMPTS: usize = 5;

/// Why programs could not be loaded or attached.
#[derive(Debug, Error)]
pub enum MultiError {
    /// The object is not one that aya can read.
    #[error("failed to parse the kernel side's object")]
    Parse(#[source] ParseError),
    /// A map of the object is not in the `Ebpf` it should come from.
    #[error("the kernel side's map `{0}` was not made by aya, or was taken before its programs were loaded")]
    NoMap(String),
    /// The object refers to something that it does not have.
    #[error("failed to relocate the kernel side's object")]
    Relocate(#[source] EbpfRelocationError),
    /// There is no such program in the object.
    #[error("the kernel side's object has no program `{0}`")]
    NoProgram(String),
    /// The kernel refused a program.
    #[error("failed to load program `{program}` for uprobe_multi links; the verifier says: {log}")]
    Load {
        /// Its name.
        program: String,
        /// The verifier's messages, or what stands for them.
        log: String,
        /// What the system call returned.
        source: io::Error,
    },
    /// A path contains a zero byte.
    #[error("`{}` cannot be a path", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Where the zero byte stands.
        source: NulError,
    },
    /// The kernel refused a link.
    #[error("failed to attach `{program}` at {count} places in {} (pid {pid})", path.display())]
    Attach {
        /// Name of the program.
        program: String,
        /// The library.
        path: PathBuf,
        /// How many places were asked for.
        count: usize,
        /// The process.
        pid: u32,
        /// What the system call returned.
        source: io::Error,
    },
    /// The kernel refused to tell a program's statistics.
    #[error("failed to read the statistics of program `{program}`")]
    Statistics {
        /// Name of the program.
        program: String,
        /// What the system call returned.
        source: io::Error,
    },
}

/// Why uprobe_multi links cannot be used here.
#[derive(Debug, Error)]
pub enum Unsupported {
    /// Before Linux 6.6.
    #[error("the kernel has no uprobe_multi links (they came with Linux 6.6)")]
    NoLinks,
    /// Linux 6.6 to 6.9, unless the fix was taken over.
    #[error("the kernel's uprobe_multi links filter by thread instead of process (fixed in Linux 6.10)")]
    ThreadFilter,
    /// The question itself failed, as without `CAP_BPF`.
    #[error("failed to ask the kernel for uprobe_multi links")]
    Unknown(#[source] io::Error),
}

/// Asks the kernel whether uprobe_multi links exist and are scoped to processes.
///
/// As libbpf does (`probe_uprobe_multi_link`, tools/lib/bpf/features.c): a link to `/`, which is no file, must fail
/// with `EBADF`; the same with pid -1 must fail with `EINVAL`, since only the kernels whose pid filter was fixed
/// (commit "bpf: Fix multi-uprobe PID filtering logic") look at the pid first.
///
/// # Errors
///
/// What is missing.
pub fn support() -> Result<(), Unsupported> {
    let program = empty("support").map_err(|error| {
        if error.raw_os_error() == Some(libc::EINVAL) {
            Unsupported::NoLinks
        } else {
            Unsupported::Unknown(error)
        }
    })?;
    let errno = |pid| {
        let link = create_link(&program, c"/", &[0], &[0], pid, 0);
        link.err().and_then(|error| error.raw_os_error())
    };
    if errno(0) != Some(libc::EBADF) {
        return Err(Unsupported::NoLinks);
    }
    if errno(u32::MAX) == Some(libc::EINVAL) { Ok(()) } else { Err(Unsupported::ThreadFilter) }
}

/// Loads a program that does nothing.
fn empty(name: &str) -> io::Result<OwnedFd> {
    // SAFETY: all-zero is the instruction's valid empty form.
    let mut program = unsafe { std::mem::zeroed::<[bpf_insn; 2]>() };
    let [clear, exit] = &mut program;
    // r0 = 0; exit
    (clear.code, exit.code) = (0xb7, 0x95);
    load_program(name, &program, c"GPL", None)
}

/// A program that was loaded for uprobe_multi links.
#[derive(Debug)]
pub struct MultiProgram {
    name: String,
    fd: OwnedFd,
}

/// What a program has cost so far. Zero unless the kernel's statistics are on (`aya::sys::enable_stats`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunStatistics {
    /// Time spent in it, nanoseconds.
    pub run_time_ns: u64,
    /// How often it ran.
    pub run_count: u64,
    /// How often it did not run because it was running already on that CPU.
    pub recursion_misses: u64,
}

impl MultiProgram {
    /// What the program has cost so far.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to tell.
    pub fn statistics(&self) -> Result<RunStatistics, MultiError> {
        // SAFETY: all-zero is a valid value of this plain structure.
        let mut info = unsafe { std::mem::zeroed::<bpf_prog_info>() };
        // SAFETY: likewise.
        let mut attr = unsafe { std::mem::zeroed::<bpf_attr>() };
        attr.info.bpf_fd = self.fd.as_raw_fd().cast_unsigned();
        attr.info.info_len = size_of::<bpf_prog_info>() as u32;
        attr.info.info = (&raw mut info) as u64;
        // SAFETY: the kernel writes at most `info_len` bytes to `info`, which outlives the call.
        let told = unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) };
        told.map_err(|source| MultiError::Statistics { program: self.name.clone(), source })?;
        Ok(RunStatistics {
            run_time_ns: info.run_time_ns,
            run_count: info.run_cnt,
            recursion_misses: info.recursion_misses,
        })
    }

    /// A program that does nothing, to measure what a probe costs by itself.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it.
    pub fn empty() -> Result<Self, MultiError> {
        let name = "empty".to_owned();
        match empty(&name) {
            Ok(fd) => Ok(Self { name, fd }),
            Err(source) => Err(MultiError::Load { program: name, log: "nothing".to_owned(), source }),
        }
    }

    pub(super) fn load(object: &Object, name: &str) -> Result<Self, MultiError> {
        let unknown = || MultiError::NoProgram(name.to_owned());
        let program = object.programs.get(name).ok_or_else(unknown)?;
        let function = object.functions.get(&program.function_key()).ok_or_else(unknown)?;
        let (instructions, license) = (&function.instructions, &object.license);
        // Without a log first: with one, a good program can fail because its log does not fit.
        let fd = load_program(name, instructions, license, None).or_else(|source| {
            let mut log = vec![0; LOG_BYTES];
            let again = load_program(name, instructions, license, Some(&mut log));
            again.map_err(|_| MultiError::Load { program: name.to_owned(), log: readable(&log), source })
        })?;
        Ok(Self { name: name.to_owned(), fd })
    }
}

/// A place in a file, and the word that its probe hands to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Offset into the file, bytes.
    pub offset: u64,
    /// What `bpf_get_attach_cookie` returns there.
    pub cookie: u64,
}

/// When a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Before the instruction at the place.
    Entry,
    /// When the function that was entered there returns.
    Return,
}

/// Probes at any number of places in one file, for one process. Dropping it detaches them all.
#[derive(Debug)]
pub struct Link {
    _fd: OwnedFd,
}

impl Link {
    /// Attaches `program` at all `points` of the file at `path`, in process `pid`.
    ///
    /// The path is resolved once; `/proc/PID/root/…` and `/proc/PID/map_files/…` are fine. The kernel checks that
    /// the process exists and that the file is a regular one, not that the process maps it. For calls that are probed
    /// on both sides attach the entry first, so that no return finds its entry missing.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the link: `ENOENT` without such a file, `EBADF` when it is no regular one, `ESRCH`
    /// without such a process. Nothing is attached then.
    pub fn attach(
        program: &MultiProgram,
        path: &Path,
        points: &[Point],
        pid: u32,
        side: Side,
    ) -> Result<Self, MultiError> {
        let file = CString::new(path.as_os_str().as_bytes())
            .map_err(|source| MultiError::Path { path: path.to_owned(), source })?;
        let (offsets, cookies): (Vec<_>, Vec<_>) = points.iter().map(|at| (at.offset, at.cookie)).unzip();
        let flags = if side == Side::Return { RETURN_FLAG } else { 0 };
        let fd = create_link(&program.fd, &file, &offsets, &cookies, pid, flags).map_err(|source| {
            MultiError::Attach {
                program: program.name.clone(),
                path: path.to_owned(),
                count: points.len(),
                pid,
                source,
            }
        })?;
        Ok(Self { _fd: fd })
    }
}

/// A parse of the object whose programs refer to the maps of `ebpf`.
pub(super) fn relocated(bytes: &[u8], ebpf: &Ebpf) -> Result<Object, MultiError> {
    let mut object = Object::parse(bytes).map_err(MultiError::Parse)?;
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let maps = std::mem::take(&mut object.maps);
    let made = |name: &String| ebpf.map(name).and_then(map_fd).ok_or_else(|| MultiError::NoMap(name.clone()));
    let pairs = maps
        .iter()
        .map(|(name, map)| Ok((name.as_str(), made(name)?, map)))
        .collect::<Result<Vec<_>, MultiError>>()?;
    object.relocate_maps(pairs.into_iter(), &text).map_err(MultiError::Relocate)?;
    object.relocate_calls(&text).map_err(MultiError::Relocate)?;
    Ok(object)
}

/// The descriptor of a map of a kind that the kernel side may use.
fn map_fd(map: &Map) -> Option<RawFd> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::PerCpuLruHashMap(data)
        | Map::RingBuf(data)
        | Map::StackTraceMap(data) => Some(data.fd().as_fd().as_raw_fd()),
        _ => None,
    }
}

/// Loads a program for uprobe_multi links, with the verifier's messages when there is a buffer for them.
fn load_program(
    name: &str,
    instructions: &[bpf_insn],
    license: &std::ffi::CStr,
    mut log: Option<&mut Vec<u8>>,
) -> io::Result<OwnedFd> {
    // SAFETY: all-zero is a valid value of this union of plain structures.
    let mut attr = unsafe { std::mem::zeroed::<bpf_attr>() };
    // SAFETY: the union's fields are plain integers; this is the one that the command reads.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = BPF_PROG_TYPE_KPROBE as u32;
    load.expected_attach_type = BPF_TRACE_UPROBE_MULTI as u32;
    load.insns = instructions.as_ptr() as u64;
    load.insn_cnt = instructions.len() as u32;
    load.license = license.as_ptr() as u64;
    // The name is cut so that the last byte stays 0.
    let room = load.prog_name.len() - 1;
    for (to, from) in load.prog_name.iter_mut().take(room).zip(name.bytes()) {
        *to = from as _;
    }
    if let Some(log) = &mut log {
        load.log_level = 1;
        load.log_buf = log.as_mut_ptr() as u64;
        load.log_size = log.len() as u32;
    }
    let mut attempt = || {
        // SAFETY: the pointers in `attr` point to slices that outlive the call, with their true lengths.
        unsafe { bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr) }
    };
    let interrupted = |tried: &io::Result<OwnedFd>| {
        tried.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EAGAIN))
    };
    let mut tried = attempt();
    for _ in 1..LOAD_ATTEMPTS {
        if !interrupted(&tried) {
            break;
        }
        tried = attempt();
    }
    tried
}

fn create_link(
    program: &OwnedFd,
    path: &std::ffi::CStr,
    offsets: &[u64],
    cookies: &[u64],
    pid: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    debug_assert_eq!(offsets.len(), cookies.len(), "the kernel reads as many cookies as offsets");
    // SAFETY: all-zero is a valid value of this union of plain structures.
    let mut attr = unsafe { std::mem::zeroed::<bpf_attr>() };
    // SAFETY: the union's fields are plain integers; this is the one that the command reads.
    let link = unsafe { &mut attr.link_create };
    link.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    link.attach_type = BPF_TRACE_UPROBE_MULTI as u32;
    // SAFETY: as above; the attach type selects this field.
    let multi = unsafe { &mut link.__bindgen_anon_3.uprobe_multi };
    multi.path = path.as_ptr() as u64;
    multi.offsets = offsets.as_ptr() as u64;
    multi.cookies = cookies.as_ptr() as u64;
    multi.cnt = offsets.len() as u32;
    multi.flags = flags;
    multi.pid = pid;
    // SAFETY: the pointers in `attr` point to memory that outlives the call, with its true lengths.
    unsafe { bpf_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr) }
}

/// A `bpf` command that returns a new descriptor.
///
/// # Safety
///
/// As for [`bpf`].
unsafe fn bpf_fd(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the caller vouches for `attr`; a non-negative result of these commands is a descriptor of ours.
    unsafe { bpf(command, attr).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// The `bpf` system call.
///
/// # Safety
///
/// Every pointer that `command` reads from `attr` must be valid for the length given there.
unsafe fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<RawFd> {
    // SAFETY: `attr` is as large as said; the caller vouches for what it points to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

/// The end of the verifier's messages, which says what was wrong.
fn readable(log: &[u8]) -> String {
    const LINES: usize = 12;
    let text = log.split(|byte| *byte == 0).next().map(String::from_utf8_lossy).unwrap_or_default();
    let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return "nothing".to_owned();
    }
    lines.get(lines.len().saturating_sub(LINES)..).unwrap_or(&lines).join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_long_log_is_kept_and_zeroes_are_not() {
        let mut log = (1..=20).map(|n| format!("line {n}\n")).collect::<String>().into_bytes();
        log.resize(1024, 0);
        let text = readable(&log);
        assert!(text.starts_with("line 9; line 10"), "{text}");
        assert!(text.ends_with("line 20"), "{text}");
        assert_eq!(readable(&[0; 8]), "nothing");
    }
}
