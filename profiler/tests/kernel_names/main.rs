//! Kernel names from files: small programs built here with gcc as nvcc builds them, whole, stripped, broken.
//!
//! Longer: `PROPTEST_CASES=100000 cargo test -p profiler --test kernel_names hostile`.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]
#![expect(clippy::print_stdout, reason = "a test says why it cannot run here")]

mod arm;
mod hostile;
mod kept;
mod live;
mod programs;
mod recovery;
