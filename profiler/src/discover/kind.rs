//! What a program is to discovery, by what it is called.
//!
//! In: name, executable, command line. Out: a model server at once, one that starts others and is never part of them,
//! one that watches GPUs or has one for other reasons, or nothing that can be told. `server::known` is generous, since
//! whoever gives a pid has already chosen; here `pip install vllm` and `sh -c "vllm serve"` are no servers.

use crate::server::known;

/// What a program is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A model server.
    Server(&'static str),
    /// gpuspan itself.
    Own,
    /// Starts programs and belongs to none: a shell, a supervisor, a container's shim.
    Launcher,
    /// Uses or watches GPUs and serves no models; what it is.
    Bystander(&'static str),
    /// Anything else: what it does has to tell.
    #[default]
    Other,
}

impl Kind {
    /// It is no part of a server, and nothing above it is.
    #[must_use]
    pub fn is_outside(self) -> bool {
        matches!(self, Self::Own | Self::Launcher | Self::Bystander(_))
    }
}

/// By the names of executables, without what follows a `-` or a digit of a version.
const LAUNCHERS: &[&str] = &[
    "bash",
    "busybox",
    "catatonit",
    "circusd",
    "conmon",
    "containerd",
    "containerd-shim",
    "containerd-shim-runc-v2",
    "cri-o",
    "crio",
    "cron",
    "crond",
    "crun",
    "dash",
    "docker",
    "docker-init",
    "dockerd",
    "dumb-init",
    "env",
    "fish",
    "init",
    "kubelet",
    "login",
    "nohup",
    "nsenter",
    "numactl",
    "podman",
    "runc",
    "runit",
    "runsv",
    "runsvdir",
    "s6-supervise",
    "s6-svscan",
    "screen",
    "setsid",
    "sh",
    "slurmd",
    "slurmstepd",
    "sshd",
    "sshd-session",
    "su",
    "sudo",
    "supervisord",
    "systemd",
    "timeout",
    "tini",
    "tmux",
    "unshare",
    "xinetd",
    "zsh",
];

/// Programs that use or watch GPUs, by executable.
const BYSTANDERS: &[(&str, &str)] = &[
    ("Xorg", "a display server"),
    ("Xwayland", "a display server"),
    ("amd-smi", "a monitor of GPUs"),
    ("dcgm-exporter", "a monitor of GPUs"),
    ("dcgmi", "a monitor of GPUs"),
    ("nv-hostengine", "a monitor of GPUs"),
    ("nvtop", "a monitor of GPUs"),
    ("nvidia-smi", "a monitor of GPUs"),
    ("rocm-smi", "a monitor of GPUs"),
    ("cuda-gdb", "a debugger"),
    ("ncu", "a profiler"),
    ("nsys", "a profiler"),
    ("alloy", "a collector of telemetry"),
    ("datadog-agent", "a collector of telemetry"),
    ("node_exporter", "a collector of telemetry"),
    ("otelcol", "a collector of telemetry"),
    ("otelcol-contrib", "a collector of telemetry"),
    ("telegraf", "a collector of telemetry"),
    ("gpu-feature-discovery", "a part of the cluster"),
    ("k8s-device-plugin", "a part of the cluster"),
    ("nvidia-cuda-mps-control", "a part of the driver"),
    ("nvidia-cuda-mps-server", "a part of the driver"),
    ("nvidia-device-plugin", "a part of the cluster"),
    ("nvidia-fabricmanager", "a part of the driver"),
    ("nvidia-persistenced", "a part of the driver"),
];

/// Programs of interpreters that listen for other reasons than to serve models.
const SCRIPTS: &[(&str, &str)] = &[
    ("ipykernel_launcher", "a notebook's kernel"),
    ("ipykernel", "a notebook's kernel"),
    ("jupyter-lab", "a notebook server"),
    ("jupyter-notebook", "a notebook server"),
    ("jupyterhub-singleuser", "a notebook server"),
    ("nvitop", "a monitor of GPUs"),
    ("gpustat", "a monitor of GPUs"),
    ("tensorboard", "a viewer of training runs"),
];

/// What a program is.
#[must_use]
pub fn kind(comm: &str, executable: &str, command_line: &[String]) -> Kind {
    let name = base(executable);
    let (program, argument) = program(command_line);
    let find = |table: &[(&str, &'static str)], name: &str| {
        table.iter().find(|(known, _)| *known == name).map(|(_, what)| Kind::Bystander(what))
    };
    if name == "gpuspan" {
        return Kind::Own;
    }
    if LAUNCHERS.contains(&name) || LAUNCHERS.contains(&program) || comm.starts_with("tmux") {
        return Kind::Launcher;
    }
    if let Some(bystander) = find(BYSTANDERS, name).or_else(|| find(SCRIPTS, program)) {
        return bystander;
    }
    server(comm, executable, program, argument).map_or(Kind::Other, Kind::Server)
}

/// The server that a program is, as soon as it is started.
fn server(comm: &str, executable: &str, program: &str, argument: Option<&str>) -> Option<&'static str> {
    let words: Vec<String> = std::iter::once(program)
        // Of this one alone the second word tells, too.
        .chain(argument.filter(|_| program == "transformers"))
        .map(str::to_owned)
        .collect();
    let server = known::recognise(comm, executable, &words);
    let serves = match server {
        "generic" => false,
        "ollama" => matches!(argument, Some("serve" | "runner")),
        "vllm" if program == "vllm" => argument == Some("serve"),
        "vllm" if program.starts_with("vllm.") => program.contains("api_server") || argument == Some("serve"),
        "sglang" if program == "sglang" => argument == Some("serve"),
        "transformers" => argument == Some("serve"),
        "tensorrt-llm" => program == "trtllm-serve" || program.ends_with(".serve"),
        "tgi" => !base(executable).ends_with("-benchmark"),
        _ => true,
    };
    (serves && !executable.is_empty()).then_some(server)
}

/// The program that is run, and its first argument: behind an interpreter its module or script.
fn program(command_line: &[String]) -> (&str, Option<&str>) {
    let mut arguments = command_line.iter().map(String::as_str);
    let called = base(arguments.next().unwrap_or(""));
    if !["python", "pypy", "node", "ruby", "perl"].iter().any(|known| called.starts_with(known)) {
        return (called, arguments.next());
    }
    while let Some(argument) = arguments.next() {
        match argument {
            "-c" => break,
            "-m" => return (arguments.next().unwrap_or(""), arguments.next()),
            "-X" | "-W" => drop(arguments.next()),
            option if option.starts_with('-') => {}
            script => return (base(script), arguments.next()),
        }
    }
    ("", None)
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(comm: &str, executable: &str, line: &str) -> Kind {
        kind(comm, executable, &line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn servers_are_told_from_those_who_speak_of_them() {
        let python = "/usr/bin/python3.12";
        for (executable, line, server) in [
            (python, "python3 /opt/bin/vllm serve m --port 8000", Some("vllm")),
            (python, "python3 -u -X dev -m vllm.entrypoints.openai.api_server --model m", Some("vllm")),
            (python, "python3 -m vllm.entrypoints.cli.main serve m", Some("vllm")),
            (python, "/opt/bin/vllm serve m", Some("vllm")),
            (python, "python3 /opt/bin/vllm bench serve --model m", None),
            (python, "python3 /usr/bin/pip install vllm", None),
            (python, "python3 app.py vllm", None),
            (python, "python3 -c import vllm", None),
            (python, "python3 -m sglang.launch_server --model m", Some("sglang")),
            (python, "python3 -m sglang.bench_serving", None),
            (python, "python3 -m sglang_router.launch_server --dp-size 2", Some("sglang")),
            (python, "python3 /opt/bin/transformers serve", Some("transformers")),
            (python, "python3 /opt/bin/transformers download m", None),
            (python, "python3 /opt/bin/trtllm-serve m", Some("tensorrt-llm")),
            ("/usr/bin/grep", "grep vllm log", None),
            ("/usr/bin/ollama", "ollama serve", Some("ollama")),
            ("/usr/bin/ollama", "ollama run llama3", None),
            ("/srv/llama-server", "./llama-server -m x.gguf", Some("llama.cpp")),
            ("/opt/tritonserver/bin/tritonserver", "tritonserver --model-repository=/m", Some("triton")),
            ("/usr/bin/text-generation-router", "text-generation-router --port 80", Some("tgi")),
            ("/usr/bin/text-generation-benchmark", "text-generation-benchmark", None),
        ] {
            assert_eq!(of("x", executable, line), server.map_or(Kind::Other, Kind::Server), "{line}");
        }
        assert_eq!(of("VLLM::EngineCor", python, "VLLM::EngineCore"), Kind::Server("vllm"));
        assert_eq!(of("sglang::schedul", python, "sglang::scheduler_TP0"), Kind::Server("sglang"));
    }

    #[test]
    fn launchers_and_bystanders_are_no_servers() {
        for (comm, executable, line) in [
            ("sh", "/usr/bin/dash", "sh -c exec python3 -m vllm.entrypoints.openai.api_server"),
            ("supervisord", "/usr/bin/python3.11", "/usr/bin/python3 /usr/bin/supervisord -n"),
            ("tmux: server", "/usr/bin/tmux", "tmux new"),
            ("containerd-shim", "/usr/bin/containerd-shim-runc-v2", "containerd-shim-runc-v2 -id x"),
        ] {
            assert_eq!(of(comm, executable, line), Kind::Launcher, "{line}");
        }
        assert_eq!(of("gpuspan", "/usr/bin/gpuspan", "gpuspan agent"), Kind::Own);
        for (executable, line) in [
            ("/usr/bin/nvidia-smi", "nvidia-smi dmon"),
            ("/usr/bin/dcgm-exporter", "dcgm-exporter -f x"),
            ("/usr/bin/python3", "python3 -m ipykernel_launcher -f k.json"),
        ] {
            assert!(matches!(of("x", executable, line), Kind::Bystander(_)), "{line}");
        }
    }
}
