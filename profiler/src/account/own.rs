//! What an observation costs: CPU time, memory, time in the kernel-side programs.

use serde::{Deserialize, Serialize};

/// Own cost.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Own {
    /// CPU time of gpuspan, seconds.
    pub cpu_s: f64,
    /// Largest resident size, bytes.
    pub max_rss_bytes: u64,
    /// Time in the kernel-side programs, nanoseconds; 0 unless `kernel.bpf_stats_enabled` is set.
    pub bpf_run_ns: u64,
    /// Runs of the kernel-side programs, likewise.
    pub bpf_run_count: u64,
    /// Time to attach all probes, milliseconds.
    pub attach_ms: f64,
    /// Time to detach all probes, milliseconds.
    pub detach_ms: f64,
}

impl Own {
    /// CPU time and memory of this process so far.
    #[must_use]
    pub fn usage() -> Self {
        // SAFETY: an all-zero rusage is valid, and the pointer is to a live one.
        let usage = unsafe {
            let mut usage = std::mem::zeroed::<libc::rusage>();
            libc::getrusage(libc::RUSAGE_SELF, &mut usage);
            usage
        };
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        Self {
            cpu_s: seconds(usage.ru_utime) + seconds(usage.ru_stime),
            max_rss_bytes: usage.ru_maxrss.cast_unsigned() * 1024,
            ..Self::default()
        }
    }
}
