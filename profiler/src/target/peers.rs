//! Who is at the other end of unix sockets: netlink's `sock_diag` → inode by inode (include/uapi/linux/unix_diag.h).
//!
//! `/proc/net/unix` tells a socket's path and not its peer. Only sockets of our own network namespace are told.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const UDIAG_SHOW_PEER: u32 = 4;
const UNIX_DIAG_PEER: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_ERROR: u16 = 2;
/// Length, type, flags, sequence, port.
const HEADER: usize = 16;
/// Family, type, state, padding, inode, cookie.
const MESSAGE: usize = 16;
/// TCP's numbers, which unix sockets use too: 1 is established.
const ESTABLISHED: u32 = 1 << 1;

/// The inode of each connected unix socket and that of its peer; empty where they cannot be asked for.
#[must_use]
pub fn unix_peers() -> HashMap<u64, u64> {
    dump().unwrap_or_default()
}

fn dump() -> io::Result<HashMap<u64, u64>> {
    // SAFETY: the call takes no pointers.
    let fd = unsafe {
        libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_SOCK_DIAG)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let request = request();
    // SAFETY: the buffer is as long as is said.
    let sent = unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut peers = HashMap::new();
    let mut buffer = vec![0u8; 64 << 10];
    loop {
        // SAFETY: the buffer is as long as is said.
        let got = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let Ok(got @ 1..) = usize::try_from(got) else { return Err(io::Error::last_os_error()) };
        if take(buffer.get(..got).unwrap_or(&[]), &mut peers) {
            return Ok(peers);
        }
    }
}

/// A dump of all connected unix sockets with their peers.
fn request() -> Vec<u8> {
    let mut request = Vec::new();
    request.extend(40u32.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    request.extend([0; 8]);
    request.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    request.extend(ESTABLISHED.to_ne_bytes());
    request.extend(0u32.to_ne_bytes());
    request.extend(UDIAG_SHOW_PEER.to_ne_bytes());
    request.extend([0; 8]);
    request
}

/// Takes the messages of one read; true when the dump is over.
fn take(mut bytes: &[u8], peers: &mut HashMap<u64, u64>) -> bool {
    while let Some(length) = number(bytes, 0).map(|length| length as usize).filter(|length| *length >= HEADER)
    {
        let Some(message) = bytes.get(..length) else { return true };
        match message.get(4..6).and_then(|kind| kind.first_chunk()).map(|kind| u16::from_ne_bytes(*kind)) {
            Some(NLMSG_DONE | NLMSG_ERROR) => return true,
            _ => peers.extend(pair(message)),
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    false
}

/// A socket and its peer.
fn pair(message: &[u8]) -> Option<(u64, u64)> {
    let inode = number(message, HEADER + 4)?;
    let mut attributes = message.get(HEADER + MESSAGE..)?;
    while let [a, b, c, d, ..] = *attributes {
        let (length, kind) = (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]));
        if kind == UNIX_DIAG_PEER {
            return Some((u64::from(inode), u64::from(number(attributes, 4)?)));
        }
        attributes = attributes.get(usize::from(length.max(4)).next_multiple_of(4)..)?;
    }
    None
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn both_ends_of_a_socket_are_each_others_peers() {
        let (one, other) = UnixStream::pair().unwrap();
        let inode = |stream: &UnixStream| {
            std::fs::metadata(format!("/proc/self/fd/{}", stream.as_raw_fd())).unwrap().ino()
        };
        let peers = unix_peers();
        assert_eq!(peers.get(&inode(&one)), Some(&inode(&other)));
        assert_eq!(peers.get(&inode(&other)), Some(&inode(&one)));
    }

    #[test]
    fn what_is_no_answer_ends_the_dump() {
        let mut peers = HashMap::new();
        assert!(!take(&[], &mut peers) && !take(&[0; 3], &mut peers) && !take(&[0; 40], &mut peers));
        assert!(take(&[255, 0, 0, 0, 20, 0, 0, 0], &mut peers));
        assert!(peers.is_empty());
    }
}
