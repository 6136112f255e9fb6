//! The thread that reads devices.

use super::{RunError, join, spawn};
use crate::device::{self, Reading, Scope, Settings, Targets};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

/// The thread, if devices are read at all.
pub struct DeviceThread(Option<(Sender<()>, JoinHandle<()>)>);

impl DeviceThread {
    pub fn start(
        settings: &Settings,
        targets: &Arc<Targets>,
        mut send: impl FnMut(Box<Reading>) -> bool + Send + 'static,
    ) -> Result<Self, RunError> {
        if settings.scope == Scope::Off {
            return Ok(Self(None));
        }
        let (end, ended) = channel();
        let (settings, targets) = (settings.clone(), Arc::clone(targets));
        let thread = spawn("devices", move || {
            device::run(&settings, &targets, &ended, &mut |reading| send(Box::new(reading)));
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
