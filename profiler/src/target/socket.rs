//! Where a process listens, and the connections it already has when we arrive: `/proc/PID/fd` and `/proc/PID/net/*`.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read as _};
use std::sync::Arc;

/// How much of a table of sockets is read where only those that listen are asked for: 7,000 connections.
const MOST_READ: u64 = 1 << 20;
/// How many descriptors of a process are looked at there. Servers open their listening sockets early.
const MOST_DESCRIPTORS: usize = 4096;

/// What a stream socket listens on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", from = "String")]
pub enum Address {
    /// TCP port.
    Tcp(u16),
    /// Path of a unix socket as its server gave it; an abstract name begins with `@`.
    Unix(Arc<str>),
}

/// As a recording has it: `tcp:PORT` or `unix:PATH`.
impl From<Address> for String {
    fn from(address: Address) -> Self {
        match address {
            Address::Tcp(port) => format!("tcp:{port}"),
            Address::Unix(path) => format!("unix:{path}"),
        }
    }
}

impl From<String> for Address {
    fn from(text: String) -> Self {
        let port = text.strip_prefix("tcp:").and_then(|port| port.parse().ok());
        port.map_or_else(|| Self::Unix(text.strip_prefix("unix:").unwrap_or(&text).into()), Self::Tcp)
    }
}

/// A connected stream socket found open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSocket {
    /// Its descriptor in the process.
    pub fd: u32,
    /// Inode of the socket: equal inodes are the same connection.
    pub inode: u64,
    /// What its listening socket listens on.
    pub address: Address,
}

/// Connections of `pid` that its listening sockets accepted: connected sockets whose local port or unix path is
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
        if let Some(address) = table.accepted.get(&inode) {
            found.push(OpenSocket { fd, inode, address: address.clone() });
        }
    }
    Ok(found)
}

/// The descriptors of `pid` that listen, and what on.
#[must_use]
pub fn listeners(pid: u32) -> Vec<(u32, Address)> {
    let table = Table::read(pid);
    let sockets = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    sockets
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|fd| Some((fd, table.listening.get(&socket_inode(pid, fd)?)?.clone())))
        .collect()
}

/// The listening sockets of the network namespace of `pid`, by inode. What lies beyond the first [`MOST_READ`] bytes of
/// a table is left out: in that of TCP those that listen come first.
#[must_use]
pub fn listening(pid: u32) -> HashMap<u64, Address> {
    let text = |family| {
        let mut text = String::new();
        let table = std::fs::File::open(format!("/proc/{pid}/net/{family}"));
        // What was read before an error is as good as ever.
        let _ = table.and_then(|table| table.take(MOST_READ).read_to_string(&mut text));
        text
    };
    let is_listening = |state| state == State::Listening;
    let mut found = HashMap::new();
    for text in [text("tcp"), text("tcp6")] {
        let sockets = text.lines().skip(1).filter_map(parse_tcp);
        let sockets = sockets.filter(|(state, ..)| is_listening(*state));
        found.extend(sockets.map(|(_, port, inode)| (inode, Address::Tcp(port))));
    }
    let unix = text("unix");
    let sockets = unix.lines().skip(1).filter_map(parse_unix).filter(|(state, ..)| is_listening(*state));
    found.extend(sockets.map(|(_, path, inode)| (inode, Address::Unix(path.into()))));
    found
}

/// Inodes of the sockets that `pid` has open, among its first [`MOST_DESCRIPTORS`] descriptors.
#[must_use]
pub fn socket_inodes(pid: u32) -> Vec<u64> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let descriptors =
        entries.take(MOST_DESCRIPTORS).filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    descriptors.filter_map(|fd| socket_inode(pid, fd)).collect()
}

/// What descriptor `fd` of `pid` listens on.
#[must_use]
pub fn listener_address(pid: u32, fd: u32) -> Option<Address> {
    Table::read(pid).listening.get(&socket_inode(pid, fd)?).cloned()
}

/// Whether a process has an io_uring open now.
#[must_use]
pub fn has_io_uring(pid: u32) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let mut targets = descriptors.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.any(|target| target.as_os_str() == "anon_inode:[io_uring]")
}

fn socket_inode(pid: u32, fd: u32) -> Option<u64> {
    let link = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The socket tables of a network namespace, by inode.
#[derive(Default)]
struct Table {
    listening: HashMap<u64, Address>,
    accepted: HashMap<u64, Address>,
}

/// What a line of a socket table is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Listening,
    Connected,
    Other,
}

impl Table {
    fn read(pid: u32) -> Self {
        let text = |family| std::fs::read_to_string(format!("/proc/{pid}/net/{family}")).unwrap_or_default();
        let (tcp, tcp6, unix) = (text("tcp"), text("tcp6"), text("unix"));
        let of_tcp = tcp.lines().skip(1).chain(tcp6.lines().skip(1)).filter_map(parse_tcp);
        let of_unix = unix.lines().skip(1).filter_map(parse_unix);
        let mut table = Self::default();
        table.add(of_tcp.map(|(state, port, inode)| (state, Address::Tcp(port), inode)));
        // A unix connection is listed in the namespace of the side that connected (unix_stream_connect in
        // net/unix/af_unix.c), which for a container is often ours.
        let ours = unix_from_outside(pid);
        let from_outside = ours.lines().skip(1).filter_map(parse_unix);
        let from_outside = from_outside.filter(|(state, ..)| *state == State::Connected);
        let of_unix = of_unix.chain(from_outside);
        table.add(of_unix.map(|(state, path, inode)| (state, Address::Unix(path.into()), inode)));
        table
    }

