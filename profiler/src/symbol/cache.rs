//! Tables of kernels on disk, one file per build id, so that a library is read once per machine.
//!
//! In: build ids and tables. Out: tables. A file is written beside its place and renamed into it; one that is not as it
//! was written, or is about another library of the same build id, is as good as none. Absent: any reliance on it. Where
//! the folder cannot be written, each run reads the libraries anew.

use super::table::{Identity, MOST_BYTES, Table};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What all files together may have: about thirty libraries of the size of libtorch_cuda.
const MOST_TOTAL: u64 = 256 << 20;

/// The folder.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: Option<PathBuf>,
    most_total: u64,
}

impl Default for Cache {
    /// `gpuspan/kernels` under `$XDG_CACHE_HOME`, or `~/.cache`.
    fn default() -> Self {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let base = base.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
        Self { folder: base.map(|base| base.join("gpuspan/kernels")), most_total: MOST_TOTAL }
    }
}

impl Cache {
    /// In this folder.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Self { folder: Some(folder.to_owned()), most_total: MOST_TOTAL }
    }

    /// With room for this many bytes.
    #[must_use]
    pub fn with_room(self, bytes: u64) -> Self {
        Self { most_total: bytes, ..self }
    }

    /// Without a folder: nothing is kept.
    #[must_use]
    pub fn none() -> Self {
        Self { folder: None, most_total: 0 }
    }

    /// The table of the file with this build id and identity.
    #[must_use]
    pub fn load(&self, build_id: &[u8], identity: &Identity) -> Option<Table> {
        let file = self.open(build_id).ok()?;
        let length = file.metadata().ok().filter(|m| m.is_file() && m.len() <= MOST_BYTES)?.len();
        let mut bytes = Vec::with_capacity(usize::try_from(length).ok()?);
        (&file).take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
        let table = Table::from_bytes(&bytes, identity)?;
        // What was used last is evicted last.
        let _ = file.set_modified(SystemTime::now());
        Some(table)
    }

    fn open(&self, build_id: &[u8]) -> io::Result<File> {
        let path = self.path(build_id).ok_or(io::ErrorKind::NotFound)?;
        let mut options = OpenOptions::new();
        // Neither a link that somebody has put there, nor a pipe that would never answer.
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
    }

    fn path(&self, build_id: &[u8]) -> Option<PathBuf> {
        let name: String = build_id.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(self.folder.as_ref()?.join(name))
    }

    /// Keeps a table; failing to is no loss but time.
    pub fn save(&self, build_id: &[u8], identity: &Identity, table: &Table) {
        if let Some(path) = self.path(build_id)
            && let Err(error) = self.write(&path, &table.to_bytes(identity))
        {
            tracing::debug!(path = %path.display(), %error, "kernel names are not kept");
        }
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        if bytes.len() as u64 > MOST_BYTES.min(self.most_total) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        self.make_room(folder, bytes.len() as u64);
        let beside = path.with_extension(format!("new-{}", std::process::id()));
        let mut options = OpenOptions::new();
        let result = options.write(true).create_new(true).mode(0o600).open(&beside).and_then(|mut file| {
            file.write_all(bytes)?;
            fs::rename(&beside, path)
        });
        if result.is_err() {
            let _ = fs::remove_file(&beside);
        }
        result
    }

    /// Removes what has not been used for longest, until there is room.
    fn make_room(&self, folder: &Path, room: u64) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        let file = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.ok()?;
            let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            Some((metadata.modified().ok()?, metadata.len(), entry.path()))
        };
        let mut files: Vec<_> = entries.filter_map(file).collect();
        files.sort();
        let mut total: u64 = files.iter().map(|(_, length, _)| length).sum();
        for (_, length, path) in files {
            if total.saturating_add(room) <= self.most_total {
                return;
            }
            if fs::remove_file(path).is_ok() {
                total = total.saturating_sub(length);
            }
        }
    }
}
