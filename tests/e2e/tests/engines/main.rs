//! What servers say inside, against small programs that speak as the real ones do and keep an exact record: their wire
//! format, or the functions of their libraries. `gpuspan` is attached for real, and every step, member, token and moment
//! that it tells is compared.
//!
//! Absent: real servers (`tests/servers`); the formats by themselves (unit tests of `server`).
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]
#![expect(clippy::print_stdout, reason = "a test says why it cannot run here")]

mod frames;
mod lines;
mod llama_edges;
mod sglang;
mod tgi;
mod triton;
