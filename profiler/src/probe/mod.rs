//! The catalogue of probed functions, those of GPU libraries, of TLS libraries and of model servers: which symbols are
//! probed, how their arguments lie and what they mean.
//!
//! The single source for `attach` (what to look for), `decode` (what a record's `api` index stands for) and
//! `docs/probes.md`. Adding a function is adding a row. Argument positions are those of the public CUDA headers
//! (`cuda_runtime_api.h` 12.9 and 13.5, `cuda.h` 12.9 and 13.5) of `nccl.h` 2.32, and of
//! `openssl/ssl.h` 1.1.1 to 3.5.

mod copy;
mod driver;
pub mod error;
mod llama;
mod meaning;
mod nccl;
mod openssl;
mod page;
mod row;
mod runtime;
mod short;
mod triton;
mod zmq;

pub use copy::{Direction, Side, Size, Structure, Way};
pub use llama::{LAUNCH as LLAMA_LAUNCH, LAYOUTS, NEW_ID as LLAMA_NEW_ID};
pub use meaning::{KeyAt, Meaning, Memory, Node, StreamAt, Waits};
pub use page::markdown;
pub use row::{Api, Family, Layer, Only, Results};

/// Every probed function. A record's `api` is an index into this table.
///
/// `__cudaLaunchKernel` of CUDA 13 is absent on purpose: it jumps into `cudaLaunchKernel`, so a probe there would
/// count each launch twice. `_ptsz` and `_ptds` forms do not pass through the plain ones and stand beside them.
pub const CATALOG: &[Api] = &row::flatten::<{ row::count(TABLES) }>(TABLES);

const TABLES: &[&[row::Row]] = &[
    runtime::ROWS,
    driver::ROWS,
    nccl::ROWS,
    openssl::ROWS,
    zmq::ROWS,
    llama::ROWS,
    llama::SERVER_ROWS,
    triton::ROWS,
];

/// The entry of a record's `api` index, if this program knows it.
#[must_use]
pub fn api(index: u16) -> Option<&'static Api> {
    CATALOG.get(usize::from(index))
}

/// The entries of one library with their indices. `major` is the version of a runtime library (12, 13), where it is
/// known: a few functions changed their arguments under the same name.
pub fn of_library(layer: Layer, major: Option<u32>) -> impl Iterator<Item = (u16, &'static Api)> {
    (0u16..).zip(CATALOG).filter(move |(_, api)| api.layer == layer && api.only.fits(major))
}

#[cfg(test)]
mod tests;
