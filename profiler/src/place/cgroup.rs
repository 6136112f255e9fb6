//! The text of `/proc/PID/cgroup` → containers, pod, systemd unit and Slurm job. Total: any text gives something.
//! Absent: I/O, and guesses: a part of a path counts only if its whole form is known.
//!
//! A reader in a cgroup namespace of its own sees paths of others from its own place: `/../../pod…/…`. So no rule needs
//! the path's beginning. Forms and their sources:
//!
//! | who | form |
//! |---|---|
//! | kubelet, cgroupfs | `kubepods/burstable/pod<uid>/<id>`; without `burstable` the class is guaranteed |
//! | kubelet, systemd | `kubepods-burstable-pod<uid with _>.slice/cri-containerd-<id>.scope`, `crio-<id>.scope` |
//! | containerd under the wrong driver | `kubepods-burstable-pod<uid with _>.slice:cri-containerd:<id>` |
//! | Docker | `docker/<id>`, `docker-<id>.scope`; ECS `ecs/<task>/<id>`, Fargate `ecs/<task>/<task>-<number>` |
//! | podman | `libpod-<id>.scope`, `libpod-<id>`; inside a unit `libpod-payload-<id>` |
//! | Slurm, v1 | `slurm/uid_<uid>/job_<id>/step_<id>/task_<n>`, the root also `slurm_<node>` |
//! | Slurm, v2 | `slurmstepd.scope/job_<id>/step_<id>/user/task_<n>`, the root also `<node>_slurmstepd.scope` |

use super::{Container, PodRef, Qos, Slurm, Unit};

/// Containers in containers: more is an odd path, not a machine.
const MOST_CONTAINERS: usize = 8;
/// Services whose cgroup holds other people's containers. Their name says nothing about these.
const RUNTIMES: [&str; 5] =
    ["containerd.service", "crio.service", "docker.service", "kubelet.service", "podman.service"];

/// What a process's cgroups tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// Containers around the process, the outermost first.
    pub containers: Vec<Container>,
    /// The pod.
    pub pod: Option<PodRef>,
    /// The systemd unit.
    pub unit: Option<Unit>,
    /// The Slurm job.
    pub slurm: Option<Slurm>,
}

/// Reads all lines. Controllers of cgroup v1 may lie in different groups: each fact is taken from the line that says
/// most about it, systemd's own hierarchy and v2 before others.
#[must_use]
pub fn parse(text: &str) -> Cgroup {
    let mut lines: Vec<(bool, Cgroup)> = text.lines().filter_map(line).collect();
    // A stable sort: systemd's lines first, the rest in the kernel's order.
    lines.sort_by_key(|(systemd, _)| !systemd);
    lines.into_iter().map(|(_, cgroup)| cgroup).fold(Cgroup::default(), merge)
}

/// `hierarchy:controllers:path`, and whether systemd keeps its units in that hierarchy.
fn line(line: &str) -> Option<(bool, Cgroup)> {
    let (hierarchy, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    Some((hierarchy == "0" || controllers == "name=systemd", of_path(path)))
}

fn merge(known: Cgroup, other: Cgroup) -> Cgroup {
    let deeper = other.containers.len() > known.containers.len();
    // A container's process may have stayed where its runtime is, in a hierarchy that the runtime does not use: that
    // unit is not the container's.
    let unit = match (deeper, known.containers.is_empty()) {
        (true, _) => other.unit,
        (false, true) => known.unit.or(other.unit),
        (false, false) => known.unit,
    };
    Cgroup {
        containers: if deeper { other.containers } else { known.containers },
        pod: known.pod.or(other.pod),
        unit,
        slurm: known.slurm.or(other.slurm),
    }
}

fn of_path(path: &str) -> Cgroup {
    let parts: Vec<&str> = path.split(['/', ':']).filter(|part| !part.is_empty()).collect();
    let mut containers: Vec<(usize, Container)> = Vec::new();
    let mut pod = None;
    for (index, part) in parts.iter().enumerate() {
        let before = parts.get(..index).unwrap_or_default();
        if let Some(container) = container(part, before) {
            containers.push((index, container));
        } else if let Some(found) = self::pod(part, before) {
            pod = Some(found);
        }
    }
    let innermost = containers.last().map(|(index, _)| *index);
    // The innermost are the ones that matter.
    let beyond = containers.len().saturating_sub(MOST_CONTAINERS);
    Cgroup {
        containers: containers.into_iter().skip(beyond).map(|(_, container)| container).collect(),
        pod,
        unit: unit(&parts, innermost),
        slurm: slurm(&parts),
    }
}

/// A part that names a container. `before` are the parts above it.
fn container(part: &str, before: &[&str]) -> Option<Container> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    if name.len() == 64 && is_hex(name) || is_fargate(name) {
        return Some(Container::new(name, runtime_above(before)));
    }
    let (maker, id) = name.rsplit_once('-')?;
    // conmon watches over a container from a group beside it.
    let is_container = id.len() == 64 && is_hex(id) && !maker.ends_with("conmon");
    is_container.then(|| Container::new(id, runtime(maker)))
}

