//! gpuspan: a zero-instrumentation profiler for GPU model servers.
//!
//! The modules stand in the order in which data travels:
//!
//! ```text
//!  kernel                                   user space
//!  probe ─► ring ─► receive ─► decode ─► correlate ─► span / metric ─► export
//!    ▲                                       ▲
//!  attach ◄── target (processes, libraries)  ├──── http, server (requests, routes)
//!                                            └──── device (NVML, amdgpu)
//!                                    symbol (kernel names), stack (who launches)
//! ```
//!
//! `decode`, `http`, `h2`, `correlate`, `span` and `metric` are pure: no I/O, no clock, no threads. `control` looks at the
//! system, `session` holds what correlation needs, `pipeline` wires it all.

pub mod attach;
pub mod correlate;
pub mod decode;
pub mod device;
pub mod discover;
pub mod export;
pub mod h2;
pub mod http;
pub mod kubernetes;
pub mod metric;
pub mod place;
pub mod probe;
pub mod receive;
pub mod record;
pub mod server;
pub mod span;
pub mod stack;
pub mod symbol;
pub mod target;

pub mod account;
pub mod agent;
mod bell;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod evidence;
pub mod facts;
mod hold;
pub mod interned;
pub mod pipeline;
pub mod session;
pub mod summary;
pub mod view;

/// An error with its causes on one line, as a log line or the last word of the program has it.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
