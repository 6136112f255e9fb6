//! Processes and their kin: `/proc/PID/{stat,status,cmdline,environ,exe}`.

use crate::server::VARIABLES;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;

/// Why a pid cannot be a target.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Nothing runs under this number.
    #[error("no process {0}: check the pid, and that it is the number of this pid namespace")]
    NoSuchProcess(u32),
    /// It may not be looked at.
    #[error("process {0} may not be inspected: run as root or with CAP_SYS_PTRACE")]
    NotPermitted(u32, #[source] io::Error),
    /// A thread, not a process.
    #[error("{tid} is a thread of process {tgid}: give --pid {tgid}")]
    Thread {
        /// What was asked for.
        tid: u32,
        /// Its process.
        tgid: u32,
    },
}

/// What a process is called, and what it calls itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Short name (`/proc/PID/comm`).
    pub comm: String,
    /// Path of the executable.
    pub executable: PathBuf,
    /// Command line, for recognising servers; never exported.
    pub command_line: Vec<String>,
    /// Start time, clock ticks since boot.
    pub start_ticks: u64,
    /// The environment's `OTEL_SERVICE_NAME`.
    pub service_name: Option<String>,
    /// The environment's `OTEL_RESOURCE_ATTRIBUTES`.
    pub resource_attributes: Option<String>,
    /// Id of the innermost container, when there is one.
    pub container_id: Option<String>,
    /// Of its environment, what tells whether it emits telemetry itself; never exported.
    pub telemetry: Vec<(&'static str, String)>,
}

impl Identity {
    /// One of the variables in `telemetry`.
    #[must_use]
    pub fn telemetry(&self, name: &str) -> Option<&str> {
        self.telemetry.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }
}

/// Checks that `pid` is a process that we may look into.
///
/// # Errors
/// See [`ProcessError`].
pub fn require(pid: u32) -> Result<(), ProcessError> {
    let tgid = status_number(pid, "Tgid:").ok_or(ProcessError::NoSuchProcess(pid))?;
    if tgid != pid {
        return Err(ProcessError::Thread { tid: pid, tgid });
    }
    match std::fs::read_link(format!("/proc/{pid}/exe")) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(ProcessError::NotPermitted(pid, error))
        }
        // A kernel thread or a zombie has no executable: it cannot be a model server.
        Err(_) => Err(ProcessError::NoSuchProcess(pid)),
        Ok(_) => Ok(()),
    }
}

/// Whether `id` numbers a process and not one of its further threads.
#[must_use]
pub fn is_process(id: u32) -> bool {
    status_number(id, "Tgid:") == Some(id)
}

/// Everything [`Identity`] has a field for; what cannot be read stays empty.
#[must_use]
pub fn identity(pid: u32) -> Identity {
    let strings = |file: &str| -> Vec<String> {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        bytes
            .split(|b| *b == 0)
            .filter(|s| !s.is_empty())
            .map(|s| String::from_utf8_lossy(s).into_owned())
            .collect()
    };
    let environment = strings("environ");
    let variable = |name: &str| {
        environment.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
    };
    Identity {
        comm: comm(pid),
        executable: executable(pid).unwrap_or_default(),
        command_line: strings("cmdline"),
        start_ticks: start_ticks(pid).unwrap_or(0),
        service_name: variable("OTEL_SERVICE_NAME"),
        resource_attributes: variable("OTEL_RESOURCE_ATTRIBUTES"),
        container_id: crate::place::container_id(pid),
        telemetry: VARIABLES.iter().filter_map(|name| Some((*name, variable(name)?))).collect(),
    }
}

/// Path of the executable, also of one that was replaced or removed since its start, which the kernel marks.
#[must_use]
pub fn executable(pid: u32) -> Option<PathBuf> {
    let path = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let unmarked = path.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    Some(unmarked.unwrap_or(path))
}

/// Start time in clock ticks since boot: field 22 of `/proc/PID/stat`. With the pid it names a process for good.
#[must_use]
pub fn start_ticks(pid: u32) -> Option<u64> {
    stat_field(pid, 22)
}

