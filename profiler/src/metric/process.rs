//! What processes use of the machine → metrics. In: figures of the kernel. Out: points under the process's resource.

use super::catalog::{self, attribute as name};
use super::{Target, level};
use crate::span::model::text;
use crate::target::ProcessUse;

/// Takes over what a process uses.
pub fn process(target: &Target, of: &ProcessUse) {
    for (mode, seconds) in [("user", of.user_s), ("system", of.system_s)] {
        target.handle(&catalog::PROCESS_CPU_TIME, &[(name::CPU_MODE, text(mode))]).observe(seconds);
    }
    target.handle(&catalog::PROCESS_MEMORY, &[]).set(level(of.resident_bytes));
    target.handle(&catalog::PROCESS_VIRTUAL_MEMORY, &[]).set(level(of.virtual_bytes));
    target.handle(&catalog::PROCESS_THREADS, &[]).set(level(of.threads));
    if let Some(descriptors) = of.descriptors {
        target.handle(&catalog::PROCESS_DESCRIPTORS, &[]).set(level(descriptors));
    }
    target.handle(&catalog::PROCESS_UPTIME, &[]).set(of.uptime_s);
}
