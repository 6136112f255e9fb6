//! The profiler, attached for real: what it says is compared with what the stand-ins, the server and its client
//! counted, and the server is looked at for harm. Runs as root; elsewhere each test says why it is skipped.
//!
//! Absent: real servers (`servers/`), a real collector (`collector.rs`), real GPUs (`cargo xtask gpu`).

#[cfg(test)]
mod agent;
#[cfg(test)]
mod attach;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod callers;
#[cfg(test)]
mod checks;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod contexts;
#[cfg(test)]
mod counts;
#[cfg(test)]
mod coverage;
#[cfg(test)]
mod devices;
#[cfg(test)]
mod every_call;
#[cfg(test)]
mod libcudart;
#[cfg(test)]
mod load;
#[cfg(test)]
mod loss;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod nvcc;
#[cfg(test)]
mod record;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod rides;
#[cfg(test)]
mod safety;
#[cfg(test)]
mod scrape;
#[cfg(test)]
mod sockets;
#[cfg(test)]
mod system;
#[cfg(test)]
mod tls_edges;
#[cfg(test)]
mod traces;
