//! A tree of files as it will stand on another machine. In: paths with their content. Out: a tar archive whose bytes depend
//! on nothing else. Absent: the owners and times that files have here.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, Result};
use tar::{Builder, EntryType, Header};

/// What stands at a path.
#[derive(Debug)]
enum Node {
    Folder,
    File { content: Vec<u8>, mode: u32 },
    Link(String),
}

/// Paths without a leading slash, sorted, each behind its folder.
#[derive(Debug, Default)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

impl Tree {
    /// Puts a file there.
    pub fn file(&mut self, path: &str, content: impl Into<Vec<u8>>, mode: u32) {
        self.put(path, Node::File { content: content.into(), mode });
    }

    /// Puts a file of this machine there; links are followed.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn copy(&mut self, path: &str, from: &Path, mode: u32) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(path, content, mode);
        Ok(())
    }

    /// Puts a symbolic link there.
    pub fn link(&mut self, path: &str, target: &str) {
        self.put(path, Node::Link(target.to_owned()));
    }

    /// Makes a folder.
    pub fn folder(&mut self, path: &str) {
        self.put(path, Node::Folder);
    }

    fn put(&mut self, path: &str, node: Node) {
        for (at, _) in path.match_indices('/') {
            self.nodes.entry(path.get(..at).unwrap_or_default().to_owned()).or_insert(Node::Folder);
        }
        self.nodes.insert(path.to_owned(), node);
    }

    /// Writes the archive, every entry root's and of the time `epoch`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn tar(&self, to: impl Write, epoch: u64) -> Result<()> {
        let mut builder = Builder::new(to);
        for (path, node) in &self.nodes {
            let mut header = Header::new_gnu();
            header.set_mtime(epoch);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(0);
            match node {
                Node::Folder => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(0o755);
                    builder.append_data(&mut header, format!("{path}/"), std::io::empty())?;
                }
                Node::File { content, mode } => {
                    header.set_entry_type(EntryType::Regular);
                    header.set_mode(*mode);
                    header.set_size(content.len().try_into()?);
                    builder.append_data(&mut header, path, content.as_slice())?;
                }
                Node::Link(target) => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_mode(0o777);
                    builder.append_link(&mut header, path, target)?;
                }
            }
        }
        builder.finish().context("cannot finish the archive")
    }
}

/// Every file below a folder, as an archive that depends on nothing else.
///
/// # Errors
/// When something cannot be read or written.
pub fn archive(folder: &Path, to: &Path, epoch: u64) -> Result<()> {
    let mut tree = Tree::default();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder)?.to_str().context("a name that is no text")?;
            tree.copy(name, &path, 0o644)?;
        }
    }
    tree.tar(File::create(to)?, epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_depends_on_its_content_only() {
        let made = |names: [&str; 2]| {
            let mut tree = Tree::default();
            for name in names {
                tree.file(name, name, 0o644);
            }
            tree.link("lib", "usr/lib");
            let mut bytes = Vec::new();
            tree.tar(&mut bytes, 7).unwrap();
            bytes
        };
        let bytes = made(["usr/lib/a", "etc/b"]);
        assert_eq!(bytes, made(["etc/b", "usr/lib/a"]));
        let mut archive = tar::Archive::new(bytes.as_slice());
        let paths: Vec<_> =
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
        let expected =
            ["etc/", "etc/b", "lib", "usr/", "usr/lib/", "usr/lib/a"].map(std::path::PathBuf::from);
        assert_eq!(paths, expected);
    }
}
