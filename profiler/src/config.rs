//! Resolved settings of an observation: what the flags and the environment came to.

use crate::attach::KernelSettings;
use crate::export;
use crate::metric::Compat;
use std::path::PathBuf;
use std::time::Duration;

/// What goes to standard output while observing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// A live table on a terminal, plain lines elsewhere.
    #[default]
    Table,
    /// One JSON object a finished request.
    Json,
    /// Nothing.
    None,
}

/// Everything that `attach` needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Process to attach to, with its children.
    pub pid: u32,
    /// How long; until interrupted when `None`.
    pub duration: Option<Duration>,
    /// What goes to standard output.
    pub output: Output,
    /// Where the summary goes at the end.
    pub summary: Option<PathBuf>,
    /// Kernel side.
    pub kernel: KernelSettings,
    /// Devices.
    pub devices: crate::device::Settings,
    /// Exporters.
    pub export: export::Settings,
    /// Which traces there are.
    pub traces: crate::span::Settings,
    /// Metrics under other names, too.
    pub compat: Option<Compat>,
    /// Resource attributes that the operator gives to the target, service name included.
    pub given: Vec<(String, String)>,
    /// Where the observation is recorded.
    pub record: Option<PathBuf>,
    /// File to write once the probes are in place, for scripts that must not start too early.
    pub ready_file: Option<PathBuf>,
}

/// Everything that `replay` needs to know.
#[derive(Clone, Debug)]
pub struct Replay {
    /// The recording.
    pub recording: PathBuf,
    /// What goes to standard output.
    pub output: Output,
    /// Exporters.
    pub export: export::Settings,
    /// Which traces there are.
    pub traces: crate::span::Settings,
    /// Metrics under other names, too.
    pub compat: Option<Compat>,
}
