//! Real HTTP servers with a client that keeps its own record: every request that gpuspan tells of is compared with what
//! the client saw of it, plain and in TLS, by HTTP/1, HTTP/2 and gRPC. `cargo xtask test servers protocols` runs them,
//! `cargo xtask test servers nginx` those with a name; elsewhere each test says why it is skipped.
//!
//! Absent: model servers with an engine (`tests/servers`) and single edge cases (`tests/kernel`, unit tests of `http`).
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]
#![expect(clippy::print_stdout, reason = "a test says how close it was, and why it cannot run here")]

/// Ends a test early, saying why, where real servers are not asked for or nothing can be attached.
macro_rules! or_skip_servers {
    () => {
        if std::env::var_os("GPUSPAN_SERVERS").is_none() {
            println!("skipped: real servers are fetched; `cargo xtask test servers protocols` runs them");
            return;
        }
        e2e::or_skip!();
    };
}

mod agree;
mod client;
mod events;
mod grpc;
mod protocols;
mod rig;
mod secrets;
mod server;
mod tls;
mod unread;
