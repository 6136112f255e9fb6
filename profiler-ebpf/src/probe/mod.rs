//! What is watched, one file per probe family.

mod gpu;
mod hint;
mod payload;
mod process;
mod server;
mod socket;
mod tls;
