//! What a file offers to probe: ELF file → [`Library`]. Reads the file, in bounded pieces; attaches nothing.
//!
//! A file is a GPU library by its name or soname, or holds a CUDA runtime that was linked into it (`runtime.rs`), or
//! both (NCCL), or is of no interest. What cannot be probed is data as well, with the reason.

use super::elf::{self, Elf, ElfError, Kind};
use super::linked;
use super::publish::Publisher;
use super::runtime::{self, Linked};
use super::site::{self, Cost, Machine, Site};
use crate::interned::{self, Name};
use crate::probe::{self, Layer};
use crate::target;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

/// A function that can be probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Index into the probe catalogue.
    pub api: u16,
    /// Offset in the file of the probed instruction.
    pub offset: u64,
    /// Virtual address of the function, as linked.
    pub address: u64,
    /// Where in the function, what that costs, and why there.
    pub site: Site,
}

/// Why a function is worth a remark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// This version of the library does not have it.
    NotInThisVersion,
    /// It is there, and no probe may or could be placed.
    Refused,
    /// It is probed, at a price.
    Expensive,
}

/// A function that is not probed, or at a price.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Its name.
    #[serde(deserialize_with = "interned::one")]
    pub symbol: Name,
    /// Of which kind the reason is.
    pub group: Group,
    /// Why.
    #[serde(deserialize_with = "interned::one")]
    pub reason: Name,
}

/// A name of a function that is probed under another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// The name.
    #[serde(deserialize_with = "interned::one")]
    pub symbol: Name,
    /// The name under which its calls are counted.
    #[serde(deserialize_with = "interned::one")]
    pub counted_as: Name,
}

/// What a file is to the profiler. Serialised in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A shared library of this layer.
    Shared(Layer),
    /// It has the CUDA runtime linked into it, with symbols.
    LinkedRuntime,
    /// It has a TLS library linked into it, with symbols.
    LinkedTls,
    /// It has a library that servers are made of linked into it, with symbols.
    LinkedServer(Layer),
    /// It has device code, and neither imports the CUDA runtime nor has symbols of one.
    StrippedRuntime,
}

/// What one file offers.
#[derive(Clone, Debug)]
pub struct Library {
    /// What it is; nothing for files of no interest.
    pub roles: Vec<Role>,
    /// Whose code it holds.
    pub machine: Machine,
    /// GNU build id, hex.
    pub build_id: Option<String>,
    /// What it calls itself (`DT_SONAME`).
    pub soname: Option<String>,
    /// What can be probed, in the order of the catalogue.
    pub points: Vec<Point>,
    /// What cannot.
    pub missing: Vec<Missing>,
    /// Names of the same code, which is probed once.
    pub aliases: Vec<Alias>,
    /// Where in the file the code of a linked runtime lies, as start and end.
    pub runtime_code: Vec<(u64, u64)>,
    /// How its threads' active spans are found, if it publishes them.
    pub publisher: Option<Publisher>,
}

/// Why a library could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// It could not be opened or read.
    #[error("failed to read {path}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is no ELF file that makes sense.
    #[error("{path} is not a library that can be probed: {reason}")]
    Elf {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Looks into the file at `path` and chooses a probe site for each function of the catalogue that it has. `named` is
/// the layer that its name tells, if it does.
///
/// # Errors
/// When the file cannot be read or is no ELF file.
pub fn inspect(path: &Path, named: impl Into<Option<Layer>>) -> Result<Library, LibraryError> {
    let elf = Elf::open(path).map_err(|error| LibraryError::of(path, error))?;
    let (soname, needed) = elf.linkage();
    let layer = named.into().or_else(|| target::layer(soname.as_deref()?));
    let mut library = Library {
        roles: layer.map(Role::Shared).into_iter().collect(),
        build_id: elf.build_id(),
        soname,
        publisher: Publisher::of(&elf),
        ..Library::empty(elf.machine())
    };
    if let Some(layer) = layer {
        let name = library.soname.as_deref().or_else(|| path.file_name()?.to_str());
        let major = name.and_then(major).filter(|_| layer == Layer::Runtime);
        library.choose(&elf, layer, major, &exports(&elf, layer, major));
    }
    if layer.is_none_or(|layer| layer == Layer::Nccl) {
        library.add_linked(&elf, runtime::find(&elf, &needed));
        for (layer, found) in linked::find(&elf) {
            let tls = layer == Layer::Tls;
            library.roles.push(if tls { Role::LinkedTls } else { Role::LinkedServer(layer) });
            library.choose(&elf, layer, None, &found);
        }
    }
    Ok(library)
}

/// The first number after `.so.`: which CUDA a runtime library belongs to.
fn major(name: &str) -> Option<u32> {
    name.split_once(".so.")?.1.split('.').next()?.parse().ok()
}

/// A function found in a file.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Index into the catalogue.
    pub api: u16,
    /// Virtual address.
    pub address: u64,
    /// What the symbol is.
    pub kind: Kind,
}

