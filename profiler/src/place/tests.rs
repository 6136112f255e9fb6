//! Texts of `/proc/PID/cgroup` as runtimes lay them out: what is read from each, and that no text stops the reader.

use super::super::{Qos, Slurm};
use super::*;
use proptest::prelude::*;

const ID: &str = "3d1f5e8b0c2a4967d8e1b3f5a7092c4e6d8f1a3b5c7e9f0213456789abcdef01";
const OUTER: &str = "9fceb1a2d3c4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e";
const UID: &str = "0f1e2d3c-4b5a-4697-8877-665544332211";
const SLICE_UID: &str = "0f1e2d3c_4b5a_4697_8877_665544332211";
const STATIC_UID: &str = "6a1b2c3d4e5f60718293a4b5c6d7e8f9";

/// Who is expected: runtimes from the outermost in, pod and class, unit and its user.
#[derive(Debug, Default, PartialEq)]
struct Expected {
    containers: Vec<(&'static str, Option<&'static str>)>,
    pod: Option<(&'static str, Option<Qos>)>,
    unit: Option<(&'static str, Option<u32>)>,
}

fn check(text: &str, expected: &Expected) {
    let text = text
        .replace("{id}", ID)
        .replace("{outer}", OUTER)
        .replace("{uid}", UID)
        .replace("{slice_uid}", SLICE_UID)
        .replace("{static}", STATIC_UID);
    let found = parse(&text);
    let containers: Vec<_> =
        found.containers.iter().map(|found| (found.id.as_str(), found.runtime)).collect();
    assert_eq!(containers, expected.containers, "containers of {text}");
    let pod = found.pod.as_ref().map(|pod| (pod.uid.as_str(), pod.qos));
    assert_eq!(pod, expected.pod, "pod of {text}");
    let unit = found.unit.as_ref().map(|unit| (unit.name.as_str(), unit.user));
    assert_eq!(unit, expected.unit, "unit of {text}");
}

fn one(runtime: Option<&'static str>) -> Vec<(&'static str, Option<&'static str>)> {
    vec![(ID, runtime)]
}

#[test]
fn pods_of_all_drivers() {
    let systemd = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice_uid}.slice";
    let burstable = Some((UID, Some(Qos::Burstable)));
    let in_pod = |runtime, pod| Expected { containers: one(runtime), pod, unit: None };
    for (text, runtime, pod) in [
        // cgroup v2, systemd driver.
        (format!("0::/{systemd}/cri-containerd-{{id}}.scope\n"), Some("containerd"), burstable),
        (format!("0::/{systemd}/crio-{{id}}.scope\n"), Some("cri-o"), burstable),
        // CRI-O with crun makes a group below for the processes.
        (format!("0::/{systemd}/crio-{{id}}.scope/container\n"), Some("cri-o"), burstable),
        (format!("0::/{systemd}/docker-{{id}}.scope\n"), Some("docker"), burstable),
        (
            "0::/kubepods.slice/kubepods-pod{slice_uid}.slice/cri-containerd-{id}.scope".to_owned(),
            Some("containerd"),
            Some((UID, Some(Qos::Guaranteed))),
        ),
        (
            "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{static}.slice/crio-{id}.scope"
                .to_owned(),
            Some("cri-o"),
            Some((STATIC_UID, Some(Qos::BestEffort))),
        ),
        // cgroup v2, cgroupfs driver: the id has no prefix, except CRI-O's.
        ("0::/kubepods/burstable/pod{uid}/{id}\n".to_owned(), None, burstable),
        ("0::/kubepods/pod{uid}/{id}\n".to_owned(), None, Some((UID, Some(Qos::Guaranteed)))),
        ("0::/kubepods/besteffort/pod{uid}/crio-{id}".to_owned(), Some("cri-o"), Some((UID, Some(Qos::BestEffort)))),
        // Seen from a cgroup namespace of one's own.
        ("0::/../../kubepods-burstable-pod{slice_uid}.slice/cri-containerd-{id}.scope".to_owned(), Some("containerd"), burstable),
        ("0::/../../pod{uid}/{id}\n".to_owned(), None, Some((UID, None))),
        ("0::/../crio-{id}.scope".to_owned(), Some("cri-o"), None),
        // containerd with the systemd driver's paths under the other driver.
        (
            "0::/system.slice/containerd.service/kubepods-burstable-pod{slice_uid}.slice:cri-containerd:{id}".to_owned(),
            Some("containerd"),
            burstable,
        ),
        // cgroup v1.
        (
            "12:memory:/kubepods/burstable/pod{uid}/{id}\n11:cpuset:/kubepods/burstable/pod{uid}/{id}\n\
             1:name=systemd:/kubepods/burstable/pod{uid}/{id}\n0::/system.slice/containerd.service\n"
                .to_owned(),
            None,
            burstable,
        ),
        (
            format!("11:devices:/{systemd}/cri-containerd-{{id}}.scope\n3:rdma:/\n1:name=systemd:/{systemd}/cri-containerd-{{id}}.scope\n"),
            Some("containerd"),
            burstable,
        ),
    ] {
        check(&text, &in_pod(runtime, pod));
    }
}

#[test]
fn containers_without_a_pod() {
    for (text, runtime, unit) in [
        ("0::/system.slice/docker-{id}.scope\n", Some("docker"), None),
        ("0::/docker/{id}\n", Some("docker"), None),
        (
            "14:name=systemd:/docker/{id}\n13:pids:/docker/{id}\n1:cpuset:/docker/{id}\n0::/system.slice/containerd.service\n",
            Some("docker"),
            None,
        ),
        ("0::/machine.slice/libpod-{id}.scope/container\n", Some("podman"), None),
        ("0::/libpod_parent/libpod-{id}\n", Some("podman"), None),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope/container",
            Some("podman"),
            None,
        ),
        // A pod of podman's.
        (
            "0::/machine.slice/machine-libpod_pod_{outer}.slice/libpod-{id}.scope/container",
            Some("podman"),
            None,
        ),
        // Quadlet: the unit was made for the container.
        ("0::/system.slice/vllm.service/libpod-payload-{id}", Some("podman"), Some(("vllm.service", None))),
        ("0::/system.slice/nerdctl-{id}.scope", Some("containerd"), None),
        ("0::/default/{id}", None, None),
        // Amazon's agent on v1 and on v2.
        ("9:memory:/ecs/0123456789abcdef0123456789abcdef/{id}\n", Some("docker"), None),
        (
            "0::/ecstasks.slice/ecstasks-0123456789abcdef0123456789abcdef.slice/docker-{id}.scope",
            Some("docker"),
            None,
        ),
    ] {
        check(text, &Expected { containers: one(runtime), pod: None, unit });
    }
    let fargate = "0123456789abcdef0123456789abcdef-2531612879";
    let found = parse(&format!("3:cpuset:/ecs/0123456789abcdef0123456789abcdef/{fargate}\n"));
    assert_eq!(found.containers, [Container::new(fargate, Some("docker"))]);
}

