//! A shell script that carries files. In: its header and the files. Out: one executable file, the same bytes for the same
//! input. The header unpacks by `tail` and `tar`, which every machine has that it is made for.

use anyhow::{Context as _, Result, ensure};
use flate2::{Compression, GzBuilder};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// A file to carry.
#[derive(Debug)]
pub struct Member {
    /// Its path where it is unpacked.
    pub name: String,
    /// Whether it can be run.
    pub executable: bool,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// The header's word for the line on which the archive begins.
const FIRST_PACKED_LINE: &str = "@FIRST_PACKED_LINE@";

/// A packed script.
#[derive(Debug)]
pub struct Script(Vec<u8>);

impl Script {
    /// Packs the members behind the header, which must end with a line that leaves the shell.
    pub fn new(header: &str, members: &[Member]) -> Result<Self> {
        ensure!(header.contains(FIRST_PACKED_LINE), "the header does not say {FIRST_PACKED_LINE}");
        ensure!(header.ends_with("\nexit\n"), "the header must end with `exit`: the archive is no shell");
        let line = header.lines().count() + 1;
        let mut bytes = header.replace(FIRST_PACKED_LINE, &line.to_string()).into_bytes();
        bytes.extend(archive(members)?);
        Ok(Self(bytes))
    }

    /// Bytes.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// Writes it as a program.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("failed to make {}", folder.display()))?;
        }
        std::fs::write(path, &self.0).with_context(|| format!("failed to write {}", path.display()))?;
        let runnable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(path, runnable)
            .with_context(|| format!("failed to make {} runnable", path.display()))
    }
}

/// A compressed tar archive without times and owners.
fn archive(members: &[Member]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzBuilder::new().mtime(0).write(Vec::new(), Compression::best()));
    for Member { name, executable, bytes } in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(if *executable { 0o755 } else { 0o644 });
        archive
            .append_data(&mut header, name, bytes.as_slice())
            .with_context(|| format!("failed to pack {name}"))?;
    }
    Ok(archive.into_inner()?.finish()?)
}

/// Every file below `folder`, named below `name`, in order; what Python compiled is left out.
pub fn folder(folder: &Path, name: &str) -> Result<Vec<Member>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("failed to read {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    let mut members = Vec::new();
    for path in paths {
        let own = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{name}/{own}");
        if path.is_dir() && own != "__pycache__" {
            members.extend(self::folder(&path, &name)?);
        } else if path.is_file() {
            let bytes = std::fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
            members.push(Member { name, executable: false, bytes });
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const HEADER: &str = include_str!("../../gpu/run.sh");

    #[test]
    fn what_is_packed_is_unpacked_to_the_same_bytes() {
        // Every byte, line ends among them, and more than a pipe holds.
        let bytes: Vec<u8> = (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let members = [
            Member { name: "gpuspan".into(), executable: true, bytes },
            Member { name: "gpucheck/deep/empty.py".into(), executable: false, bytes: Vec::new() },
        ];
        let script = Script::new(HEADER, &members).unwrap();
        assert_eq!(script.0, Script::new(HEADER, &members).unwrap().0, "the same input gives the same bytes");
        let folder = std::env::temp_dir().join(format!("gpuspan-pack-{}", std::process::id()));
        let (path, unpacked) = (folder.join("gpu.sh"), folder.join("unpacked"));
        script.write(&path).unwrap();
        let status = Command::new(&path).arg("--unpack").arg(&unpacked).status().unwrap();
        assert!(status.success());
        for Member { name, executable, bytes } in &members {
            let file = unpacked.join(name);
            assert!(std::fs::read(&file).unwrap() == *bytes, "{name} differs");
            let mode = std::fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o111 != 0, *executable, "{name}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_header_that_would_run_into_the_archive_is_refused() {
        assert!(Script::new("#!/bin/sh\necho @FIRST_PACKED_LINE@\n", &[]).is_err());
        assert!(Script::new("#!/bin/sh\nexit\n", &[]).is_err());
        assert!(Script::new("#!/bin/sh\n# @FIRST_PACKED_LINE@\nexit\n", &[]).is_ok());
    }
}
