//! Stand-in CUDA libraries for machines without a GPU, and the truth about what ran on them.
//! In: nothing at run time; the libraries are built by `build.rs` from `c/`. Out: where they lie, the environment of a
//! child that shall use them, and [`Truth`], read from the files that each process keeps. Absent: any use of them by
//! this process itself.

mod environment;
mod ops;
mod told;
mod truth;

pub use environment::{Environment, Runtime, calls_program, command_env, library_dir, sockets_program};
pub use ops::{Kind, Op, ops};
pub use told::Told;
pub use truth::{Copies, Kernel, Process, Totals, Truth};
