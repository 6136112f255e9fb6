//! The process table as discovery reads it: a trait, so that tests make one up, and procfs behind it.
//!
//! In: pids. Out: facts, in the order of what they cost: the size of a process (0.6 µs, read from a file that is held
//! open), its status (10 µs), its program, its mappings. Absent: any judgement.

use crate::probe::Layer;
use crate::target::{self, Address, gpu_layer};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

/// What is read of a command line. What follows does not tell which program it is.
const MOST_COMMAND: u64 = 16 << 10;
/// What is read of a process's list of mappings: 160,000 of them.
const MOST_MAPS: u64 = 16 << 20;
/// What is read of a file at first.
const FIRST_READ: usize = 4096;
/// Descriptors that are looked at for devices.
const MOST_DESCRIPTORS: usize = 1024;
/// Files that are held open at most, and which share of those that this program may open.
const MOST_HELD: u64 = 8192;
const SHARE_HELD: u64 = 4;

/// What is cheap to know of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Its short name.
    pub comm: String,
    /// Its parent.
    pub parent: u32,
    /// Its user.
    pub uid: u32,
    /// Executable mappings, kB: it changes when a library is loaded.
    pub code_kb: u64,
}

/// What a process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Start time, clock ticks since boot.
    pub start_ticks: u64,
    /// Path of the executable.
    pub executable: String,
    /// Command line.
    pub command_line: Vec<String>,
    /// Path of its cgroups.
    pub cgroup: String,
}

/// Where discovery reads. A process that is gone, or may not be looked at, has none of it.
pub trait Processes {
    /// Everything that is running, threads left out.
    fn pids(&mut self) -> Vec<u32>;
    /// Pages of its address space; 0 of a kernel thread and of one that has ended and not been waited for.
    fn pages(&mut self, pid: u32) -> Option<u64>;
    /// It will not be asked for again.
    fn forget(&mut self, pid: u32);
    /// What is cheap to know.
    fn status(&self, pid: u32) -> Option<Status>;
    /// Its command line.
    fn command_line(&self, pid: u32) -> Vec<String>;
    /// What it runs.
    fn program(&self, pid: u32) -> Option<Program>;
    /// What shows that it is made for a GPU or has one open.
    fn gpu(&self, pid: u32) -> Option<String>;
    /// Number of its descriptors, 0 where the kernel does not count them.
    fn descriptors(&self, pid: u32) -> u64;
    /// Sockets may have come since: tables of them are read anew.
    fn forget_sockets(&mut self);
    /// Its listening sockets: inode and address. Tables of sockets are read once between two `pids`.
    fn listens(&mut self, pid: u32) -> Vec<(u64, Address)>;
    /// Everything that is one server with `root`.
    fn group(&self, root: u32) -> BTreeSet<u32>;
    /// Processes that have an AMD GPU open.
    fn on_amd(&self) -> BTreeSet<u32>;
}

/// The machine's own processes.
pub struct Procfs {
    /// `statm` of processes that are known. Such a file stands for the process that it was opened for, not for a later
    /// one with its number.
    held: HashMap<u32, File>,
    most_held: usize,
    /// Listening sockets by network namespace.
    tables: HashMap<u64, HashMap<u64, Address>>,
}

impl Default for Procfs {
    fn default() -> Self {
        let most = open_files() / SHARE_HELD;
        Self {
            held: HashMap::new(),
            most_held: usize::try_from(most.min(MOST_HELD)).unwrap_or(0),
            tables: HashMap::new(),
        }
    }
}

