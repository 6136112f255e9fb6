//! Processes that are gone: their metrics leave, too, when nothing more can come of them.

use crate::metric::Registry;
use crate::span::model::Resource;
use std::sync::Arc;

/// How long a request or an iteration of a process may be told after its end: as long as work waits for its iteration.
const GRACE_NS: u64 = 30_000_000_000;

/// Who is gone since when, in that order.
#[derive(Debug, Default)]
pub struct Leaving(Vec<(u64, u32, Arc<Resource>)>);

impl Leaving {
    /// A process is gone at `time_ns` (`CLOCK_MONOTONIC`).
    pub fn add(&mut self, time_ns: u64, pid: u32, resource: Arc<Resource>) {
        self.0.push((time_ns, pid, resource));
    }

    /// It is there after all. Another process that got its number is not the same.
    pub fn stay(&mut self, pid: u32, resource: &Resource) {
        self.0.retain(|(_, of, leaving)| *of != pid || **leaving != *resource);
    }

    /// Lets go of those that have been gone for long: their metrics are told once more. Returns who they were.
    pub fn let_go(&mut self, now_ns: u64, registry: &Registry) -> Vec<(u32, Arc<Resource>)> {
        let due = |of: &mut (u64, u32, Arc<Resource>)| of.0.saturating_add(GRACE_NS) <= now_ns;
        let gone: Vec<_> = self.0.extract_if(.., due).collect();
        for (_, pid, resource) in &gone {
            tracing::debug!(pid, "metrics of an ended process end");
            // The time is that of a beginning, where there is none of it.
            registry.target(resource, 0).retire();
        }
        gone.into_iter().map(|(_, pid, resource)| (pid, resource)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::catalog;
    use crate::span::model::text;

    #[test]
    fn metrics_leave_a_while_after_their_process() {
        let registry = Registry::default();
        let resource = |name: &str| {
            let attributes = vec![("service.name".into(), text(name))];
            Arc::new(Resource { attributes })
        };
        let names = ["ends", "stays", "runs"];
        for name in names {
            registry.target(&resource(name), 1).add(&catalog::CUDA_SET_BYTES, &[], 1);
        }
        let mut leaving = Leaving::default();
        leaving.add(5, 1, resource("ends"));
        leaving.add(5, 2, resource("stays"));
        leaving.stay(2, &resource("stays"));
        // Another process got its number.
        leaving.stay(1, &resource("runs"));
        assert!(leaving.let_go(GRACE_NS + 4, &registry).is_empty());
        assert_eq!(registry.snapshot(1).targets.len(), 3);
        assert_eq!(leaving.let_go(GRACE_NS + 5, &registry), [(1, resource("ends"))]);
        assert_eq!(registry.snapshot(2).targets.len(), 3, "once more");
        let left: Vec<_> = registry.snapshot(3).targets.into_iter().map(|target| target.resource).collect();
        assert_eq!(left, [resource("stays"), resource("runs")]);
        assert!(leaving.let_go(u64::MAX, &registry).is_empty());
    }
}
