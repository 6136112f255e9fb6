//! What is watched, one file per probe family.

mod gpu;
mod process;
mod socket;
