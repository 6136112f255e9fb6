//! Where a process runs: containers, pod, systemd unit, Slurm job, or the plain host. In: a pid. Out: a [`Place`], and
//! what it says as attributes of a resource. Absent: whom the pod belongs to (`kubernetes`), requests to a runtime's
//! daemon, and trust: a process may move itself to a cgroup of any name if it may write there.

mod cgroup;
mod image;
mod runtime;

pub use cgroup::{Cgroup, parse};
pub use image::Image;

use crate::metric::catalog::attribute as name;
use crate::span::model::{Value, text};
use std::fs::File;
use std::io::Read as _;

/// Lines of `cgroup` are as long as a path may be, and there are as many as the kernel has controllers.
const MOST_CGROUP: u64 = 65_536;
const MOST_STATUS: u64 = 16_384;
/// An environment may have megabytes. Slurm's variables stand before those of a job's script.
const MOST_ENVIRONMENT: u64 = 131_072;
/// What is taken of a value that the process chose.
const MOST_WORD: usize = 256;

/// Where a process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Place {
    /// Containers around it, the outermost first; none on the plain host.
    pub containers: Vec<Container>,
    /// Its pod, as the kubelet named the group.
    pub pod: Option<PodRef>,
    /// Its systemd unit. Of a container only where the unit was made for it.
    pub unit: Option<Unit>,
    /// Its Slurm job.
    pub slurm: Option<Slurm>,
    /// Its number in the innermost pid namespace, where that is not ours.
    pub vpid: Option<u32>,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Container {
    /// 64 hex digits; on Fargate the task's id and a number.
    pub id: String,
    /// Who made it: `containerd`, `cri-o`, `docker` or `podman`. `None` where the cgroup's name does not tell.
    pub runtime: Option<&'static str>,
    /// Its name, where the runtime keeps it in a file.
    pub name: Option<String>,
    /// The image's name as it was asked for, likewise.
    pub image: Option<String>,
}

impl Container {
    fn new(id: &str, runtime: Option<&'static str>) -> Self {
        Self { id: id.to_owned(), runtime, name: None, image: None }
    }
}

/// A pod, as its cgroup names it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PodRef {
    /// With `-`. Of a static pod it is the hash of its manifest, which the API server's copy of it has in an annotation.
    pub uid: String,
    /// Its class, if the path shows it.
    pub qos: Option<Qos>,
}

/// Who is taken memory and CPU time from first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Qos {
    /// Limits equal requests.
    Guaranteed,
    /// There are requests.
    Burstable,
    /// There are none.
    BestEffort,
}

/// A systemd unit.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Unit {
    /// With its suffix: `vllm.service`.
    pub name: String,
    /// Whose manager runs it: a user's number, or the system's.
    pub user: Option<u32>,
}

/// A Slurm job.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Slurm {
    /// Job id.
    pub job: String,
    /// Step: a number, `batch`, `extern` or `interactive`.
    pub step: Option<String>,
    /// The user's number.
    pub uid: Option<u32>,
    /// The job's name and the user's, as the environment has them.
    pub name: Option<String>,
    /// See `name`.
    pub user: Option<String>,
}

/// Where `pid` runs. What cannot be read is left out; of a process that is gone nothing is known.
#[must_use]
pub fn of(pid: u32) -> Place {
    let Cgroup { mut containers, pod, unit, slurm } = parse(&read(pid, "cgroup", MOST_CGROUP));
    if let Some(container) = containers.last_mut() {
        runtime::describe(container);
    }
    let status = read(pid, "status", MOST_STATUS);
    let slurm = slurm.map(|job| Slurm { uid: job.uid.or_else(|| uid(&status)), ..job });
    let slurm = slurm.map(|job| with_environment(job, &read(pid, "environ", MOST_ENVIRONMENT)));
    Place { containers, pod, unit, slurm, vpid: vpid(&status) }
}

