//! What is seen inside the server: which one it is, which adapter listens, what is exact, inferred and not visible.
//!
//! The table is `server::visibility`; what holds for this server is looked up here.

use super::library::LibraryReport;
use super::{Grade, Section};
use crate::attach::Role;
use crate::probe::Layer;
use crate::server::known;
use crate::server::registry;
use crate::server::visibility::{self, Holds, Proven, Sight};
use crate::target::{self, Identity};

/// A process of the group, as its section found it.
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// What it is.
    pub identity: Identity,
    /// Its libraries of interest.
    pub libraries: Vec<(Vec<Role>, bool)>,
}

impl Process {
    /// With what its section says of its libraries.
    pub fn new(pid: u32, libraries: &[LibraryReport]) -> Self {
        let libraries =
            libraries.iter().map(|library| (library.roles.clone(), library.is_probed())).collect();
        Self { pid, identity: target::identity(pid), libraries }
    }

    fn has(&self, layer: Layer) -> bool {
        let is = |role: &Role| matches!(role, Role::Shared(of) | Role::LinkedServer(of) if *of == layer);
        self.libraries.iter().any(|(roles, probed)| *probed && roles.iter().any(is))
    }

    fn says(&self, flag: &str) -> bool {
        self.identity.command_line.iter().any(|argument| argument == flag)
    }
}

/// The section of a group.
pub fn section(processes: &[Process]) -> Section {
    let named = processes.iter().find_map(|process| Some((process, known(process)?)));
    let name = named.map_or("generic", |(_, name)| name);
    let server = visibility::server(name);
    let version = named.and_then(|_| version(name, processes));
    let title = match &version {
        Some(version) => format!("inside the server: {} {version}", server.title),
        None => format!("inside the server: {}", server.title),
    };
    let mut section = Section::new(title);
    let holds = holds(name, processes);
    adapter(&mut section, name, processes, &holds, server.proven);
    if let (Some(adapter), Some(version)) = (registry::of_server(name), &version)
        && registry::is_newer(version, adapter.newest)
    {
        let newest: Vec<_> = adapter.newest.iter().map(u32::to_string).collect();
        let detail = format!(
            "formats are known up to {}: what this one says is believed only where every check passes, and else not at all",
            newest.join(".")
        );
        section.add(Grade::Note, "version", detail);
    }
    for view in server.views(&holds) {
        let grade = if view.seen.sight == Sight::Exact { Grade::Ok } else { Grade::Note };
        section.add(grade, view.aspect.name(), format!("{}: {}", view.seen.sight.name(), view.seen.how));
    }
    section
}

fn known(process: &Process) -> Option<&'static str> {
    let Identity { comm, executable, command_line, .. } = &process.identity;
    Some(known::recognise(comm, &executable.to_string_lossy(), command_line))
        .filter(|name| *name != "generic")
}

/// The line of the adapter: which one, what it hears and where, and what it was tried on.
fn adapter(section: &mut Section, name: &str, processes: &[Process], holds: &[Holds], proven: Proven) {
    let Some(adapter) = registry::of_server(name) else {
        let what = match proven {
            Proven::Edge(what) => what.to_owned(),
            Proven::Real(_) | Proven::StandIn(_) => proven.sentence(),
        };
        section.add(Grade::Note, "adapter", format!("none: {what}"));
        return;
    };
    if holds.contains(&Holds::Unheard) {
        let detail = format!("{}, which hears nothing: {}", adapter.name, adapter.lacking);
        section.add(Grade::Note, "adapter", detail);
        return;
    }
    let heard = processes.iter().filter(|process| adapter.layers.iter().any(|layer| process.has(*layer)));
    let pids: Vec<_> = heard.map(|process| process.pid.to_string()).collect();
    let place = if pids.is_empty() { String::new() } else { format!(" in process {}", pids.join(", ")) };
    let detail = format!("{}, by {}{place}; {}", adapter.name, adapter.by, proven.sentence());
    section.add(Grade::Ok, "adapter", detail);
}

/// What holds for this server and changes what is seen.
fn holds(name: &str, processes: &[Process]) -> Vec<Holds> {
    let any = |is: &dyn Fn(&Process) -> bool| processes.iter().any(is);
    let layers = registry::of_server(name).map_or(&[][..], |adapter| adapter.layers);
    let heard = layers.is_empty() || any(&|process| layers.iter().any(|layer| process.has(*layer)));
    let is_engine = |process: &Process| process.identity.comm.starts_with("VLLM::EngineC");
    let is_rust = |process: &Process| process.identity.executable.ends_with("vllm-rs");
    let runs_engine =
        |process: &Process| known(process).is_some_and(|server| matches!(server, "vllm" | "tensorrt-llm"));
    [
        (Holds::Unheard, !heard),
        (Holds::NoStatistics, any(&|process| process.says("--disable-log-stats"))),
        (Holds::Ring, any(&|process| is_engine(process) && !target::rings(process.pid).is_empty())),
        (Holds::RustFrontEnd, any(&is_rust)),
        (Holds::Metrics, any(&|process| process.says("--enable-metrics"))),
        (Holds::ServerSymbols, any(&|process| process.has(Layer::LlamaServer))),
        (Holds::EngineInside, name == "triton" && any(&runs_engine)),
    ]
    .into_iter()
    .filter_map(|(holds, is)| is.then_some(holds))
    .collect()
}

/// The version, by the packages of the server's interpreter.
fn version(name: &str, processes: &[Process]) -> Option<String> {
    let package = registry::package(name)?;
    processes.iter().find_map(|process| {
        let found = target::package(process.pid, package)?;
        Some(if found.name == package {
            found.version
        } else {
            format!("{} ({})", found.version, found.name)
        })
    })
}
