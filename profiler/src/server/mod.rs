//! What is particular to a model server: how it is recognised, which routes it has, and what it says inside.
//!
//! ```text
//! messages, calls, shared memory ─► adapter (codec, schema, checks) ─► what was said, in one vocabulary
//! ```
//! One file or folder per server. All of it is pure; what is heard comes from `decode`, what is said goes to
//! `correlate`.

pub mod adapter;
pub mod codec;
pub mod known;
mod limits;
pub mod llama;
mod own_spans;
pub mod registry;
pub mod route;
pub mod said;
pub mod sglang;
pub mod tgi;
pub mod triton;
pub mod visibility;
pub mod vllm;

pub use limits::Limits;
pub use own_spans::{VARIABLES, own_spans};