/// The innermost container of `pid`: what [`of`] says, for one file.
#[must_use]
pub fn container_id(pid: u32) -> Option<String> {
    Some(parse(&read(pid, "cgroup", MOST_CGROUP)).containers.pop()?.id)
}

impl Place {
    /// The innermost container.
    #[must_use]
    pub fn container(&self) -> Option<&Container> {
        self.containers.last()
    }

    /// What is said of the process by its place, by OpenTelemetry's names.
    #[must_use]
    pub fn attributes(&self) -> Vec<(String, Value)> {
        let container = self.container();
        let image = container.and_then(|container| Image::parse(container.image.as_deref()?));
        let slurm = self.slurm.as_ref();
        let texts = [
            (name::CONTAINER_ID, container.map(|container| container.id.as_str())),
            (name::CONTAINER_NAME, container.and_then(|container| container.name.as_deref())),
            (name::CONTAINER_RUNTIME_NAME, container.and_then(|container| container.runtime)),
            (name::K8S_POD_UID, self.pod.as_ref().map(|pod| pod.uid.as_str())),
            (name::SYSTEMD_UNIT_NAME, self.unit.as_ref().map(|unit| unit.name.as_str())),
            (name::GPUSPAN_SLURM_JOB_ID, slurm.map(|job| job.job.as_str())),
            (name::GPUSPAN_SLURM_JOB_NAME, slurm.and_then(|job| job.name.as_deref())),
            (name::GPUSPAN_SLURM_STEP_ID, slurm.and_then(|job| job.step.as_deref())),
            (name::GPUSPAN_SLURM_USER_NAME, slurm.and_then(|job| job.user.as_deref())),
        ];
        let numbers =
            [(name::GPUSPAN_SLURM_USER_ID, slurm.and_then(|job| job.uid)), (name::PROCESS_VPID, self.vpid)];
        let texts = texts.into_iter().filter_map(|(key, value)| Some((key.to_owned(), text(value?))));
        let number = |(key, value): (&str, Option<u32>)| Some((key.to_owned(), Value::Int(value?.into())));
        let image = image.iter().flat_map(Image::attributes);
        texts.chain(numbers.into_iter().filter_map(number)).chain(image).collect()
    }
}

