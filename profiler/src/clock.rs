//! Time domains. The kernel side stamps with `CLOCK_MONOTONIC`; exporters want Unix time.

use std::time::{SystemTime, UNIX_EPOCH};

/// `CLOCK_MONOTONIC`, nanoseconds: the clock of `bpf_ktime_get_ns`.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, and CLOCK_MONOTONIC exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// CPU time of the calling thread, nanoseconds.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, and CLOCK_THREAD_CPUTIME_ID exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Unix time, nanoseconds.
#[must_use]
pub fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// What Unix time is ahead of `CLOCK_MONOTONIC` now, nanoseconds.
///
/// Sampled between two readings of the monotonic clock, the best of three, so that being scheduled away between
/// the readings does not spoil it. Sample anew from time to time: the wall clock is stepped and slewed.
#[must_use]
pub fn unix_offset_ns() -> i64 {
    let sample = || {
        let before = monotonic_ns();
        let unix = unix_ns();
        let after = monotonic_ns();
        (after - before, unix.cast_signed() - before.midpoint(after).cast_signed())
    };
    [sample(), sample(), sample()].into_iter().min().map_or(0, |(_, offset)| offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monotonic_moment_becomes_the_unix_moment() {
        let converted = monotonic_ns().saturating_add_signed(unix_offset_ns());
        assert!(converted.abs_diff(unix_ns()) < 50_000_000);
    }
}