/// OpenTelemetry's and Kubernetes' name of the runtime that makes such groups.
fn runtime(maker: &str) -> Option<&'static str> {
    match maker {
        "cri-containerd" | "nerdctl" => Some("containerd"),
        "crio" => Some("cri-o"),
        "docker" => Some("docker"),
        "libpod" | "libpod-payload" => Some("podman"),
        _ => None,
    }
}

/// The runtime of an id without a prefix: the parent's name tells, if anything. Under a pod it may be any.
fn runtime_above(before: &[&str]) -> Option<&'static str> {
    let (parent, above) = before.split_last()?;
    // Amazon's agent uses Docker on machines of one's own; on Fargate nobody can look.
    let is_ecs = above.last() == Some(&"ecs");
    if is_ecs { Some("docker") } else { runtime(parent) }
}

/// A task on Fargate: 32 hex digits, a dash, a number.
fn is_fargate(name: &str) -> bool {
    let is_task = |task: &str| task.len() == 32 && is_hex(task);
    name.split_once('-').is_some_and(|(task, number)| is_task(task) && is_number(number))
}

/// A part that names a pod.
fn pod(part: &str, before: &[&str]) -> Option<PodRef> {
    let (slice, uid) = match part.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod").or_else(|| Some(("", slice.strip_prefix("pod")?)))?,
        None => ("", part.strip_prefix("pod")?),
    };
    let uid = uid.replace('_', "-");
    if !is_uid(&uid) {
        return None;
    }
    let class = if slice.is_empty() { before.last().copied().unwrap_or_default() } else { slice };
    Some(PodRef { uid, qos: qos(class) })
}

/// What stands before the pod: a folder, or the beginning of its slice's name.
fn qos(class: &str) -> Option<Qos> {
    match class.strip_suffix(".slice").unwrap_or(class).rsplit('-').next()? {
        "burstable" => Some(Qos::Burstable),
        "besteffort" => Some(Qos::BestEffort),
        // kubelets are told to begin elsewhere than at the root: `kubelet-kubepods`.
        "kubepods" => Some(Qos::Guaranteed),
        _ => None,
    }
}

/// A UUID, or the hash of a static pod's manifest, which the kubelet uses in its place.
fn is_uid(uid: &str) -> bool {
    let lengths = uid.split('-').map(|group| if is_hex(group) { group.len() } else { 0 });
    matches!(lengths.collect::<Vec<_>>().as_slice(), [32] | [8, 4, 4, 4, 12])
}

/// The innermost unit. Around a container it is told only where it was made for that container: podman in a unit.
fn unit(parts: &[&str], container: Option<usize>) -> Option<Unit> {
    let (from, to) = match container {
        None => (0, parts.len()),
        Some(index) if parts.get(index + 1..).is_some_and(|inside| inside.iter().any(is_unit)) => {
            (index + 1, parts.len())
        }
        Some(index) => (index.saturating_sub(1), index),
    };
    let parts = parts.get(from..to)?;
    let at = parts.iter().rposition(is_unit)?;
    let name = *parts.get(at)?;
    // Slurm's scope is told as a job.
    if container.is_some() && RUNTIMES.contains(&name) || name.ends_with("slurmstepd.scope") {
        return None;
    }
    let user = |part: &&str| part.strip_prefix("user@")?.strip_suffix(".service")?.parse().ok();
    Some(Unit { name: name.to_owned(), user: parts.get(..at)?.iter().find_map(user) })
}

fn is_unit(part: &&str) -> bool {
    let is_unit = part.ends_with(".service") || part.ends_with(".scope");
    is_unit && container(part, &[]).is_none() && !part.contains("conmon-")
}

/// A job, the step and the user's number if they are told. Ids are Slurm's own words: numbers, `batch`, `extern`.
fn slurm(parts: &[&str]) -> Option<Slurm> {
    let is_root =
        |part: &&str| *part == "slurm" || part.starts_with("slurm_") || part.ends_with("slurmstepd.scope");
    let below = parts.get(parts.iter().position(is_root)? + 1..)?;
    let find = |prefix: &str| below.iter().find_map(|part| part.strip_prefix(prefix));
    let is_word = |word: &&str| {
        !word.is_empty() && word.len() <= 32 && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    Some(Slurm {
        job: find("job_").filter(is_word)?.to_owned(),
        step: find("step_").filter(is_word).map(str::to_owned),
        uid: find("uid_").and_then(|uid| uid.parse().ok()),
        ..Slurm::default()
    })
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
