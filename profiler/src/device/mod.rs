//! Devices: what NVML and amdgpu say of GPUs, and of the target's processes on them.
//!
//! In: the driver's library, sysfs, the target's pids. Out: [`Reading`]s, which go where all inputs of the correlating
//! thread go, so that a recording has them. Deliberately absent: settings of devices; nothing is ever changed.
//!
//! ```text
//! libnvidia-ml ─► nvml ─┐
//! sysfs ────────► amd  ─┴► sampler (a thread, by `rhythm`) ──Reading──► session ─► metric, energy of requests
//! ```

mod amd;
mod inventory;
mod log;
mod model;
pub mod nvml;
mod rhythm;
mod running;
mod sampler;
mod settings;
mod survey;
mod total;
mod whose;

pub use log::{DeviceAccount, Devices, Log};
pub use model::{
    Cost, Device, Domain, ErrorKind, Fact, Held, Limit, Link, Note, Place, Reading, Reason, Rows, Sample,
    Sensor, State, Task, Unit, Way, What,
};
pub use running::Running;
pub use sampler::run;
pub use settings::{INTERVAL, SHARE, SHORTEST, Scope, Settings};
pub use survey::{Found, survey};
pub use whose::Targets;
