//! A model server and its client, small enough to know exactly what they did.
//!
//! In: options (the same ones the two binaries take). Out: a truth log of every request, token and engine
//! step of the server ([`truth`]), and one record per request of the client ([`client`]); tests compare what a
//! profiler saw with both. Deliberately absent: a model. Tokens are drawn from a seeded vocabulary and kernels
//! only burn time, but the sockets, the batching, the CUDA calls and their order are those of a real server.

pub mod client;
pub mod clock;
mod engine;
mod gpu;
pub mod options;
mod process;
mod server;
pub mod truth;

pub use client::{ClientOptions, ClientRecord, load};
pub use options::ServerOptions;
pub use process::{ServerProcess, cargo, server_binary};
pub use server::run;
pub use truth::ServerTruth;
