//! A container as Kubernetes or Docker lays one out: runc, a root file system, cgroup, and mount, PID, network, IPC, UTS and
//! cgroup namespaces of its own. In: a command that runs on this machine. Out: the same program, in there.
//! Absent: an image (the root has the folders of this machine, so that paths are the same), a way to the network.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use e2e::wait;
use serde_json::{Value, json};
use tempfile::TempDir;
use xtask::server::{Prepared, Running};
use xtask::ship::tools::Tool;

/// Folders that a container has its own of.
const OWN: [&str; 3] = ["/proc", "/sys", "/dev"];
/// What Docker and containerd leave a container.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// A program in a container. Killed when dropped.
#[derive(Debug)]
pub struct Container {
    /// The container's first process, as this machine numbers it.
    pub pid: u32,
    name: String,
    cgroup: String,
    /// runc, which stays until the program ends.
    running: Running,
    folder: TempDir,
}

impl Container {
    /// Starts `prepared` in the cgroup `cgroup`, such as `/docker/<id>`.
    pub fn start(prepared: &Prepared, cgroup: &str) -> Result<Self> {
        let folder = TempDir::new()?;
        let name = format!("gpuspan-{}-{}", std::process::id(), prepared.spec.port);
        let root = folder.path().join("rootfs");
        let mut mounts = own_mounts();
        mounts.extend(machine(&root)?);
        let config = config(&prepared.command, &name, cgroup, mounts)?;
        fs::write(folder.path().join("config.json"), config.to_string())?;

        let pid_file = folder.path().join("pid");
        let mut runc = runc(folder.path())?;
        runc.args(["run", "--pid-file"]).arg(&pid_file).arg("--bundle").arg(folder.path()).arg(&name);
        let mut running = Running::spawn(&mut runc, prepared.spec.clone())?;
        let pid = wait::until("the container", || {
            let text = fs::read_to_string(&pid_file).unwrap_or_default();
            let is_there = !text.is_empty() || running.alive();
            ensure!(is_there, "runc ended: {}", fs::read_to_string(&running.log)?);
            Ok(text.parse().ok())
        })?;
        Ok(Self { pid, name, cgroup: cgroup.to_owned(), running, folder })
    }

    /// Does something in the container's network: its loopback is none of this machine's.
    pub fn inside<T: Send>(&mut self, act: impl FnOnce(&mut Running) -> Result<T> + Send) -> Result<T> {
        let network = File::open(format!("/proc/{}/ns/net", self.pid)).context("no network namespace")?;
        let running = &mut self.running;
        let act = move || {
            // SAFETY: the descriptor is open. Only this thread, which ends here, and those that it starts are moved.
            let moved = unsafe { libc::setns(network.as_raw_fd(), libc::CLONE_NEWNET) };
            ensure!(moved == 0, "failed to enter it: {}", std::io::Error::last_os_error());
            act(running)
        };
        std::thread::scope(|scope| scope.spawn(act).join().expect("a thread in a container's network"))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // It may have ended by itself, and a folder may have been there before.
        if let Ok(mut runc) = runc(self.folder.path()) {
            let _ = runc.args(["delete", "--force", &self.name]).stderr(Stdio::null()).status();
        }
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        for hierarchy in hierarchies.map(|entry| entry.path()).chain([PathBuf::from("/sys/fs/cgroup")]) {
            let groups = Path::new(self.cgroup.trim_start_matches('/')).ancestors();
            for group in groups.filter(|group| !group.as_os_str().is_empty()) {
                let _ = fs::remove_dir(hierarchy.join(group));
            }
        }
    }
}

fn runc(folder: &Path) -> Result<Command> {
    let mut runc = Tool::Runc.command()?;
    runc.arg("--root").arg(folder.join("state"));
    Ok(runc)
}

fn config(command: &Command, name: &str, cgroup: &str, mounts: Vec<Value>) -> Result<Value> {
    let arguments: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|argument| argument.to_string_lossy())
        .collect();
    let mut environment: Vec<String> = ["PATH", "HOME"]
        .iter()
        .filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?)))
        .collect();
    let given = command.get_envs().filter_map(|(name, value)| Some((name.to_str()?, value?.to_str()?)));
    environment.extend(given.map(|(name, value)| format!("{name}={value}")));
    let folder = match command.get_current_dir() {
        Some(folder) => folder.to_owned(),
        None => std::env::current_dir()?,
    };
    let capabilities: serde_json::Map<String, Value> = ["bounding", "effective", "permitted"]
        .map(|set| (set.to_owned(), json!(CAPABILITIES)))
        .into_iter()
        .collect();
    let namespaces: Vec<Value> = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
        .iter()
        .map(|kind| json!({ "type": kind }))
        .collect();
    Ok(json!({
        "ociVersion": "1.0.2",
        "hostname": name,
        "root": { "path": "rootfs" },
        "process": {
            "terminal": false, "noNewPrivileges": true, "user": { "uid": 0, "gid": 0 },
            "args": arguments, "env": environment, "cwd": folder, "capabilities": capabilities,
        },
        "mounts": mounts,
        "linux": { "cgroupsPath": cgroup, "namespaces": namespaces, "resources": {} },
    }))
}

/// File systems that every container has.
fn own_mounts() -> Vec<Value> {
    vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"] }),
        json!({ "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777"] }),
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] }),
    ]
}

/// The folders of this machine, to be mounted at the same place in `root`.
fn machine(root: &Path) -> Result<Vec<Value>> {
    fs::create_dir_all(root)?;
    let mut mounts = Vec::new();
    for entry in fs::read_dir("/")?.flatten() {
        let (path, inside) = (entry.path(), root.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            symlink(fs::read_link(&path)?, inside)?;
        } else if kind.is_dir() && !OWN.iter().any(|own| Path::new(own) == path) {
            fs::create_dir(inside)?;
            mounts.push(json!({ "destination": path, "type": "bind", "source": path, "options": ["rbind"] }));
        }
    }
    Ok(mounts)
}
