//! What names a kernel before it has a name, and what is told of names.

use std::sync::Arc;

/// Names a kernel: the handle means something only inside its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct KernelKey {
    /// Process.
    pub pid: u32,
    /// Host function, `cudaKernel_t` or `CUfunction`.
    pub function: u64,
}

/// What a call told about a kernel's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// A handle has this name.
    Handle {
        /// The handle: `CUfunction`, `CUkernel` or `cudaKernel_t`.
        handle: u64,
        /// The name the caller asked by, mangled.
        name: Arc<str>,
        /// The name went on behind this.
        cut: bool,
    },
    /// A handle stands for another kernel.
    Alias {
        /// The handle.
        handle: u64,
        /// A host function or another handle.
        of: u64,
    },
    /// A host function stands for the kernel whose name lies at an address of its process.
    Host {
        /// The host function.
        function: u64,
        /// Where its kernel's name is.
        name_address: u64,
    },
}
