//! Sockets that a process already has when we arrive: `/proc/PID/fd` and `/proc/PID/net/*`.

use std::collections::{HashMap, HashSet};
use std::io;

/// A connected stream socket found open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSocket {
    /// Its descriptor in the process.
    pub fd: u32,
    /// Inode of the socket: equal inodes are the same connection.
    pub inode: u64,
    /// Local port; 0 for unix sockets.
    pub local_port: u16,
}

/// Connections of `pid` that its listening sockets accepted: connected sockets whose local port (or unix path) is
/// one that a socket of the same network namespace listens on. Outgoing connections are left out.
///
/// # Errors
/// When the process is gone or may not be looked at.
pub fn open_connections(pid: u32) -> io::Result<Vec<OpenSocket>> {
    let table = Table::read(pid);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let Ok(entry) = entry else { continue };
        let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Some(inode) = socket_inode(pid, fd) else { continue };
        if let Some(local_port) = table.accepted.get(&inode) {
            found.push(OpenSocket { fd, inode, local_port: *local_port });
        }
    }
    Ok(found)
}

/// The descriptors of `pid` that listen, and their TCP ports.
#[must_use]
pub fn listeners(pid: u32) -> Vec<(u32, u16)> {
    let table = Table::read(pid);
    let sockets = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    sockets
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|fd| Some((fd, *table.listening.get(&socket_inode(pid, fd)?)?)))
        .collect()
}

/// The TCP port that descriptor `fd` of `pid` listens on.
#[must_use]
pub fn listener_port(pid: u32, fd: u32) -> Option<u16> {
    Table::read(pid).listening.get(&socket_inode(pid, fd)?).copied()
}

fn socket_inode(pid: u32, fd: u32) -> Option<u64> {
    let link = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The socket tables of a network namespace, by inode.
#[derive(Default)]
struct Table {
    listening: HashMap<u64, u16>,
    accepted: HashMap<u64, u16>,
}

/// TCP states of `/proc/net/tcp` (include/net/tcp_states.h).
const ESTABLISHED: &str = "01";
const CLOSE_WAIT: &str = "08";
const LISTEN: &str = "0A";

impl Table {
    fn read(pid: u32) -> Self {
        let mut table = Self::default();
        let mut connected = Vec::new();
        for family in ["tcp", "tcp6"] {
            let text = std::fs::read_to_string(format!("/proc/{pid}/net/{family}")).unwrap_or_default();
            for (state, port, inode) in text.lines().skip(1).filter_map(parse_tcp) {
                match state {
                    LISTEN => drop(table.listening.insert(inode, port)),
                    ESTABLISHED | CLOSE_WAIT => connected.push((inode, port)),
                    _ => {}
                }
            }
        }
        let ports: HashSet<u16> = table.listening.values().copied().collect();
        table.accepted.extend(connected.into_iter().filter(|(_, port)| ports.contains(port)));
        table.add_unix(&std::fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap_or_default());
        table
    }

    /// An accepted unix socket carries its listener's path; an unnamed one is the connecting side.
    fn add_unix(&mut self, text: &str) {
        const STREAM: &str = "0001";
        const CONNECTED: &str = "03";
        for line in text.lines().skip(1) {
            let mut fields = line.split_whitespace().skip(4);
            let (kind, state, inode, path) = (fields.next(), fields.next(), fields.next(), fields.next());
            let Some(inode) = inode.and_then(|i| i.parse().ok()) else { continue };
            if kind == Some(STREAM) && state == Some(CONNECTED) && path.is_some() {
                self.accepted.insert(inode, 0);
            }
        }
    }
}

/// State, local port and inode of a line of `/proc/net/tcp`.
fn parse_tcp(line: &str) -> Option<(&str, u16, u64)> {
    let mut fields = line.split_whitespace().skip(1);
    let (_, port) = fields.next()?.rsplit_once(':')?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?;
    Some((state, u16::from_str_radix(port, 16).ok()?, inode.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;

    #[test]
    fn accepted_connections_are_found_and_outgoing_ones_left_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (server, _) = listener.accept().unwrap();
        let pid = std::process::id();
        let found = open_connections(pid).unwrap();
        let by_fd = |fd: i32| found.iter().find(|s| s.fd == fd as u32);
        assert_eq!(by_fd(server.as_raw_fd()).unwrap().local_port, port);
        assert_eq!(by_fd(client.as_raw_fd()), None);
        assert_eq!(by_fd(listener.as_raw_fd()), None);
        let fd = listener.as_raw_fd() as u32;
        assert_eq!(listener_port(pid, fd), Some(port));
        assert!(listeners(pid).contains(&(fd, port)));
    }

    #[test]
    fn an_accepted_unix_connection_is_found() {
        let path = std::env::temp_dir().join(format!("gpuspan-unix-{}", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let (server, _) = listener.accept().unwrap();
        let found = open_connections(std::process::id()).unwrap();
        assert!(found.iter().any(|s| s.fd == server.as_raw_fd() as u32));
        assert!(!found.iter().any(|s| s.fd == client.as_raw_fd() as u32));
        std::fs::remove_file(path).unwrap();
    }
}
