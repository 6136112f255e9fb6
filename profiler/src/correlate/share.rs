//! A request's part of the steps it rode in. Whole numbers are split so that the parts add up to the whole.

use super::step::Step;

/// Part of the work of one or more steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Steps it may have ridden in.
    pub steps: u64,
    /// Kernel launches and graph launches.
    pub launches: u64,
    /// Copies.
    pub copies: u64,
    /// Bytes copied.
    pub copy_bytes: u64,
    /// GPU time at least, nanoseconds.
    pub gpu_lo_ns: u64,
    /// GPU time at most, nanoseconds.
    pub gpu_hi_ns: u64,
}

impl Share {
    /// The whole of a step.
    #[must_use]
    pub fn whole(step: &Step) -> Self {
        let (gpu_lo_ns, gpu_hi_ns) = step.gpu_bounds_ns();
        Self {
            steps: 1,
            launches: step.work.launches + step.work.graph_launches,
            copies: step.work.copy_count(),
            copy_bytes: step.work.copy_bytes(),
            gpu_lo_ns,
            gpu_hi_ns,
        }
    }

    /// Part `index` of `members`; the first parts take what does not divide. Steps are not divided: each member
    /// rode in the whole step.
    #[must_use]
    pub fn part(&self, index: u64, members: u64) -> Self {
        let of = |whole: u64| whole / members.max(1) + u64::from(index < whole % members.max(1));
        Self {
            steps: self.steps,
            launches: of(self.launches),
            copies: of(self.copies),
            copy_bytes: of(self.copy_bytes),
            gpu_lo_ns: of(self.gpu_lo_ns),
            gpu_hi_ns: of(self.gpu_hi_ns),
        }
    }

    /// Adds another share to this.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.launches += other.launches;
        self.copies += other.copies;
        self.copy_bytes += other.copy_bytes;
        self.gpu_lo_ns += other.gpu_lo_ns;
        self.gpu_hi_ns += other.gpu_hi_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_the_whole() {
        let whole =
            Share { steps: 1, launches: 101, copies: 2, copy_bytes: 1_000_003, gpu_lo_ns: 7, gpu_hi_ns: 999 };
        for members in 1..40 {
            let mut sum = Share::default();
            for index in 0..members {
                sum.add(&whole.part(index, members));
            }
            assert_eq!(Share { steps: 1, ..sum }, whole);
            assert_eq!(sum.steps, members);
        }
    }
}
