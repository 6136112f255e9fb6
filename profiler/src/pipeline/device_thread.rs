//! The thread that reads devices.

use super::{RunError, join, spawn};
use crate::device::{self, Scope, Settings, Targets};
use crate::session::Input;
use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender, channel};
use std::thread::JoinHandle;

/// The thread, if devices are read at all.
pub struct DeviceThread(Option<(Sender<()>, JoinHandle<()>)>);

impl DeviceThread {
    pub fn start(
        settings: &Settings,
        targets: &Arc<Targets>,
        events_to_correlate: SyncSender<Input>,
    ) -> Result<Self, RunError> {
        if settings.scope == Scope::Off {
            return Ok(Self(None));
        }
        let (end, ended) = channel();
        let (settings, targets) = (settings.clone(), Arc::clone(targets));
        let thread = spawn("devices", move || {
            let mut send = |reading| events_to_correlate.send(Input::Devices(Box::new(reading))).is_ok();
            device::run(&settings, &targets, &ended, &mut send);
        })?;
        Ok(Self(Some((end, thread))))
    }

    /// Devices are read for the last time; no reading comes after this.
    pub fn finish(self) -> Result<(), RunError> {
        let Some((end, thread)) = self.0 else { return Ok(()) };
        drop(end);
        join("devices", thread)
    }
}
