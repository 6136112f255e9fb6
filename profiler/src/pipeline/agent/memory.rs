//! What the allocator may keep for the next who asks. An agent lives for months beside targets that come and go, and what
//! each thread's heap keeps of them adds up: fifty at a time left three times as much resident as was in use.

/// One heap for all threads, and large blocks outside of it. To be said before there are threads.
pub fn spare() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, 256 << 10)] {
        // SAFETY: no preconditions. Of a parameter that is not known nothing becomes worse.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Gives free pages back. Loading reads the kernel's types, 20 MB that are not needed again; a snapshot of the metrics of
/// targets that came and went has megabytes.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no preconditions.
    unsafe {
        libc::malloc_trim(0)
    };
}