    /// A connected socket whose own address somebody listens on was accepted there; the connecting side of a unix
    /// socket has no address, or one of its own.
    fn add(&mut self, sockets: impl Iterator<Item = (State, Address, u64)>) {
        let mut connected = Vec::new();
        for (state, address, inode) in sockets {
            match state {
                State::Listening => drop(self.listening.insert(inode, address)),
                State::Connected => connected.push((inode, address)),
                State::Other => {}
            }
        }
        let listened: HashSet<&Address> = self.listening.values().collect();
        self.accepted.extend(connected.into_iter().filter(|(_, address)| listened.contains(address)));
    }
}

/// The unix sockets of our own network namespace, if it is not that of `pid`.
fn unix_from_outside(pid: u32) -> String {
    let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/net")).ok();
    if namespace("self") == namespace(&pid.to_string()) {
        return String::new();
    }
    std::fs::read_to_string("/proc/self/net/unix").unwrap_or_default()
}

/// State, local port and inode of a line of `/proc/net/tcp`.
fn parse_tcp(line: &str) -> Option<(State, u16, u64)> {
    let mut fields = line.split_whitespace().skip(1);
    let (_, port) = fields.next()?.rsplit_once(':')?;
    // The numbers of include/net/tcp_states.h.
    let state = match fields.nth(1)? {
        // ESTABLISHED and CLOSE_WAIT.
        "01" | "08" => State::Connected,
        "0A" => State::Listening,
        _ => State::Other,
    };
    let inode = fields.nth(5)?;
    Some((state, u16::from_str_radix(port, 16).ok()?, inode.parse().ok()?))
}

/// State, path and inode of a stream socket with a path in a line of `/proc/net/unix` (proc(5)):
/// `number: references protocol flags type state inode path`. A path may have spaces.
fn parse_unix(line: &str) -> Option<(State, &str, u64)> {
    const STREAM: &str = "0001";
    let mut rest = line;
    let mut field = || {
        let (field, after) = rest.trim_start().split_once(' ')?;
        rest = after;
        Some(field)
    };
    let (_, _, _) = (field()?, field()?, field()?);
    let (flags, kind, state, inode) = (field()?, field()?, field()?, field()?);
    // `__SO_ACCEPTCON`; SS_UNCONNECTED and SS_CONNECTED (include/uapi/linux/net.h).
    let state = match (flags, state) {
        ("00010000", "01") => State::Listening,
        (_, "03") => State::Connected,
        _ => State::Other,
    };
    (kind == STREAM && !rest.is_empty()).then_some((state, rest, inode.parse().ok()?))
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
        assert_eq!(by_fd(server.as_raw_fd()).unwrap().address, Address::Tcp(port));
        assert_eq!(by_fd(client.as_raw_fd()), None);
        assert_eq!(by_fd(listener.as_raw_fd()), None);
        let fd = listener.as_raw_fd() as u32;
        assert_eq!(listener_address(pid, fd), Some(Address::Tcp(port)));
        assert!(listeners(pid).contains(&(fd, Address::Tcp(port))));
    }

    #[test]
    fn unix_connections_have_the_address_of_their_listener() {
        use std::os::linux::net::SocketAddrExt as _;
        use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
        let name = format!("gpuspan unix {}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let addresses = [
            (SocketAddr::from_pathname(&path).unwrap(), path.to_str().unwrap().to_owned()),
            (SocketAddr::from_abstract_name(&name).unwrap(), format!("@{name}")),
        ];
        let pid = std::process::id();
        for (socket, text) in addresses {
            let listener = UnixListener::bind_addr(&socket).unwrap();
            let client = UnixStream::connect_addr(&socket).unwrap();
            let (server, _) = listener.accept().unwrap();
            let address = Address::Unix(text.as_str().into());
            let fd = listener.as_raw_fd() as u32;
            assert_eq!(listener_address(pid, fd), Some(address.clone()));
            assert!(listeners(pid).contains(&(fd, address.clone())));
            let found = open_connections(pid).unwrap();
            let by_fd = |fd: i32| found.iter().find(|s| s.fd == fd as u32).map(|s| &s.address);
            assert_eq!(by_fd(server.as_raw_fd()), Some(&address));
            assert_eq!((by_fd(client.as_raw_fd()), by_fd(listener.as_raw_fd())), (None, None));
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn lines_of_the_unix_table() {
        for (line, parsed) in [
            (
                "0000000000000000: 00000002 00000000 00010000 0001 01 16163 /run/a b.sock",
                Some((State::Listening, "/run/a b.sock", 16163)),
            ),
            (
                "0000000000000000: 00000003 00000000 00000000 0001 03   714 @abstract",
                Some((State::Connected, "@abstract", 714)),
            ),
            ("0000000000000000: 00000003 00000000 00000000 0001 03 20714", None),
            ("0000000000000000: 00000002 00000000 00000000 0002 01 18411 /run/log", None),
            ("nonsense", None),
        ] {
            assert_eq!(parse_unix(line), parsed, "{line}");
        }
    }
}
