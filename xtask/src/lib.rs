//! The part of the developer's commands that tests use too: real model servers and backends, the dashboards, and what
//! users install. What only the command line needs stays in `main.rs`.
#![expect(clippy::print_stdout, reason = "a developer's tool talks on its standard output")]

pub mod backend;
pub mod collector;
pub mod dashboards;
pub mod debian;
pub mod server;
pub mod ship;
