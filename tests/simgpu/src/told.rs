//! What a test tells the management library while it runs: the file `SIMGPU_NVML`.
//!
//! In: numbers by key, such as `0.power`. Out: the file, replaced as a whole with each change. The keys are those that
//! `c/nvml/*.c` ask for.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// What the library is told, and where.
#[derive(Debug)]
pub struct Told {
    path: PathBuf,
    values: BTreeMap<String, String>,
    written: u64,
}

impl Told {
    /// Nothing yet, in a file of this folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(folder: &Path) -> io::Result<Self> {
        let told = Self { path: folder.join("nvml.told"), values: BTreeMap::new(), written: 0 };
        std::fs::write(&told.path, "")?;
        Ok(told)
    }

    /// For [`Environment::nvml`](crate::Environment::nvml).
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on these are so, besides what was told before.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn tell(&mut self, values: &[(&str, f64)]) -> io::Result<()> {
        self.values.extend(values.iter().map(|(key, value)| ((*key).to_owned(), value.to_string())));
        self.write()
    }

    /// From now on the library says of this what follows from what ran.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn untell(&mut self, keys: &[&str]) -> io::Result<()> {
        self.values.retain(|key, _| !keys.contains(&key.as_str()));
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        self.written += 1;
        let lines: String = self.values.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        let staged = self.path.with_extension(self.written.to_string());
        std::fs::write(&staged, lines)?;
        std::fs::rename(staged, &self.path)
    }
}
