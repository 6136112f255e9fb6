//! How many bytes a second leave for the network. In: the sizes of requests. Out: how long each waits. One for both
//! signals. What waits is in the queues, and what finds no room there is dropped and counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// What was not sent earlier may be sent at once, but no more than of this time.
const BURST: Duration = Duration::from_secs(1);

/// A limit that can be changed while requests wait.
#[derive(Debug, Default)]
pub struct Pace {
    /// Bytes a second; 0 is no limit.
    limit: AtomicU64,
    /// When all that was let go will have been sent at the limit's pace.
    sent: Mutex<Option<Instant>>,
}

impl Pace {
    /// Another limit, bytes a second; none lets everything go.
    pub fn set(&self, limit: Option<u64>) {
        self.limit.store(limit.unwrap_or(0), Ordering::Relaxed);
    }

    /// Bytes a second, if there is a limit.
    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        Some(self.limit.load(Ordering::Relaxed)).filter(|limit| *limit > 0)
    }

    /// Waits until so many bytes may be sent. A request that is larger than a second's share goes as a whole, and what
    /// follows waits for it.
    pub async fn wait(&self, bytes: usize) {
        if let Some(at) = self.reserve(bytes as u64, Instant::now()) {
            sleep_until(at).await;
        }
    }

    fn reserve(&self, bytes: u64, now: Instant) -> Option<Instant> {
        let limit = self.limit()?;
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let start = sent.unwrap_or(earliest).max(earliest);
        *sent = Some(start + Duration::from_secs_f64(bytes as f64 / limit as f64));
        (start > now).then_some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_limit() {
        let pace = Pace::default();
        let now = Instant::now();
        assert_eq!(pace.reserve(u64::from(u32::MAX), now), None, "no limit");
        pace.set(Some(1000));
        let wait_ms = |bytes, at| pace.reserve(bytes, at).map(|due| due.duration_since(now).as_millis());
        assert_eq!(wait_ms(600, now), None);
        assert_eq!(wait_ms(400, now), None, "a second's share");
        assert_eq!(wait_ms(500, now), None, "the last that fits begins within it");
        assert_eq!(wait_ms(5000, now), Some(500));
        assert_eq!(wait_ms(1, now), Some(5500), "after the large one");
        let later = now + Duration::from_secs(60);
        assert_eq!(wait_ms(1500, later), None, "what was not used is not saved up");
        assert_eq!(wait_ms(1, later), Some(60_500));
        pace.set(None);
        assert_eq!(wait_ms(1 << 30, later), None);
    }
}