/// Defined dynamic symbols that the catalogue knows.
fn exports(elf: &Elf, layer: Layer, major: Option<u32>) -> Vec<Found> {
    const LONGEST: u64 = 64 << 20;
    let Some((table, strings)) = elf.dynamic_table() else { return Vec::new() };
    let Some(strings) = elf.load(strings, LONGEST) else { return Vec::new() };
    let apis = apis(layer, major);
    let mut found = Vec::new();
    elf.symbols(table, |symbol| {
        let api = elf::name(&strings, symbol.name).and_then(|name| apis.get(name));
        if let (true, Some(api)) = (symbol.defined, api) {
            found.push(Found { api: *api, address: symbol.address, kind: symbol.kind });
        }
        found.len() < MOST_FOUND
    });
    found
}

/// The catalogue's index of each function by its name.
pub fn apis(layer: Layer, major: Option<u32>) -> HashMap<&'static str, u16> {
    probe::of_library(layer, major).map(|(index, api)| (api.symbol, index)).collect()
}

/// The most functions that a file may offer; a table that repeats a name for ever is no real one.
pub const MOST_FOUND: usize = 1 << 14;

/// A function's place, before it is known whether another name has it too.
struct Candidate {
    found: Found,
    offset: u64,
    site: Result<Site, &'static str>,
    /// Where it goes, if it does nothing but go there.
    target: Option<u64>,
}

impl Library {
    /// A file of no interest.
    pub(super) fn empty(machine: Machine) -> Self {
        Self {
            roles: Vec::new(),
            machine,
            build_id: None,
            soname: None,
            points: Vec::new(),
            missing: Vec::new(),
            aliases: Vec::new(),
            runtime_code: Vec::new(),
            publisher: None,
        }
    }

    /// Whether there is anything to probe or to say.
    #[must_use]
    pub fn is_of_interest(&self) -> bool {
        !self.roles.is_empty()
    }

    /// Whether it is nothing but what servers are made of.
    #[must_use]
    pub fn is_of_servers(&self) -> bool {
        let is = |role: &Role| match role {
            Role::Shared(layer) => layer.family() == probe::Family::Server,
            Role::LinkedServer(_) => true,
            _ => false,
        };
        !self.roles.is_empty() && self.roles.iter().all(is)
    }

    /// Functions whose probes cost this.
    #[must_use]
    pub fn count(&self, cost: Cost) -> usize {
        self.points.iter().filter(|point| point.site.cost == cost).count()
    }

    /// Points and remarks for the functions of `layer`.
    fn choose(&mut self, elf: &Elf, layer: Layer, major: Option<u32>, found: &[Found]) {
        let mut by_api: HashMap<u16, Vec<Candidate>> = HashMap::new();
        for found in found {
            by_api.entry(found.api).or_default().push(candidate(elf, *found));
        }
        // Only what is probed at its own address can stand for others.
        let mut owners: HashMap<u64, &'static str> = HashMap::new();
        for (api, entry) in probe::of_library(layer, major) {
            for candidate in by_api.get(&api).into_iter().flatten() {
                if candidate.site.is_ok() && candidate.target.is_none() {
                    owners.entry(candidate.found.address).or_insert(entry.symbol);
                }
            }
        }
        for (api, entry) in probe::of_library(layer, major) {
            match by_api.get(&api) {
                None => self.miss(entry.symbol, Group::NotInThisVersion, "not in this version"),
                Some(candidates) => {
                    candidates.iter().for_each(|one| self.settle(entry.symbol, one, &owners));
                }
            }
        }
    }

    /// One function: probed, counted under another name, or refused.
    fn settle(&mut self, symbol: &'static str, one: &Candidate, owners: &HashMap<u64, &'static str>) {
        let code = one.target.unwrap_or(one.found.address);
        let owner = owners.get(&code).copied().filter(|owner| *owner != symbol);
        match (owner, one.site) {
            (Some(counted_as), _) => self.aliases.push(Alias { symbol, counted_as }),
            (None, Err(reason)) => self.miss(symbol, Group::Refused, reason),
            (None, Ok(site)) => {
                let (api, address) = (one.found.api, one.found.address);
                let point = Point { api, offset: one.offset.saturating_add(site.distance), address, site };
                // Two symbols of one name and one address are one function.
                if !self.points.iter().any(|other| other.offset == point.offset) {
                    self.points.push(point);
                }
            }
        }
    }

    fn miss(&mut self, symbol: &'static str, group: Group, reason: &'static str) {
        self.missing.push(Missing { symbol, group, reason });
    }

    fn add_linked(&mut self, elf: &Elf, linked: Linked) {
        match linked {
            Linked::None => {}
            Linked::Unseen => self.roles.push(Role::StrippedRuntime),
            Linked::Runtime { major, found, code } => {
                self.roles.push(Role::LinkedRuntime);
                self.runtime_code = code;
                self.choose(elf, Layer::Runtime, major, &found);
            }
        }
    }
}

