//! Compile-time checks: sizes are frozen, and no record has padding that the kernel would send uninitialised.

use crate::{counter::Counters, event::*, stream};

macro_rules! frozen {
    ($($ty:ty = $size:literal as [$($field:ty),*]),* $(,)?) => {
        $(const _: () = {
            assert!(size_of::<$ty>() == $size, "the size of a record is part of the contract");
            assert!(0 $(+ size_of::<$field>())* == $size, "a record has padding, or a field is not listed");
        };)*
        /// Name and size of every type of the contract, for diagnostics.
        pub const SIZES: &[(&str, usize)] = &[$((stringify!($ty), $size)),*];
    };
}

frozen! {
    Head = 24 as [u32, u16, u16, u32, u32, u64],
    Launch = 64 as [Head, u64, u64, u64, u32, u16, u16, u16, u16, u32],
    Call = 64 as [Head, [u64; 5]],
    CallDone = 88 as [Head, u64, [u64; 5], i64, u64],
    Process = 32 as [Head, u32, u32],
    SocketOpen = 40 as [Head, u64, u32, u32],
    SocketData = 48 as [Head, u64, u64, u32, u32],
    SocketEnd = 56 as [Head, u64, u32, u32, u64, u64],
    Counters = 48 as [u64, u64, u64, u64, u64, u64],
    stream::Descriptor = 8 as [u32, u32],
    stream::Stream = 24 as [u64, u64, u32, u32],
}
