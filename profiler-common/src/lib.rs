//! The contract between gpuspan's kernel side and its user side.
//!
//! Everything here is read by both: the records that travel through the ring buffer ([`event`]), the word that
//! tells the kernel side what stands at a probe ([`cookie`]), the kernel's own counters ([`counter`]), the
//! connection table ([`stream`]), and hints for discovery ([`hint`]). Only fixed-width integers, explicit padding and `repr(C)`: no `bool`, no enum,
//! no `Option` crosses the ring. `no_std`, no dependencies, no logic beyond packing and unpacking.
#![no_std]

pub mod cookie;
pub mod counter;
pub mod event;
pub mod hint;
pub mod layout;
pub mod stream;
