//! Kernel handles → names, or the reason why there is none.
//!
//! In: a process's mappings, what probes saw being registered, and the handles it launched. Out: a [`Name`] for each, one
//! for each kernel whichever way it was learnt. The folder goes from the file outwards: [`image`] reads ELF,
//! [`code`] its machine code, [`registration`] and [`symtab`] what they say of kernels, [`table`] and [`cache`] keep it,
//! [`Names`] answers. Absent: NVIDIA's own libraries, whose code is not read ([`vendor`]).

pub mod cache;
pub mod code;
mod demangle;
mod file;
pub mod image;
mod learnt;
pub mod mangle;
mod names;
pub mod registration;
pub mod short;
mod slots;
pub mod symtab;
pub mod table;
pub mod vendor;

pub use demangle::demangle;
pub use names::{Counts, Names};
pub use short::{MOST as MOST_SHORT, short};

use std::sync::Arc;

/// What a kernel is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// Its name, and how it is known.
    Known(Kernel),
    /// No name, and why.
    Unknown(Reason),
}

/// A kernel's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its mangled name, as the device knows it where that could be learnt.
    pub symbol: Arc<str>,
    /// At most [`MOST_SHORT`] characters; no two kernels of an observation share one.
    pub short: Arc<str>,
    /// How it is known.
    pub evidence: Evidence,
}

/// How a kernel's name is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Evidence {
    /// Its host function has this name in `.symtab`.
    Symtab = 1,
    /// Its host function has this name in `.dynsym`.
    Dynsym = 2,
    /// The variable that keeps its handle has this name in `.symtab`.
    HandleVariable = 3,
    /// The file's registration code says so.
    Registration = 4,
    /// The process was seen registering it.
    Registered = 5,
    /// The process was seen asking the driver for it by this name.
    Driver = 6,
}

impl Evidence {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Symtab,
        Self::Dynsym,
        Self::HandleVariable,
        Self::Registration,
        Self::Registered,
        Self::Driver,
    ];

    /// The name in summaries.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Symtab => "symtab",
            Self::Dynsym => "dynsym",
            Self::HandleVariable => "handle_variable",
            Self::Registration => "registration",
            Self::Registered => "registered",
            Self::Driver => "driver",
        }
    }
}

/// Why a kernel has no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The handle is no address in any mapped file, and nobody was seen making it: most often a handle of the driver
    /// that cuBLAS, cuDNN or Triton made before gpuspan attached.
    OpaqueHandle,
    /// The file has no symbol that starts there and registers no kernel there.
    NoSymbol,
    /// The file registers kernels in a way that could not be read.
    Unrecovered,
    /// The file is NVIDIA's own and has no symbol there; its code is not read.
    NvidiaLibrary,
    /// Several kernels share the host function: a linker has folded them.
    Ambiguous,
    /// The handle has stood for two kernels within the observation.
    HandleReused,
    /// The file could not be read.
    Unreadable,
    /// The process was gone before its mappings could be read.
    ProcessGone,
}

impl Reason {
    /// The name in summaries.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OpaqueHandle => "opaque_handle",
            Self::NoSymbol => "no_symbol",
            Self::Unrecovered => "unrecovered",
            Self::NvidiaLibrary => "nvidia_library",
            Self::Ambiguous => "ambiguous",
            Self::HandleReused => "handle_reused",
            Self::Unreadable => "unreadable",
            Self::ProcessGone => "process_gone",
        }
    }
}