fn read(pid: u32, file: &str, most: u64) -> String {
    let mut bytes = Vec::new();
    // What was read before an error stands.
    let _ =
        File::open(format!("/proc/{pid}/{file}")).and_then(|file| file.take(most).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The last number of `NSpid`, which lists one for each namespace from ours to the process's own.
fn vpid(status: &str) -> Option<u32> {
    let mut numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace();
    numbers.next()?;
    numbers.next_back()?.parse().ok()
}

/// The real user.
fn uid(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?.parse().ok()
}

/// What the environment adds, if it is of the same job: a job may start another, which inherits its variables.
fn with_environment(job: Slurm, environment: &str) -> Slurm {
    let variable = |name: &str| {
        let mut entries = environment.split('\0');
        let value = entries.find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))?;
        (!value.is_empty() && value.len() <= MOST_WORD).then(|| value.to_owned())
    };
    if variable("SLURM_JOB_ID").is_none_or(|id| id != job.job) {
        return job;
    }
    Slurm { name: variable("SLURM_JOB_NAME"), user: variable("SLURM_JOB_USER"), ..job }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    fn value<'a>(place: &'a [(String, Value)], key: &str) -> Option<&'a Value> {
        place.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    #[test]
    fn attributes_have_the_conventions_names() {
        let container = Container {
            name: Some("vllm".to_owned()),
            image: Some("vllm/vllm-openai:v0.11.0".to_owned()),
            ..Container::new("ab", Some("docker"))
        };
        let place = Place {
            containers: vec![Container::new("outer", Some("podman")), container],
            pod: Some(PodRef { uid: "u".to_owned(), qos: None }),
            unit: Some(Unit { name: "vllm.service".to_owned(), user: Some(1000) }),
            slurm: Some(Slurm { job: "7".to_owned(), uid: Some(1000), ..Slurm::default() }),
            vpid: Some(1),
        };
        let found = place.attributes();
        for (key, expected) in [
            ("container.id", text("ab")),
            ("container.name", text("vllm")),
            ("container.runtime.name", text("docker")),
            ("container.image.name", text("vllm/vllm-openai")),
            ("container.image.tags", Value::Strs(vec!["v0.11.0".to_owned()])),
            ("k8s.pod.uid", text("u")),
            ("systemd.unit.name", text("vllm.service")),
            ("gpuspan.slurm.job.id", text("7")),
            ("gpuspan.slurm.user.id", Value::Int(1000)),
            ("process.vpid", Value::Int(1)),
        ] {
            assert_eq!(value(&found, key), Some(&expected), "{key}");
        }
        assert_eq!(found.len(), 10);
        assert_eq!(Place::default().attributes(), []);
    }

    #[test]
    fn numbers_in_status() {
        let status = "Name:\tpython3\nUid:\t1000\t0\t0\t0\nNSpid:\t4711\t37\t1\n";
        assert_eq!((vpid(status), uid(status)), (Some(1), Some(1000)));
        assert_eq!(vpid("NSpid:\t4711\n"), None);
        assert_eq!((vpid(""), uid("Uid:\n")), (None, None));
    }

    #[test]
    fn the_environment_is_believed_about_its_own_job_only() {
        let job = Slurm { job: "7".to_owned(), ..Slurm::default() };
        let environment = "PATH=/bin\0SLURM_JOB_ID=7\0SLURM_JOB_NAME=llm serve\0SLURM_JOB_USER=ada\0";
        let found = with_environment(job.clone(), environment);
        assert_eq!((found.name.as_deref(), found.user.as_deref()), (Some("llm serve"), Some("ada")));
        assert_eq!(with_environment(job.clone(), &environment.replace("=7", "=8")), job);
        let long = format!("SLURM_JOB_ID=7\0SLURM_JOB_NAME={}\0", "x".repeat(MOST_WORD + 1));
        assert_eq!(with_environment(job.clone(), &long), job);
    }

    #[test]
    fn a_process_that_is_gone_is_nowhere() {
        assert_eq!(of(u32::MAX >> 1), Place::default());
    }

    /// A child in a pid namespace of its own, or why there is none.
    fn namespaced() -> Result<Child, String> {
        let mut child = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", "sh", "-c", "echo ready; exec sleep 60"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut line = String::new();
        let stdout = child.stdout.as_mut().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        if line == "ready\n" {
            Ok(child)
        } else {
            Err(format!("no pid namespace: {}", child.wait().unwrap()))
        }
    }

    #[test]
    fn the_number_inside_a_pid_namespace_is_told() {
        let mut child = match namespaced() {
            Ok(child) => child,
            Err(why) => return println!("skipped: {why}"),
        };
        let inside = *crate::target::children_of(child.id()).first().unwrap();
        let (place, outside) = (of(inside), of(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((place.vpid, outside.vpid), (Some(1), None));
    }

    /// A cgroup named as a runtime names it, in whatever hierarchy this machine lets us write to.
    #[test]
    fn a_process_is_found_in_its_cgroup() {
        let id = "5f".repeat(32);
        let roots =
            ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/systemd"];
        let folder = roots.iter().map(|root| format!("{root}/docker-{id}.scope"));
        let Some(folder) = { folder }.find(|folder| {
            std::fs::create_dir(folder).is_ok()
                && std::path::Path::new(&format!("{folder}/cgroup.procs")).exists()
        }) else {
            return println!("skipped: no cgroup can be made here");
        };
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let moved = std::fs::write(format!("{folder}/cgroup.procs"), child.id().to_string());
        let place = of(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        // The group is empty once the kernel has let go of the child.
        while std::fs::remove_dir(&folder).is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY)) {
            std::thread::yield_now();
        }
        match moved {
            Ok(()) => assert_eq!(place.containers, [Container::new(&id, Some("docker"))]),
            Err(why) => println!("skipped: no process can be moved: {why}"),
        }
    }
}