/// When a process began, by its start time in clock ticks since boot, as RFC 3339 has it in UTC.
#[must_use]
pub fn created(start_ticks: u64) -> Option<String> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let boot_s: u64 = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())?;
    // Field 22 of `stat` counts in USER_HZ, which is 100 on every architecture that Linux still runs CUDA on.
    rfc3339(boot_s + start_ticks / 100, start_ticks % 100 * 10)
}

fn rfc3339(unix_s: u64, millis: u64) -> Option<String> {
    let seconds = libc::time_t::try_from(unix_s).ok()?;
    // SAFETY: an all-zero tm is valid, and both pointers are to live values.
    let time = unsafe {
        let mut time = std::mem::zeroed::<libc::tm>();
        (!libc::gmtime_r(&raw const seconds, &raw mut time).is_null()).then_some(time)
    }?;
    let (year, month) = (time.tm_year + 1900, time.tm_mon + 1);
    let (hour, minute, second) = (time.tm_hour, time.tm_min, time.tm_sec);
    Some(format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z", time.tm_mday))
}

/// Short name of `pid`, which it may change; empty when it is gone.
#[must_use]
pub fn comm(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

/// Who started `pid`: field 4 of `/proc/PID/stat`.
#[must_use]
pub fn parent_of(pid: u32) -> Option<u32> {
    stat_field(pid, 4)?.try_into().ok()
}

/// The threads of `pid`.
#[must_use]
pub fn threads(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Direct children of `pid`.
#[must_use]
pub fn children_of(pid: u32) -> Vec<u32> {
    parents().into_iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| child).collect()
}

/// `root` and every process under it, `root` first.
#[must_use]
pub fn descendants(root: u32) -> Vec<u32> {
    let parents = parents();
    let mut found = vec![root];
    let mut seen = BTreeSet::from([root]);
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        let mut children: Vec<u32> = parents
            .iter()
            .filter(|(child, p)| **p == parent && seen.insert(**child))
            .map(|(c, _)| *c)
            .collect();
        children.sort_unstable();
        found.extend(children);
        next += 1;
    }
    found
}

/// Every process.
pub(super) fn pids() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Every process and its parent.
fn parents() -> HashMap<u32, u32> {
    let parent = |pid| u32::try_from(stat_field(pid, 4)?).ok();
    pids().into_iter().filter_map(|pid| Some((pid, parent(pid)?))).collect()
}

/// Field `number` (counted from 1, as proc(5) does) of `/proc/PID/stat`; the name in field 2 may hold anything.
fn stat_field(pid: u32, number: usize) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_whitespace().nth(number - 3)?.parse().ok()
}

fn status_number(pid: u32, key: &str) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_replaced_keeps_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("server");
        std::fs::copy("/bin/sleep", &program).unwrap();
        let mut child = std::process::Command::new(&program).arg("60").spawn().unwrap();
        std::fs::remove_file(&program).unwrap();
        let found = executable(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, Some(program));
    }

    #[test]
    fn we_are_a_process_and_our_thread_is_not() {
        let pid = std::process::id();
        require(pid).unwrap();
        let tid = std::thread::spawn(|| {
            // SAFETY: gettid has no preconditions.
            let tid = unsafe { libc::gettid() } as u32;
            assert!(
                matches!(require(tid), Err(ProcessError::Thread { tgid, .. }) if tgid == std::process::id())
            );
            tid
        });
        assert_ne!(tid.join().unwrap(), pid);
        assert!(is_process(pid));
        assert!(matches!(require(u32::MAX >> 1), Err(ProcessError::NoSuchProcess(_))));
    }

    #[test]
    fn times_are_written_as_rfc_3339() {
        assert_eq!(rfc3339(1_700_000_000, 70).as_deref(), Some("2023-11-14T22:13:20.070Z"));
        let own = created(start_ticks(std::process::id()).unwrap()).unwrap();
        assert!(own.starts_with("20") && own.ends_with('Z'), "{own}");
    }

    #[test]
    fn a_child_is_found_under_its_parent() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let family = descendants(std::process::id());
        assert_eq!(family.first(), Some(&std::process::id()));
        assert!(family.contains(&child.id()) && children_of(std::process::id()).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
