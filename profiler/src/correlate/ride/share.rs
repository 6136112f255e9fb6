//! A part of the work of steps.

use crate::correlate::step::Step;

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
    /// GPU time, nanoseconds: the best that is known, between the bounds.
    pub gpu_ns: u64,
    /// How it is known: the weakest of its parts.
    pub class: TimeClass,
    /// Energy of its device in that time, microjoules, as far as its power is known.
    pub energy_uj: u64,
    /// There is work in it of which the power is not known.
    pub unpowered: bool,
}

/// How a GPU time is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimeClass {
    /// The application's own events, or a counter of the device, measured it.
    #[default]
    Measured,
    /// It lies between bounds that waits give.
    Bounded,
    /// It is made up of what launches of the same kernels took elsewhere.
    Estimated,
}

impl TimeClass {
    /// The value of `gpuspan.gpu.time_class`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Bounded => "bounded",
            Self::Estimated => "estimated",
        }
    }
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
            gpu_ns: step.gpu_ns,
            class: step.class,
            ..Self::default()
        }
    }

    /// All of its energy in joules, if all of it is known.
    #[must_use]
    pub fn energy_j(&self) -> Option<f64> {
        (!self.unpowered && self.energy_uj > 0).then_some(self.energy_uj as f64 / 1e6)
    }

    /// There was GPU work to share: an engine on the CPU has steps and none.
    #[must_use]
    pub fn has_gpu(&self) -> bool {
        self.gpu_hi_ns > 0 || self.launches > 0 || self.copies > 0
    }

    /// Adds more work of the same step.
    pub fn add_to_step(&mut self, other: &Self) {
        let steps = self.steps.max(other.steps);
        self.add(other);
        self.steps = steps;
    }

    /// Adds another share to this.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.launches += other.launches;
        self.copies += other.copies;
        self.copy_bytes += other.copy_bytes;
        self.gpu_lo_ns += other.gpu_lo_ns;
        self.gpu_hi_ns += other.gpu_hi_ns;
        self.gpu_ns += other.gpu_ns;
        self.class = self.class.max(other.class);
        self.energy_uj += other.energy_uj;
        self.unpowered |= other.unpowered;
    }
}