#[test]
fn the_innermost_container_is_the_last() {
    let kubepods = "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice";
    let pod = Some((UID, Some(Qos::Burstable)));
    let both = |outer, inner| vec![(OUTER, outer), (ID, inner)];
    for (text, containers, pod, unit) in [
        // kind: a node is a container of Docker's or podman's.
        (
            format!("0::/system.slice/docker-{{outer}}.scope/{kubepods}/kubelet-kubepods-burstable-pod{{slice_uid}}.slice/cri-containerd-{{id}}.scope"),
            both(Some("docker"), Some("containerd")),
            pod,
            None,
        ),
        (
            "11:memory:/docker/{outer}/kubelet/kubepods/burstable/pod{uid}/{id}\n1:name=systemd:/docker/{outer}/kubelet/kubepods/burstable/pod{uid}/{id}".to_owned(),
            both(Some("docker"), None),
            pod,
            None,
        ),
        // Docker in a pod.
        (
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice_uid}.slice/cri-containerd-{outer}.scope/docker/{id}".to_owned(),
            both(Some("containerd"), Some("docker")),
            pod,
            None,
        ),
        // A unit in a container with a systemd of its own.
        (
            "0::/system.slice/docker-{id}.scope/system.slice/vllm.service".to_owned(),
            one(Some("docker")),
            None,
            Some(("vllm.service", None)),
        ),
    ] {
        check(&text, &Expected { containers, pod, unit });
    }
}

