//! Which processes publish what their threads work for, as the kernel side is told. In: where that lies. Out: an entry of its
//! table, and marks that make its probes look. Absent: how it is found ([`crate::attach::publish`]).

use super::{Kernel, KernelError};
use crate::attach::publish::Unpublished;
use crate::attach::tables::{SettingsPod, VariablePod};
use profiler_common::event::Variable;
use profiler_common::stream::map;

impl Kernel {
    /// Says where the threads of a process of a group publish what they work for.
    ///
    /// # Errors
    /// When it cannot be read, or there is no room for it.
    pub fn publishes(&mut self, pid: u32, group: u8, variable: Variable) -> Result<(), Unpublished> {
        if !self.finds_threads {
            return Err(Unpublished::NoThreadPointer);
        }
        self.tables.variables.insert(pid, VariablePod(variable), 0).map_err(|_| Unpublished::NoRoom)?;
        self.publishing.insert(pid, group);
        self.count_publishers(group);
        Ok(())
    }

    /// The threads of a process publish nothing any more.
    pub fn publishes_nothing(&mut self, pid: u32) {
        let Some(group) = self.publishing.remove(&pid) else { return };
        // The process may have taken it down by running another program.
        let _ = self.tables.variables.remove(&pid);
        self.count_publishers(group);
    }

    /// Probes look for what threads publish in groups where one does; at sockets, where anybody does.
    fn count_publishers(&mut self, group: u8) {
        let any = self.publishing.values().any(|of| *of == group);
        if let Some(settings) = self.settings.get_mut(usize::from(group)) {
            settings.contexts = u32::from(any);
        }
        let set = self.set_settings(group);
        let count = self.tables.publishers.set(0, self.publishing.len() as u64, 0);
        if set.is_err() || count.is_err() {
            tracing::warn!(group, "the kernel side was not told whose threads publish their spans");
        }
    }

    /// Tells the kernel side the settings of a group.
    pub(super) fn set_settings(&mut self, group: u8) -> Result<(), KernelError> {
        let Some(settings) = self.settings.get(usize::from(group)) else { return Ok(()) };
        let set = self.tables.settings.set(u32::from(group), SettingsPod(*settings), 0);
        set.map_err(|error| KernelError::Table(map::SETTINGS, error))
    }
}