fn candidate(elf: &Elf, found: Found) -> Candidate {
    let mut code = [0; site::WINDOW];
    let offset = elf.code_offset(found.address);
    let read = offset.map_or(0, |offset| elf.read_code(offset, &mut code));
    let code = code.get(..read).unwrap_or(&[]);
    let site = match (found.kind, offset) {
        (Kind::Indirect, _) => Err("its code is chosen when it is bound (an indirect function)"),
        (Kind::Other | Kind::ThreadLocal, _) => Err("its symbol is no function"),
        (Kind::Function, None) => Err("its address is not in the file's code"),
        (Kind::Function, Some(_)) => site::choose(elf.machine(), code),
    };
    let jump = site::jump_target(elf.machine(), code).filter(|_| site.is_ok());
    let target = jump.and_then(|distance| found.address.checked_add_signed(distance));
    Candidate { found, offset: offset.unwrap_or(0), site, target }
}

impl LibraryError {
    fn of(path: &Path, error: ElfError) -> Self {
        let path = path.display().to_string();
        match error {
            ElfError::Read(source) => Self::Read { path, source },
            ElfError::Format(reason) => Self::Elf { path, reason },
        }
    }
}

impl Role {
    /// Whether it has to do with a GPU.
    #[must_use]
    pub fn is_gpu(self) -> bool {
        match self {
            Self::Shared(layer) => layer.is_gpu(),
            Self::LinkedTls | Self::LinkedServer(_) => false,
            Self::LinkedRuntime | Self::StrippedRuntime => true,
        }
    }

    /// What the file is, in words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Shared(Layer::Runtime) => "CUDA runtime",
            Self::Shared(Layer::Driver) => "CUDA driver",
            Self::Shared(Layer::Nccl) => "NCCL",
            Self::Shared(Layer::Tls) => "TLS library",
            Self::Shared(Layer::Zmq) => "message queue",
            Self::Shared(Layer::Llama) => "llama.cpp",
            Self::Shared(Layer::LlamaServer) => "llama.cpp's server",
            Self::Shared(Layer::Triton) => "Triton's core",
            Self::Shared(Layer::TritonBackend) => "Triton backend",
            Self::LinkedTls => "linked-in TLS library",
            Self::LinkedServer(Layer::Zmq) => "linked-in message queue",
            Self::LinkedServer(Layer::LlamaServer) => "linked-in server of llama.cpp",
            Self::LinkedServer(_) => "linked-in llama.cpp",
            Self::LinkedRuntime => "linked-in CUDA runtime",
            Self::StrippedRuntime => "device code without a visible CUDA runtime",
        }
    }
}

impl Serialize for Role {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let words = String::deserialize(from)?;
        let alone = [Self::LinkedRuntime, Self::LinkedTls, Self::StrippedRuntime];
        let of_layers =
            Layer::ALL.into_iter().flat_map(|layer| [Self::Shared(layer), Self::LinkedServer(layer)]);
        let found = alone.into_iter().chain(of_layers).find(|role| role.name() == words);
        found.ok_or_else(|| serde::de::Error::custom(format!("`{words}` is no role of a library")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_library_is_refused_by_name() {
        let missing = inspect(Path::new("/nonexistent/libcudart.so"), Layer::Runtime).unwrap_err();
        assert_eq!(missing.to_string(), "failed to read /nonexistent/libcudart.so");
        let text = std::env::temp_dir().join(format!("gpuspan-no-elf-{}", std::process::id()));
        std::fs::write(&text, [b'x'; 100]).unwrap();
        let garbage = inspect(&text, Layer::Driver).unwrap_err();
        assert!(garbage.to_string().ends_with("it is no ELF file"), "{garbage}");
        std::fs::remove_file(text).unwrap();
        let folder = inspect(&std::env::temp_dir(), Layer::Driver).unwrap_err();
        assert!(folder.to_string().ends_with("it is no regular file"), "{folder}");
    }

    #[test]
    fn a_library_without_the_symbols_lacks_them_all() {
        let own = std::env::current_exe().unwrap();
        let library = inspect(&own, Layer::Runtime).unwrap();
        assert!(library.points.is_empty());
        assert_eq!(library.missing.len(), probe::of_library(Layer::Runtime, None).count());
        assert!(library.missing.iter().all(|missing| missing.group == Group::NotInThisVersion));
    }

    #[test]
    fn the_cuda_version_comes_from_the_name() {
        let names =
            ["libcudart.so.12", "libcudart.so.13.5.37", "libcudart-d0da41ae.so.11.0", "libcudart.so", "x"];
        assert_eq!(names.map(major), [Some(12), Some(13), Some(11), None, None]);
    }

    #[test]
    fn a_program_without_cuda_is_of_no_interest() {
        let library = inspect(&std::env::current_exe().unwrap(), None).unwrap();
        assert!(!library.is_of_interest() && library.missing.is_empty(), "{:?}", library.roles);
    }
}
