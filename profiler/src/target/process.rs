//! Processes and their kin: `/proc/PID/{stat,status,cmdline,environ,exe}`.

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
    /// Container id from the cgroup path, when there is one.
    pub container_id: Option<String>,
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
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    Identity {
        comm: std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned(),
        executable: std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default(),
        command_line: strings("cmdline"),
        start_ticks: start_ticks(pid).unwrap_or(0),
        service_name: variable("OTEL_SERVICE_NAME"),
        resource_attributes: variable("OTEL_RESOURCE_ATTRIBUTES"),
        container_id: container_id(&cgroup),
    }
}

/// Start time in clock ticks since boot: field 22 of `/proc/PID/stat`. With the pid it names a process for good.
#[must_use]
pub fn start_ticks(pid: u32) -> Option<u64> {
    stat_field(pid, 22)
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

/// Every process and its parent.
fn parents() -> HashMap<u32, u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return HashMap::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| Some((pid, u32::try_from(stat_field(pid, 4)?).ok()?)))
        .collect()
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

/// The 64 hex digits that containerd, CRI-O and Docker put into a cgroup's name.
fn container_id(cgroup: &str) -> Option<String> {
    cgroup
        .split(['/', '\n', '-', '.', ':'])
        .find(|part| part.len() == 64 && part.bytes().all(|b| b.is_ascii_hexdigit()))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_child_is_found_under_its_parent() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let family = descendants(std::process::id());
        assert_eq!(family.first(), Some(&std::process::id()));
        assert!(family.contains(&child.id()) && children_of(std::process::id()).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn container_ids_are_found_in_all_cgroup_layouts() {
        let id = "0123456789abcdef".repeat(4);
        for cgroup in [
            format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope\n"),
            format!("12:pids:/docker/{id}\n"),
            format!("0::/system.slice/docker-{id}.scope"),
            format!("0::/kubepods/besteffort/pod7/{id}"),
        ] {
            assert_eq!(container_id(&cgroup).as_deref(), Some(id.as_str()), "{cgroup}");
        }
        assert_eq!(container_id("0::/user.slice/session-1.scope"), None);
    }
}
