//! The agent: what `gpuspan agent` is told and does on a node.

pub mod config;
