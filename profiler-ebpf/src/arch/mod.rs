//! Where each machine keeps arguments, results and system call numbers.

#[cfg(bpf_target_arch = "aarch64")]
mod aarch64;
#[cfg(bpf_target_arch = "x86_64")]
mod x86_64;

#[cfg(bpf_target_arch = "aarch64")]
pub use aarch64::*;
#[cfg(bpf_target_arch = "x86_64")]
pub use x86_64::*;

#[cfg(not(any(bpf_target_arch = "x86_64", bpf_target_arch = "aarch64")))]
compile_error!("build with `cargo xtask ebpf`, which says for which machine the object is");

/// The end of a launch's arguments, where the machines differ most.
pub struct LaunchTail {
    /// z size of the block; 0 where the call passes it earlier.
    pub block_z: u32,
    /// Dynamic shared memory of a block, bytes.
    pub shared_bytes: u64,
    /// Stream handle.
    pub stream: u64,
    /// Return address.
    pub caller: u64,
}

/// Reads a saved `struct pt_regs`, directly or through a helper, whichever the program type allows.
pub trait SavedRegisters: Copy {
    /// The `T` that lies `offset` bytes into the structure.
    fn read<T: Copy + Default>(self, offset: usize) -> T;
}
