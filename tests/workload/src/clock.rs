//! The one clock of every log: `CLOCK_MONOTONIC`, the clock that `bpf_ktime_get_ns` reads too.

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec for the call's duration; this clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Sleeps until the monotonic clock shows `deadline_ns`; returns at once when it has passed.
pub fn sleep_until(deadline_ns: u64) {
    let left = deadline_ns.saturating_sub(monotonic_ns());
    if left > 0 {
        std::thread::sleep(std::time::Duration::from_nanos(left));
    }
}
