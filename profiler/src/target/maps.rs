//! Executable file mappings of a process: `/proc/PID/maps` → [`Mapping`].

use crate::probe::Layer;
use std::io;
use std::path::PathBuf;

/// A file, whatever its name is now: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// Device, as `major << 32 | minor`.
    pub device: u64,
    /// Inode.
    pub inode: u64,
}

/// An executable mapping of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
    /// Offset in the file of the first address.
    pub offset: u64,
    /// Which file.
    pub file: FileId,
    /// Its path as the process sees it.
    pub path: String,
    /// The file is gone from its directory; the mapping keeps it alive.
    pub deleted: bool,
}

impl Mapping {
    /// The file's own name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// A path that opens this very file from our mount namespace.
    ///
    /// `map_files` names the mapping itself, so it works for deleted files and other mount namespaces alike; it
    /// wants `CAP_SYS_ADMIN` or `CAP_CHECKPOINT_RESTORE`. The path through `root` is the second way.
    #[must_use]
    pub fn openable(&self, pid: u32) -> PathBuf {
        let by_mapping = PathBuf::from(format!("/proc/{pid}/map_files/{:x}-{:x}", self.start, self.end));
        if std::fs::metadata(&by_mapping).is_ok() {
            return by_mapping;
        }
        PathBuf::from(format!("/proc/{pid}/root{}", self.path))
    }

    /// Where a part of the file, as start and end offset, lies in the process, as far as this mapping holds it.
    #[must_use]
    pub fn addresses(&self, (start, end): (u64, u64)) -> Option<(u64, u64)> {
        let mapped = self.offset.saturating_add(self.end.saturating_sub(self.start));
        let (start, end) = (start.max(self.offset), end.min(mapped));
        let address = |offset: u64| self.start.saturating_add(offset.saturating_sub(self.offset));
        (start < end).then(|| (address(start), address(end)))
    }
}

/// The GPU layer a library belongs to, by its file name: `libcudart.so.12.9.79` is the runtime, also in the
/// renamed copies that wheels carry (`libcudart-d0da41ae.so.11.0`); `libnccl-net.so` is a plug-in and no NCCL.
#[must_use]
pub fn gpu_layer(name: &str) -> Option<Layer> {
    let is_hash = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is = |stem: &str| {
        let rest = name.strip_prefix(stem).and_then(|rest| rest.split_once(".so"));
        rest.is_some_and(|(between, _)| between.is_empty() || between.strip_prefix('-').is_some_and(is_hash))
    };
    if is("libcudart") {
        Some(Layer::Runtime)
    } else if is("libcuda") {
        Some(Layer::Driver)
    } else if is("libnccl") {
        Some(Layer::Nccl)
    } else {
        None
    }
}

/// The layer a library belongs to, by its file name: a GPU layer, or OpenSSL's libssl, of which wheels and conda bring
/// copies of their own (`libssl-7f2c44d5.so.3`).
#[must_use]
pub fn layer(name: &str) -> Option<Layer> {
    let is_tls =
        name.strip_prefix("libssl").is_some_and(|rest| rest.starts_with(".so") || rest.starts_with('-'));
    gpu_layer(name)
        .or_else(|| (is_tls && name.contains(".so")).then_some(Layer::Tls))
        .or_else(|| server_layer(name))
}

/// The layer of a library that model servers are made of: libzmq, also in the renamed copy that pyzmq brings
/// (`libzmq-6a4bb5ea.so.5.2.5`), libllama, and Triton's core and backends.
fn server_layer(name: &str) -> Option<Layer> {
    let is = |stem: &str| {
        let rest = name.strip_prefix(stem);
        rest.is_some_and(|rest| rest.starts_with(".so") || rest.starts_with('-') && rest.contains(".so"))
    };
    match () {
        () if is("libzmq") => Some(Layer::Zmq),
        () if name.starts_with("libllama-server-impl.so") => Some(Layer::LlamaServer),
        // It has what llama.cpp's programs share, and calls libllama.
        () if name.starts_with("libllama-common") => None,
        () if is("libllama") => Some(Layer::Llama),
        () if is("libtritonserver") => Some(Layer::Triton),
        () if name.starts_with("libtriton_") && name.ends_with(".so") => Some(Layer::TritonBackend),
        () => None,
    }
}

