//! What names a kernel before it has a name.

/// Names a kernel: the handle means something only inside its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelKey {
    /// Process.
    pub pid: u32,
    /// Host function, `cudaKernel_t` or `CUfunction`.
    pub function: u64,
}
