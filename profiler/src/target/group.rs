//! Which processes are one server: a process and its descendants, and model server processes that run in the same
//! container, or share memory or unix sockets with them.
//!
//! In: a pid. Out: pids with how each came in. A server's API process, its engine and its workers may have been started
//! side by side. What merely shares a socket or memory with a server, a logger, a monitor, a client, is not one.

use super::peers::unix_peers;
use super::process::{Identity, descendants, identity, pids};
use crate::place::container_id;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt as _;

/// How a process came into the group. The value of `role` in the summary.
pub mod role {
    /// It was asked for.
    pub const ROOT: &str = "root";
    /// It descends from another member.
    pub const CHILD: &str = "child";
    /// It runs in the same container.
    pub const CONTAINER: &str = "container";
    /// It has mapped the same shared memory.
    pub const SHARED_MEMORY: &str = "shared_memory";
    /// It is at the other end of a unix socket.
    pub const SOCKET: &str = "socket";
}

/// The group of `root`: pid → role. `is_server` tells model server processes.
#[must_use]
pub fn group(root: u32, is_server: &dyn Fn(&Identity) -> bool) -> BTreeMap<u32, &'static str> {
    let is_server = |pid: &u32| is_server(&identity(*pid));
    let mut group: BTreeMap<u32, &'static str> = BTreeMap::new();
    let mut new: Vec<(u32, &'static str)> = vec![(root, role::ROOT)];
    new.extend(of_container(root, &is_server).into_iter().map(|pid| (pid, role::CONTAINER)));
    while let Some((pid, role)) = new.pop() {
        if group.contains_key(&pid) {
            continue;
        }
        for member in descendants(pid) {
            let role = if member == pid { role } else { role::CHILD };
            group.entry(member).or_insert(role);
        }
        if new.is_empty() {
            new = kin(&group, &is_server);
        }
    }
    group.insert(root, role::ROOT);
    group
}

/// The other processes of a container.
fn of_container(root: u32, is_server: &dyn Fn(&u32) -> bool) -> Vec<u32> {
    let Some(container) = container_id(root) else { return Vec::new() };
    let beside = |pid: &u32| *pid != root && container_id(*pid).as_ref() == Some(&container);
    pids().into_iter().filter(|pid| beside(pid) && is_server(pid)).collect()
}

/// Model server processes outside the group that share memory or a unix socket with it.
fn kin(group: &BTreeMap<u32, &'static str>, is_server: &dyn Fn(&u32) -> bool) -> Vec<(u32, &'static str)> {
    let servers: Vec<u32> =
        pids().into_iter().filter(|pid| !group.contains_key(pid) && is_server(pid)).collect();
    if servers.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    let shared: BTreeSet<(u64, u64)> = group.keys().flat_map(|pid| shared_files(*pid)).collect();
    let of_group: BTreeSet<u64> = group.keys().flat_map(|pid| sockets(*pid)).collect();
    let peers: HashMap<u64, u64> = if of_group.is_empty() { HashMap::new() } else { unix_peers() };
    for pid in servers {
        if shared_files(pid).iter().any(|file| shared.contains(file)) {
            found.push((pid, role::SHARED_MEMORY));
        } else if sockets(pid).iter().filter_map(|inode| peers.get(inode)).any(|peer| of_group.contains(peer))
        {
            found.push((pid, role::SOCKET));
        }
    }
    found
}

/// Files of shared memory that a process has mapped: device and inode.
fn shared_files(pid: u32) -> Vec<(u64, u64)> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let shared = maps.lines().filter(|line| line.contains(" /dev/shm/"));
    shared.filter_map(file).collect()
}

/// Device and inode of a line of `maps` (proc(5)); device as the kernel numbers it.
fn file(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split(' ').skip(3);
    let (major, minor) = fields.next()?.split_once(':')?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    Some((hex(major)? << 32 | hex(minor)?, fields.next()?.parse().ok()?))
}

/// Inodes of a process's sockets.
fn sockets(pid: u32) -> Vec<u64> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let is_socket = |metadata: &std::fs::Metadata| metadata.mode() & libc::S_IFMT == libc::S_IFSOCK;
    entries
        .filter_map(|entry| std::fs::metadata(entry.path()).ok())
        .filter(is_socket)
        .map(|metadata| metadata.ino())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    /// A process that calls itself a server.
    fn server(name: &str, script: &str) -> Child {
        let mut command = Command::new("python3");
        command.args(["-c", &format!("import ctypes; ctypes.CDLL(None).prctl(15, b'{name}'); {script}")]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }

    fn wait_for(child: &mut Child) {
        use std::io::BufRead as _;
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
    }

    #[test]
    fn who_shares_memory_or_a_socket_with_a_server_is_one_with_it() {
        let name = format!("gpuspan-group-{}", std::process::id());
        let (memory, socket) = (format!("/dev/shm/{name}"), format!("/tmp/{name}.sock"));
        let map = format!(
            "import mmap, os; f = open('{memory}', 'a+b'); f.truncate(4096); m = mmap.mmap(f.fileno(), 4096)"
        );
        let say = "print('ready', flush=True); input()";
        let listen =
            format!("import socket; s = socket.socket(socket.AF_UNIX); s.bind('{socket}'); s.listen()");
        let mut engine = server("VLLM::EngineCore", &format!("{map}; {listen}; {say}"));
        wait_for(&mut engine);
        let mut worker = server("VLLM::Worker", &format!("{map}; {say}"));
        let connect =
            format!("import socket; s = socket.socket(socket.AF_UNIX); s.connect('{socket}'); {say}");
        let mut front = server("VLLM::APIServer", &connect);
        let mut client = server("monitor", &connect);
        for child in [&mut worker, &mut front, &mut client] {
            wait_for(child);
        }
        // What connects is a peer once it is accepted, or waits to be.
        let group = group(engine.id(), &|identity| identity.comm.starts_with("VLLM::"));
        let roles = [&engine, &worker, &front, &client].map(|child| group.get(&child.id()).copied());
        for child in [&mut engine, &mut worker, &mut front, &mut client] {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
        std::fs::remove_file(memory).unwrap();
        std::fs::remove_file(socket).unwrap();
        assert_eq!(roles[..2], [Some(role::ROOT), Some(role::SHARED_MEMORY)]);
        assert!(roles[2].is_none() || roles[2] == Some(role::SOCKET), "{roles:?}");
        assert_eq!(roles[3], None, "a client is no server");
    }

    #[test]
    fn a_line_of_maps_names_its_file() {
        let line = "7f00-7f01 rw-s 00000000 00:1a 4711                       /dev/shm/psm_1";
        assert_eq!(file(line), Some((0x1a, 4711)));
        assert_eq!(file("7f00-7f01 rw-p"), None);
    }
}
