//! GPU libraries that a process may load: the files in the places where its loader would look.
//!
//! In: a pid. Out: paths as the process sees them. A guess that is wrong costs a probe in a file that is never mapped;
//! one that is missing costs the calls before the library is seen in the process's mappings.

use super::maps::gpu_layer;
use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A file, as `stat` tells it. Not [`super::FileId`]: on layered file systems the mappings tell another device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatId {
    device: u64,
    inode: u64,
}

impl StatId {
    /// Of the file that `path` opens.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// A library in reach of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InReach {
    /// A path that opens it from our mount namespace.
    pub path: PathBuf,
    /// Which file it is.
    pub id: StatId,
}

/// Folders where the driver and the toolkit are installed.
const SYSTEM: [&str; 9] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/cuda/lib64",
    "/usr/local/nvidia/lib64",
    "/usr/local/lib",
    "/usr/lib/wsl/lib",
    "/opt/cuda/lib64",
];

/// Files that are taken at most: a machine has a handful of versions.
const MOST: usize = 24;

/// GPU libraries that `pid` may load.
#[must_use]
pub fn in_reach(pid: u32) -> Vec<InReach> {
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let inside = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for folder in folders(pid) {
        // A folder that is not there, or not readable, holds nothing for us.
        for entry in std::fs::read_dir(inside(&folder)).into_iter().flatten().flatten() {
            let is_gpu = entry.file_name().to_str().is_some_and(|name| gpu_layer(name).is_some());
            let path = entry.path();
            if let Some(id) = is_gpu.then(|| StatId::of(&path)).flatten().filter(|id| seen.insert(*id)) {
                found.push(InReach { path, id });
            }
        }
    }
    found.truncate(MOST);
    found
}

/// Where the loader of `pid` would look: what its environment says, its interpreter's packages, the system's folders.
fn folders(pid: u32) -> Vec<PathBuf> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let variable = |name: &str| {
        let mut entries = environment.split(|byte| *byte == 0);
        entries.find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    };
    let path = |bytes: &[u8]| PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
    let searched = variable("LD_LIBRARY_PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = searched.split(|byte| matches!(byte, b':' | b';')).map(path).collect();
    let preloaded = variable("LD_PRELOAD").unwrap_or_default();
    let preloaded = preloaded.split(|byte| matches!(byte, b':' | b' ')).map(path);
    folders.extend(preloaded.filter_map(|file| file.parent().map(Path::to_owned)));
    let named = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(variable).map(path);
    for prefix in named.chain(prefixes(pid)) {
        folders.extend(of_prefix(pid, &prefix));
    }
    folders.extend(SYSTEM.iter().map(PathBuf::from));
    let mut seen = HashSet::new();
    folders.retain(|folder| folder.is_absolute() && seen.insert(folder.clone()));
    folders
}

/// The folders above those of the program's file and of the name it was called by: a virtual environment's `python` is
/// a link to another.
fn prefixes(pid: u32) -> Vec<PathBuf> {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let called = command.split(|byte| *byte == 0).next().unwrap_or_default();
    let called = PathBuf::from(std::ffi::OsStr::from_bytes(called));
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let above = |file: &Path| Some(file.parent()?.parent()?.to_owned());
    [called, program].iter().filter(|file| file.is_absolute()).filter_map(|file| above(file)).collect()
}

/// Where a prefix keeps GPU libraries: `lib` itself, wheels of NVIDIA in the packages of an interpreter, and what
/// Ollama carries along.
fn of_prefix(pid: u32, prefix: &Path) -> Vec<PathBuf> {
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let children = |folder: &Path| -> Vec<PathBuf> {
        let inside = root.join(folder.strip_prefix("/").unwrap_or(folder));
        let entries = std::fs::read_dir(inside).into_iter().flatten().flatten();
        entries.map(|entry| folder.join(entry.file_name())).collect()
    };
    let lib = prefix.join("lib");
    let mut folders = vec![prefix.join("bin"), lib.clone()];
    folders.extend(children(&lib.join("ollama")));
    let is_python = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("python3"))
    };
    for python in children(&lib).into_iter().filter(is_python) {
        for packages in ["site-packages", "dist-packages"] {
            let wheels = children(&python.join(packages).join("nvidia"));
            folders.extend(wheels.into_iter().map(|wheel| wheel.join("lib")));
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn the_environment_says_where_libraries_are() {
        let folder = std::env::temp_dir().join(format!("gpuspan-reach-{}", std::process::id()));
        let wheel = folder.join("lib/python3.11/site-packages/nvidia/cu13/lib");
        std::fs::create_dir_all(&wheel).unwrap();
        for file in [
            "libcudart.so.12",
            "libcudart.txt",
            "lib/python3.11/site-packages/nvidia/cu13/lib/libcudart.so.13",
        ] {
            std::fs::write(folder.join(file), file).unwrap();
        }
        std::os::unix::fs::symlink("libcudart.so.12", folder.join("libcudart.so")).unwrap();
        let mut command = Command::new("sleep");
        command.arg("30").env("LD_LIBRARY_PATH", &folder).env("VIRTUAL_ENV", &folder).stdin(Stdio::null());
        let mut child = command.spawn().unwrap();
        // The new program's environment comes a moment after its name.
        while std::fs::read(format!("/proc/{}/environ", child.id())).unwrap().is_empty()
            || std::fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap() != "sleep\n"
        {
            std::thread::yield_now();
        }
        let found = in_reach(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        let ours: Vec<_> =
            found.iter().filter(|library| library.path.to_string_lossy().contains("gpuspan-reach")).collect();
        assert_eq!(ours.len(), 2, "one for two names of a file, none for what is no library: {ours:?}");
        assert_eq!(StatId::of(&wheel.join("libcudart.so.13")), Some(ours[1].id));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
