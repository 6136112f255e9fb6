//! Atomic changes of words that several CPUs, or both sides, change.
//!
//! The machine has these instructions from its version 3 on (Linux 5.12), but `core::sync::atomic` hides them from
//! a target without compare-and-swap in its description, so they are taken from the compiler's intrinsics.

use core::{
    intrinsics::{AtomicOrdering, atomic_and, atomic_or, atomic_xadd, atomic_xsub},
    ptr,
};

/// An operation of this order is compiled to the instruction that does not fetch, whether its result is used or
/// not (LLVM 22), so it serves only those whose result nobody wants.
const BLIND: AtomicOrdering = AtomicOrdering::Relaxed;

/// An operation of this order is compiled to the instruction that fetches.
const FETCHING: AtomicOrdering = AtomicOrdering::SeqCst;

/// The widths that the machine's atomic instructions have.
pub trait Width: Copy {}
impl Width for u32 {}
impl Width for u64 {}

/// A word in a map: the value of an array, or a field of a value.
#[derive(Clone, Copy)]
pub struct Word<T>(*mut T);

impl<T: Width> Word<T> {
    /// # Safety
    ///
    /// `place` must lie, aligned, in a map value that stays while the program runs, and everybody must change it
    /// by atomics only.
    #[inline(always)]
    pub unsafe fn new(place: *mut T) -> Self {
        Self(place)
    }

    /// The value now.
    #[inline(always)]
    pub fn get(self) -> T {
        // SAFETY: `new` demands a live, aligned word.
        unsafe { ptr::read_volatile(self.0) }
    }

    /// Replaces the value, whatever others do to it meanwhile.
    #[inline(always)]
    pub fn set(self, value: T) {
        // SAFETY: `new` demands a live, aligned word.
        unsafe { ptr::write_volatile(self.0, value) };
    }

    /// Adds.
    #[inline(always)]
    pub fn add(self, n: T) {
        // SAFETY: `new` demands a live, aligned word that everybody changes by atomics.
        unsafe { atomic_xadd::<T, T, BLIND>(self.0, n) };
    }

    /// Sets bits.
    #[inline(always)]
    pub fn or(self, bits: T) {
        // SAFETY: as in `add`.
        unsafe { atomic_or::<T, T, BLIND>(self.0, bits) };
    }

    /// Keeps only these bits.
    #[inline(always)]
    pub fn and(self, bits: T) {
        // SAFETY: as in `add`.
        unsafe { atomic_and::<T, T, BLIND>(self.0, bits) };
    }

    /// Adds, and returns what was there.
    #[inline(always)]
    pub fn fetch_add(self, n: T) -> T {
        // SAFETY: as in `add`.
        unsafe { atomic_xadd::<T, T, FETCHING>(self.0, n) }
    }

    /// Subtracts, and returns what was there.
    #[inline(always)]
    pub fn fetch_sub(self, n: T) -> T {
        // SAFETY: as in `add`.
        unsafe { atomic_xsub::<T, T, FETCHING>(self.0, n) }
    }

    /// Sets bits, and returns what was there.
    #[inline(always)]
    pub fn fetch_or(self, bits: T) -> T {
        // SAFETY: as in `add`.
        unsafe { atomic_or::<T, T, FETCHING>(self.0, bits) }
    }
}
