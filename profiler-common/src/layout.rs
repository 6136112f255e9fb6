//! Compile-time checks: sizes are frozen, and no record has padding that the kernel would send uninitialised.

use crate::{counter::Counters, event::*, hint::Hint, stream};

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
    Call = 80 as [Head, u64, [u64; 6]],
    CallDone = 112 as [Head, u64, u64, [u64; 6], i64, [u64; 2]],
    WideCall = 384 as [Head, u64, [u64; WIDE_ARGS], [u64; WIDE_WORDS]],
    CallFailed = 32 as [Head, i64],
    Named = 40 as [Head, u64, u32, u32],
    Stack = 552 as [Head, u64, u64, [u64; STACK_FRAMES]],
    Burst = 64 as [Head, u64, u64, u64, u64, u64],
    CountKey = 16 as [u64, u32, u16, u16],
    Count = 16 as [u64, u64],
    Thread = 72 as [u64, u64, u64, u64, u64, u64, u64, u64, u64],
    ThreadContext = 56 as [Head, [u8; 16], [u8; 8], u32, u32],
    Variable = 48 as [u64, u64, u64, u64, u64, u64],
    Told = 32 as [[u64; 4]],
    Settings = 16 as [u32, u32, u32, u32],
    Process = 32 as [Head, u32, u32],
    SocketOpen = 40 as [Head, u64, u32, u32],
    SocketData = 48 as [Head, u64, u64, u32, u32],
    SocketEnd = 56 as [Head, u64, u32, u32, u64, u64],
    Hint = 8 as [u32, u32],
    Counters = 48 as [u64, u64, u64, u64, u64, u64],
    stream::Descriptor = 8 as [u32, u32],
    TlsSession = 48 as [Head, u64, u64, u64],
    stream::Stream = 48 as [u64, u64, u64, u64, u32, u32, u64],
    stream::Wish = 16 as [u64, u64],
    stream::SessionKey = 16 as [u64, u64],
    stream::Session = 24 as [u64, u64, u64],
    Message = 48 as [Head, u64, u64, u32, u32],
    Batch = 48 as [Head, u64, u32, u32, u32, u32],
    BatchLayout = 40 as [u32, u32, u32, u32, u32, u32, u32, u32, u32, u32],
    List = 80 as [Head, [u64; 6], u32, u32],
    Ring = 40 as [u64, u64, u64, u32, u32, u32, u32],
    stream::Recent = 72 as [[u32; stream::RECENT], u64],
}
