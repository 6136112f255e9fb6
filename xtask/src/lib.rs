//! The part of the developer's commands that tests use too: real model servers. What only the command line needs
//! stays in `main.rs`.
#![expect(clippy::print_stdout, reason = "a developer's tool talks on its standard output")]

pub mod server;
