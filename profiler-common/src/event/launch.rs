//! A kernel launch, whichever of the four argument layouts it came in.

use super::Head;

/// One kernel launch, at entry: 64 bytes.
///
/// `head.detail` is the block's z size. CUDA bounds a grid's y and z at 65,535 and a block at 1,024 threads, so
/// the narrow fields hold every launch that can succeed; larger values saturate.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Launch {
    /// Kind, API, process, thread, time.
    pub head: Head,
    /// Host function, `cudaKernel_t` or `CUfunction`: what the API was given to say which kernel.
    pub function: u64,
    /// Stream handle: 0, 1 and 2 are the default, legacy and per-thread streams.
    pub stream: u64,
    /// Return address at entry: tells a driver launch made by the runtime from one made by anybody else.
    pub caller: u64,
    /// Blocks in x.
    pub grid_x: u32,
    /// Blocks in y.
    pub grid_y: u16,
    /// Blocks in z.
    pub grid_z: u16,
    /// Threads of a block in x.
    pub block_x: u16,
    /// Threads of a block in y.
    pub block_y: u16,
    /// Dynamic shared memory of a block, bytes.
    pub shared_bytes: u32,
}
