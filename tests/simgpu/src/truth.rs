//! The counters of every process, read from outside. In: a log directory. Out: [`Truth`]. Absent: waiting; the files
//! may be read at any moment, also while their processes run or after they were killed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;
use serde::Serialize;

const MAGIC: u64 = 0x3154_4e55_4347_4953; // log.h
const API_BYTES: usize = 128;
const API_NAME: usize = 120;
const TRUTH_BYTES: usize = 64;
const TRUTH_NAME: usize = 56;
const KERNEL_BYTES: usize = 40;

/// What ran in all processes of a log directory.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Truth {
    /// Sums over all processes.
    pub total: Totals,
    /// Each process alone, by process id.
    pub processes: Vec<Process>,
}

/// One process.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// When its first stand-in library was loaded, CLOCK_MONOTONIC nanoseconds.
    pub start_ns: u64,
    /// What it did.
    pub totals: Totals,
}

/// Copies of one direction, counted once whatever layers the calls crossed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Copies {
    /// How many operations.
    pub count: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// One kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// Runs through a launch call outside capture.
    pub launched: u64,
    /// Launches recorded into a graph during capture; these did not run then.
    pub captured: u64,
    /// Runs as a node of a launched graph.
    pub graph_runs: u64,
    /// Device time of all runs, nanoseconds.
    pub total_ns: u64,
}

/// Everything counted.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Totals {
    /// Calls by name, as entered: a `cudaLaunchKernel` also counts the `cuLaunchKernel` inside. Functions that the
    /// stand-in lacks count as `unsupported:<name>`.
    pub calls: BTreeMap<String, u64>,
    /// Kernels by the name they were registered under.
    pub kernels: BTreeMap<String, Kernel>,
    /// What truly ran, by the names in `c/log/log.h`; read through the methods.
    pub facts: BTreeMap<String, u64>,
}

impl Totals {
    /// How often the API was entered.
    #[must_use]
    pub fn call(&self, name: &str) -> u64 {
        self.calls.get(name).copied().unwrap_or(0)
    }

    /// One fact, such as `launches`, `graph_launches`, `graph_nodes`, `graph_kernel_nodes`, `captured_launches`,
    /// `memsets`, `allocated_bytes`, `freed_bytes`, `live_bytes`, `peak_bytes`, `busy_ns`, `kernel_ns`; 0 when unknown.
    #[must_use]
    pub fn fact(&self, name: &str) -> u64 {
        self.facts.get(name).copied().unwrap_or(0)
    }

    /// Launches executed outside capture, each once.
    #[must_use]
    pub fn launches(&self) -> u64 {
        self.fact("launches")
    }

    /// Copies of one direction: `htod`, `dtoh`, `dtod` or `htoh`. Copies inside graphs are `graph_copies`.
    #[must_use]
    pub fn copies(&self, direction: &str) -> Copies {
        let name = format!("copies_{direction}");
        Copies { count: self.fact(&name), bytes: self.fact(&format!("{name}_bytes")) }
    }

    /// Functions that a client asked for and the stand-in lacks.
    #[must_use]
    pub fn unsupported(&self) -> Vec<&str> {
        self.calls.keys().filter_map(|name| name.strip_prefix("unsupported:")).collect()
    }

    fn add(&mut self, other: &Self) {
        for (name, count) in &other.calls {
            *self.calls.entry(name.clone()).or_default() += count;
        }
        for (name, value) in &other.facts {
            *self.facts.entry(name.clone()).or_default() += value;
        }
        for (name, kernel) in &other.kernels {
            let sum = self.kernels.entry(name.clone()).or_default();
            sum.launched += kernel.launched;
            sum.captured += kernel.captured;
            sum.graph_runs += kernel.graph_runs;
            sum.total_ns += kernel.total_ns;
        }
    }
}

impl Truth {
    /// Reads the counters of every process that has kept some in `dir`. A file that its process is just creating is
    /// passed over.
    ///
    /// # Errors
    /// When the directory or one of its files cannot be read, or a file is not what the libraries write.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let mut truth = Self::default();
        for path in files(dir, "counts")? {
            let Some(process) = CountsFile::open(&path)?.process()? else { continue };
            truth.total.add(&process.totals);
            truth.processes.push(process);
        }
        truth.processes.sort_by_key(|process| process.pid);
        Ok(truth)
    }

    /// One process of it.
    #[must_use]
    pub fn process(&self, pid: u32) -> Option<&Process> {
        self.processes.iter().find(|process| process.pid == pid)
    }
}

