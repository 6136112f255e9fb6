//! What a node tells of its targets. Plain data; nothing is changed here.

use super::{Node, Target};
use crate::agent::budget::Level;
use crate::agent::router::Router;
use crate::agent::status::{Report as Status, TargetStatus};
use crate::attach::Coverage;
use crate::span::model::Resource;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

impl Node {
    /// How things stand.
    #[must_use]
    pub fn status(&self, router: &Mutex<Router>) -> Status {
        let router = router.lock().unwrap_or_else(PoisonError::into_inner);
        let requests: BTreeMap<u8, u64> =
            router.sessions().map(|(group, session)| (group, session.requests.total)).collect();
        let target = |(group, target): (&u8, &Target)| {
            let attacher = &target.control.attacher;
            let processes: Vec<u32> = attacher.pids().collect();
            TargetStatus {
                pid: target.found.root,
                name: target.resource.service_name().unwrap_or_default().to_owned(),
                server: target.control.server,
                why: target.found.why.clone(),
                level: target.level,
                gpu_processes: processes.iter().filter(|pid| attacher.has_gpu(**pid)).count(),
                processes,
                cost: target.cost,
                requests: requests.get(group).copied().unwrap_or(0),
                observed_s: target.since.elapsed().as_secs(),
            }
        };
        Status {
            off: self.off.clone(),
            kubernetes: None,
            targets: self.targets.iter().map(target).collect(),
            passed: self.passed.clone(),
            not_ready: None,
        }
    }

    /// All processes that are observed.
    #[must_use]
    pub fn pids(&self) -> BTreeSet<u32> {
        self.targets.values().flat_map(|target| target.control.attacher.pids()).collect()
    }

    /// What is probed: of a target that is observed at [`Level::Requests`] or less, no GPU library.
    pub fn coverage(&self) -> impl Iterator<Item = &Coverage> {
        self.targets.values().flat_map(|target| {
            let with_gpu = target.level <= Level::Aggregate;
            let probed = move |of: &&Coverage| with_gpu || !of.roles.iter().any(|role| role.is_gpu());
            target.control.attacher.coverage().filter(probed)
        })
    }

    /// What each target is slowed down by, as a share of one core, under the resource of its topmost process.
    pub fn costs(&self) -> impl Iterator<Item = (&Arc<Resource>, f64)> {
        self.targets.values().map(|target| (&target.resource, target.cost))
    }

    /// All processes that are observed, with their target's group.
    pub fn processes(&self) -> impl Iterator<Item = (u8, u32)> {
        self.targets
            .iter()
            .flat_map(|(group, target)| target.control.attacher.pids().map(|pid| (*group, pid)))
    }

    /// Targets and how much of each is observed.
    pub fn levels(&self) -> impl Iterator<Item = Level> {
        self.targets.values().map(|target| target.level)
    }
}
