//! Whether, how often and of what devices are read.

use std::path::PathBuf;
use std::time::Duration;

/// Between two readings of what is cheap, if nothing else is said. On an H100 such a round takes some 0.1 ms and what is
/// dear 5 to 8 ms, every tenth time: with eight devices that is within [`SHARE`], and no metric is exported more often.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// The shortest interval: NVML's own figures change every 100 ms (docs/gpu.md).
pub const SHORTEST: Duration = Duration::from_millis(100);

/// What is dear is read once in so many intervals.
pub const DEAR_EVERY: u32 = 10;

/// Between two readings of power of devices that the target uses: as often as an H100 makes a new figure.
pub const PULSE: Duration = Duration::from_millis(100);

/// Share of a core that all reading may take: beyond it what costs the most is read less often.
pub const SHARE: f64 = 0.005;

/// Which devices are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Scope {
    /// Those that the target uses.
    #[default]
    Target,
    /// All of the machine.
    All,
    /// None: no library is loaded.
    Off,
}

/// How devices are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which.
    pub scope: Scope,
    /// How often what is cheap is read.
    pub interval: Duration,
    /// NVML, where it is not `libnvidia-ml.so.1` on the loader's path.
    pub nvml: Option<PathBuf>,
    /// Where sysfs is.
    pub sys: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self { scope: Scope::default(), interval: INTERVAL, nvml: None, sys: PathBuf::from("/sys") }
    }
}