/// The log files of one kind.
pub(crate) fn files(dir: &Path, extension: &str) -> io::Result<Vec<std::path::PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Bytes of a file that its writer keeps changing.
pub(crate) struct Shared(Mmap);

impl Shared {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the writers only ever store to the file and never shorten it; a torn value of a counter is not
        // possible for aligned words, and everything else is read after the magic that is written last.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self(map))
    }

    pub(crate) fn bytes(&self, at: usize, length: usize) -> io::Result<&[u8]> {
        let end = at.checked_add(length).ok_or_else(damaged)?;
        self.0.get(at..end).ok_or_else(damaged)
    }

    pub(crate) fn u64(&self, at: usize) -> io::Result<u64> {
        let bytes = self.bytes(at, 8)?;
        Ok(u64::from_le_bytes(bytes.try_into().map_err(|_| damaged())?))
    }

    pub(crate) fn u32(&self, at: usize) -> io::Result<u32> {
        let bytes = self.bytes(at, 4)?;
        Ok(u32::from_le_bytes(bytes.try_into().map_err(|_| damaged())?))
    }

    pub(crate) fn usize(&self, at: usize) -> io::Result<usize> {
        usize::try_from(self.u64(at)?).map_err(|_| damaged())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn text(&self, at: usize, room: usize) -> io::Result<String> {
        let bytes = self.bytes(at, room)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(room);
        Ok(String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned())
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a simgpu log file is shorter than its header says")
}

/// `<pid>.counts`.
pub(crate) struct CountsFile(Shared);

impl CountsFile {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Shared::open(path).map(Self)
    }

    /// `None` while the header is not yet written.
    fn process(&self) -> io::Result<Option<Process>> {
        if self.0.is_empty() || self.0.u64(0)? != MAGIC {
            return Ok(None);
        }
        let kernels = self.kernels()?.into_iter().collect();
        let totals = Totals { calls: self.calls()?, kernels, facts: self.facts()? };
        Ok(Some(Process { pid: self.0.u32(12)?, start_ns: self.0.u64(16)?, totals }))
    }

    fn calls(&self) -> io::Result<BTreeMap<String, u64>> {
        let (offset, slots) = (self.0.usize(24)?, self.0.usize(32)?);
        let mut calls = BTreeMap::new();
        for at in (0..slots).map(|i| offset + i * API_BYTES) {
            let count = self.0.u64(at + API_NAME)?;
            if count > 0 {
                calls.insert(self.0.text(at, API_NAME)?, count);
            }
        }
        Ok(calls)
    }

    fn facts(&self) -> io::Result<BTreeMap<String, u64>> {
        let (offset, slots) = (self.0.usize(40)?, self.0.usize(48)?);
        let mut facts = BTreeMap::new();
        for at in (0..slots).map(|i| offset + i * TRUTH_BYTES) {
            let name = self.0.text(at, TRUTH_NAME)?;
            if !name.is_empty() {
                facts.insert(name, self.0.u64(at + TRUTH_NAME)?);
            }
        }
        Ok(facts)
    }

    /// Names and counters in the order of their index.
    pub(crate) fn kernels(&self) -> io::Result<Vec<(String, Kernel)>> {
        let (offset, count, heap) = (self.0.usize(56)?, self.0.usize(72)?, self.0.usize(80)?);
        let mut kernels = Vec::new();
        for at in (0..count).map(|i| offset + i * KERNEL_BYTES) {
            let name_at = heap + self.0.u32(at + 32)? as usize;
            let name = self.0.bytes(name_at, self.0.u32(at + 36)? as usize)?;
            let kernel = Kernel {
                launched: self.0.u64(at)?,
                captured: self.0.u64(at + 8)?,
                graph_runs: self.0.u64(at + 16)?,
                total_ns: self.0.u64(at + 24)?,
            };
            kernels.push((String::from_utf8_lossy(name).into_owned(), kernel));
        }
        Ok(kernels)
    }
}