#[test]
fn hosts_and_units() {
    for (text, unit) in [
        ("0::/\n", None),
        ("0::/init.scope\n", Some(("init.scope", None))),
        ("0::/system.slice/vllm.service\n", Some(("vllm.service", None))),
        ("0::/system.slice/system-vllm.slice/vllm@7b.service\n", Some(("vllm@7b.service", None))),
        ("0::/user.slice/user-1000.slice/session-3.scope", Some(("session-3.scope", None))),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/llama.service",
            Some(("llama.service", Some(1000))),
        ),
        (
            "1:name=systemd:/system.slice/vllm.service\n0::/system.slice/vllm.service",
            Some(("vllm.service", None)),
        ),
        // Only systemd's own hierarchy has the unit.
        (
            "9:memory:/custom\n4:cpu:/\n1:name=systemd:/system.slice/tgi.service\n",
            Some(("tgi.service", None)),
        ),
        // conmon watches over a container and is in none.
        ("0::/machine.slice/libpod-conmon-{id}.scope", None),
        ("0::/kubepods.slice/crio-conmon-{id}.scope", None),
        // Digits that are no id: too few, or of another alphabet.
        ("0::/docker/3d1f5e8b", None),
        ("0::/memory/zz1f5e8b0c2a4967d8e1b3f5a7092c4e6d8f1a3b5c7e9f0213456789abcdef01", None),
        ("", None),
        ("no colon\n::\n0::\n", None),
    ] {
        check(text, &Expected { unit, ..Expected::default() });
    }
}

#[test]
fn jobs_of_slurm() {
    let job = |job: &str, step: Option<&str>, uid| {
        Some(Slurm { job: job.to_owned(), step: step.map(str::to_owned), uid, ..Slurm::default() })
    };
    for (text, expected) in [
        ("10:devices:/slurm/uid_1000/job_4711/step_0/task_0\n", job("4711", Some("0"), Some(1000))),
        (
            "4:memory:/slurm_gpu01/uid_1000/job_4711/step_batch\n1:name=systemd:/\n",
            job("4711", Some("batch"), Some(1000)),
        ),
        ("0::/system.slice/slurmstepd.scope/job_4711/step_0/user/task_0", job("4711", Some("0"), None)),
        (
            "0::/system.slice/gpu01_slurmstepd.scope/job_4711/step_batch/user/task_special",
            job("4711", Some("batch"), None),
        ),
        ("0::/system.slice/slurmstepd.scope/job_4711/step_extern/user", job("4711", Some("extern"), None)),
        ("0::/system.slice/slurmstepd.scope/system", None),
        ("0::/system.slice/slurmctld.service", None),
        ("0::/slurm/job_4711;x/step_0", None),
        ("0::/job_4711/step_0", None),
    ] {
        let found = parse(text);
        assert_eq!(found.slurm, expected, "{text}");
        assert!(found.slurm.is_none() || found.unit.is_none(), "{text}: {:?}", found.unit);
    }
}

#[test]
fn no_path_is_deep_enough_to_fill_memory() {
    let path = format!("/docker/{ID}").repeat(100);
    assert_eq!(parse(&format!("0::{path}")).containers.len(), MOST_CONTAINERS);
}

proptest! {
    #[test]
    fn no_text_stops_the_reader(text in any::<String>()) {
        let _ = parse(&text);
    }

    /// Pieces that mean something, in any order.
    #[test]
    fn no_path_stops_the_reader(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "0::", "1:name=systemd:", "\n", "/", ":", "..", "-", "pod", ".slice", ".scope", ".service", "kubepods",
                "-burstable", "docker", "docker-", "cri-containerd-", "libpod-", "slurm", "slurmstepd.scope", "job_", "step_",
                "uid_", "user@", "7", "é", ID, UID, SLICE_UID,
            ]),
            0..40,
        )
    ) {
        let found = parse(&pieces.concat());
        for container in &found.containers {
            prop_assert!(container.id == ID || is_fargate(&container.id) || is_hex(&container.id));
        }
        if let Some(pod) = found.pod {
            prop_assert!(is_uid(&pod.uid));
        }
    }
}