impl Processes for Procfs {
    fn pids(&mut self) -> Vec<u32> {
        self.tables.clear();
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    fn pages(&mut self, pid: u32) -> Option<u64> {
        if let Some(file) = self.held.get(&pid) {
            return pages(file);
        }
        let file = File::open(format!("/proc/{pid}/statm")).ok()?;
        let pages = pages(&file);
        // Kernel threads never change.
        if self.held.len() < self.most_held && pages.is_some_and(|pages| pages > 0) {
            self.held.insert(pid, file);
        }
        pages
    }

    fn forget(&mut self, pid: u32) {
        self.held.remove(&pid);
    }

    fn status(&self, pid: u32) -> Option<Status> {
        let text = bounded(format!("/proc/{pid}/status"), MOST_COMMAND);
        parse_status(&String::from_utf8_lossy(&text))
    }

    fn command_line(&self, pid: u32) -> Vec<String> {
        let line = bounded(format!("/proc/{pid}/cmdline"), MOST_COMMAND);
        let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }

    fn program(&self, pid: u32) -> Option<Program> {
        Some(Program {
            start_ticks: target::start_ticks(pid)?,
            executable: target::executable(pid)?.to_string_lossy().into_owned(),
            command_line: self.command_line(pid),
            cgroup: cgroup(&bounded(format!("/proc/{pid}/cgroup"), MOST_COMMAND)),
        })
    }

    fn gpu(&self, pid: u32) -> Option<String> {
        let maps = bounded(format!("/proc/{pid}/maps"), MOST_MAPS);
        mapped(&maps).or_else(|| {
            let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            let mut links =
                entries.take(MOST_DESCRIPTORS).filter_map(|entry| std::fs::read_link(entry.path()).ok());
            links.find_map(|link| {
                link.to_str().filter(|path| is_device(path)).map(|path| format!("{path} is open"))
            })
        })
    }

    fn descriptors(&self, pid: u32) -> u64 {
        std::fs::metadata(format!("/proc/{pid}/fd")).map_or(0, |folder| folder.size())
    }

    fn forget_sockets(&mut self) {
        self.tables.clear();
    }

    fn listens(&mut self, pid: u32) -> Vec<(u64, Address)> {
        let inodes = target::socket_inodes(pid);
        if inodes.is_empty() {
            return Vec::new();
        }
        let Ok(namespace) = std::fs::metadata(format!("/proc/{pid}/ns/net")) else { return Vec::new() };
        let table = self.tables.entry(namespace.ino()).or_insert_with(|| target::listening(pid));
        // Forks share a socket, and a process may have it twice.
        let inodes: HashSet<u64> = inodes.into_iter().collect();
        inodes.into_iter().filter_map(|inode| Some((inode, table.get(&inode)?.clone()))).collect()
    }

    fn group(&self, root: u32) -> BTreeSet<u32> {
        let is_server = |identity: &target::Identity| {
            let executable = identity.executable.to_string_lossy();
            crate::server::known::is_server(&identity.comm, &executable, &identity.command_line)
        };
        target::group(root, &is_server).into_keys().collect()
    }

    fn on_amd(&self) -> BTreeSet<u32> {
        let entries = std::fs::read_dir("/sys/class/kfd/kfd/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }
}

/// How many files this program may open.
fn open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is as the call wants it.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if got == 0 { limit.rlim_cur } else { 0 }
}

/// The first number of `statm`.
fn pages(file: &File) -> Option<u64> {
    let mut text = [0; 128];
    let read = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(text.get(..read)?).ok()?.split(' ').next()?.parse().ok()
}

fn bounded(path: impl AsRef<Path>, most: u64) -> Vec<u8> {
    // Procfs does not say how long its files are, and reading a few bytes first costs a system call each.
    let mut bytes = Vec::with_capacity(FIRST_READ);
    // What was read before an error is as good as ever.
    let _ = File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
    bytes
}

fn parse_status(text: &str) -> Option<Status> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let number = |name: &str| field(name)?.split_whitespace().next()?.parse::<u64>().ok();
    Some(Status {
        comm: field("Name:\t")?.to_owned(),
        parent: u32::try_from(number("PPid:")?).ok()?,
        uid: u32::try_from(number("Uid:")?).ok()?,
        code_kb: number("VmExe:").unwrap_or(0) + number("VmLib:").unwrap_or(0),
    })
}

/// The path of the unified hierarchy, else of the first that has one: version 1 has the same in most.
fn cgroup(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let path = |line: &str| line.splitn(3, ':').nth(2).filter(|path| *path != "/").map(str::to_owned);
    let unified = text.lines().filter(|line| line.starts_with("0::")).find_map(path);
    unified.or_else(|| text.lines().find_map(path)).unwrap_or_default()
}

/// A runtime, a driver's library or a device in a process's list of mappings.
fn mapped(maps: &[u8]) -> Option<String> {
    // A driver's library tells more than a runtime, and what is open more than what is loaded.
    let find = |what: &str, is: &dyn Fn(&str, &str) -> bool| {
        let mut hits = memchr::memmem::find_iter(maps, what);
        hits.find_map(|at| {
            let start =
                maps.get(..at)?.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
            let rest = maps.get(start..)?;
            let line = rest.get(..memchr::memchr(b'\n', rest).unwrap_or(rest.len()))?;
            let line = String::from_utf8_lossy(line);
            let path = line.get(line.find('/')?..)?.trim_end_matches(" (deleted)");
            let name = path.rsplit('/').next().unwrap_or(path);
            is(path, name).then(|| format!("{} is mapped", if what == "/dev/" { path } else { name }))
        })
    };
    let of_layer = |layer| move |_: &str, name: &str| gpu_layer(name) == Some(layer);
    find("/dev/", &|path, _| is_device(path))
        .or_else(|| find("/libcuda", &of_layer(Layer::Driver)))
        .or_else(|| find("/libhsa-runtime64.so", &|_, _| true))
        .or_else(|| find("/libamdhip64.so", &|_, _| true))
        .or_else(|| find("/libcudart", &of_layer(Layer::Runtime)))
}

/// A device through which a GPU computes. What only shows pictures, or asks a driver how it is, opens others.
fn is_device(path: &str) -> bool {
    let number = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    path == "/dev/kfd" || path == "/dev/nvidia-uvm" || path.strip_prefix("/dev/nvidia").is_some_and(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn what_is_mapped_tells() {
        let line = |path: &str| format!("7f00-7f01 r-xp 00000000 fe:01 42          {path}\n");
        let maps =
            |paths: &[&str]| mapped(paths.iter().map(|path| line(path)).collect::<String>().as_bytes());
        assert_eq!(
            maps(&["/lib/libc.so.6", "/a/libcudart.so.12"]).as_deref(),
            Some("libcudart.so.12 is mapped")
        );
        assert_eq!(
            maps(&["/a/libcudart.so.12", "/b/libcuda.so.550.1 (deleted)"]).as_deref(),
            Some("libcuda.so.550.1 is mapped")
        );
        assert_eq!(maps(&["/b/libcuda.so.1", "/dev/nvidia3"]).as_deref(), Some("/dev/nvidia3 is mapped"));
        assert_eq!(maps(&["/opt/rocm/lib/libamdhip64.so.6"]).as_deref(), Some("libamdhip64.so.6 is mapped"));
        assert_eq!(
            maps(&["/dev/nvidiactl", "/libcudadebugger.so.1", "/a/libcuda/x", "/dev/shm/libcudart"]),
            None
        );
        assert_eq!(mapped(b"/dev/kfd"), Some("/dev/kfd is mapped".to_owned()));
        assert_eq!(mapped(b""), None);
    }

    #[test]
    fn the_unified_hierarchy_comes_first() {
        assert_eq!(cgroup(b"0::/system.slice/x.service\n"), "/system.slice/x.service");
        assert_eq!(cgroup(b"12:pids:/kubepods/pod1/c\n0::/\n"), "/kubepods/pod1/c");
        assert_eq!((cgroup(b"0::/\n"), cgroup(b"nonsense")), (String::new(), String::new()));
    }

    #[test]
    fn a_held_file_stands_for_one_process_only() {
        let mut table = Procfs::default();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        assert!(table.pids().contains(&pid) && table.pages(pid) > Some(0));
        assert_eq!(table.status(pid).unwrap().parent, std::process::id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(table.pages(pid), None);
        table.forget(pid);
        assert!(table.pages(pid).is_none() && table.status(pid).is_none() && table.program(pid).is_none());
    }

    #[test]
    fn listening_sockets_are_told_with_their_addresses() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap().port());
        let mut table = Procfs::default();
        let found = table.listens(std::process::id());
        assert!(found.iter().any(|(_, listens)| *listens == address), "{found:?}");
    }
}