/// The executable file mappings of `pid`, in order of address.
///
/// # Errors
/// When the process is gone or may not be looked at.
pub fn mappings(pid: u32) -> io::Result<Vec<Mapping>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    Ok(text.lines().filter_map(parse_line).collect())
}

/// One line of `maps` (proc(5)): `start-end perms offset major:minor inode path`.
fn parse_line(line: &str) -> Option<Mapping> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    let offset = fields.next()?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let inode: u64 = fields.next()?.parse().ok()?;
    let path = fields.next().unwrap_or("").trim_start();
    if inode == 0 || permissions.as_bytes().get(2) != Some(&b'x') {
        return None;
    }
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let (path, deleted) = match path.strip_suffix(" (deleted)") {
        Some(path) => (path, true),
        None => (path, false),
    };
    Some(Mapping {
        start: hex(start)?,
        end: hex(end)?,
        offset: hex(offset)?,
        file: FileId { device: hex(major)? << 32 | hex(minor)?, inode },
        path: path.to_owned(),
        deleted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_executable_files_are_kept() {
        let line = "7f10a0000000-7f10a0021000 r-xp 00001000 fe:01 4242                       /a b/libx.so.1 (deleted)";
        let mapping = parse_line(line).unwrap();
        assert_eq!(
            (mapping.start, mapping.end, mapping.offset),
            (0x7f10_a000_0000, 0x7f10_a002_1000, 0x1000)
        );
        assert_eq!(mapping.file, FileId { device: 0xfe << 32 | 1, inode: 4242 });
        assert_eq!((mapping.path.as_str(), mapping.deleted), ("/a b/libx.so.1", true));
        assert_eq!(mapping.name(), "libx.so.1");
        for (part, addresses) in [
            ((0x1000, 0x1010), Some((0x7f10_a000_0000, 0x7f10_a000_0010))),
            ((0, 0x1010), Some((0x7f10_a000_0000, 0x7f10_a000_0010))),
            ((0x21ff0, u64::MAX), Some((0x7f10_a002_0ff0, 0x7f10_a002_1000))),
            ((0, 0x1000), None),
            ((0x22000, 0x23000), None),
            ((0x1010, 0x1000), None),
        ] {
            assert_eq!(mapping.addresses(part), addresses, "{part:x?}");
        }
        for other in [
            "7f10a0000000-7f10a0021000 rw-p 00001000 fe:01 4242 /lib/libx.so",
            "7ffd1c000000-7ffd1c021000 r-xp 00000000 00:00 0 [vdso]",
            "nonsense",
            "",
        ] {
            assert_eq!(parse_line(other), None, "{other}");
        }
    }

    #[test]
    fn gpu_libraries_are_known_by_name() {
        for (name, layer) in [
            ("libcudart.so.12", Some(Layer::Runtime)),
            ("libcudart.so.13.5.37", Some(Layer::Runtime)),
            ("libcudart-d0da41ae.so.11.0", Some(Layer::Runtime)),
            ("libcuda.so.1", Some(Layer::Driver)),
            ("libcuda.so.550.163.01", Some(Layer::Driver)),
            ("libnccl.so.2", Some(Layer::Nccl)),
            ("libnccl-net.so", None),
            ("libcudnn.so.9", None),
            ("libcudadebugger.so.1", None),
            ("libcuda-notes.txt", None),
        ] {
            assert_eq!(gpu_layer(name), layer, "{name}");
        }
    }

    #[test]
    fn our_own_mappings_open_as_the_files_they_are() {
        let pid = std::process::id();
        let exe = std::env::current_exe().unwrap();
        let own = mappings(pid).unwrap();
        let mapping = own.iter().find(|m| exe.to_str() == Some(&m.path)).unwrap();
        assert!(std::fs::read(mapping.openable(pid)).unwrap() == std::fs::read(exe).unwrap());
    }
}
