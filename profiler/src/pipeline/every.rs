//! A moment that comes again and again.

use std::time::{Duration, Instant};

/// A recurring moment.
pub struct Every {
    /// Between two of them.
    pub period: Duration,
    /// The next one.
    pub next: Instant,
}

impl Every {
    /// For the first time after a period.
    pub fn new(period: Duration) -> Self {
        Self { period, next: Instant::now() + period }
    }

    /// Due for the first time now.
    pub fn at_once(mut self) -> Self {
        self.next = Instant::now();
        self
    }

    /// Whether it is time, once for each time.
    pub fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = now >= self.next;
        if due {
            self.next = now + self.period;
        }
        due
    }
}
