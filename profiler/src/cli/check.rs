//! `gpuspan check`: what could be observed here, what would stay blind, and what to do about it. Attaches nothing.

use super::args;
use super::exit::Unable;
use crate::attach::{self, Library};
use crate::probe::Layer;
use crate::server::known;
use crate::target::{self, Mapping};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::Write as _;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    /// As it should be.
    Ok,
    /// Works, but something is dearer or blind.
    Note,
    /// Stands in the way.
    Fail,
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    grade: Grade,
    /// What was looked at.
    subject: String,
    /// What was found, and what to do when it is not as it should be.
    detail: String,
}

/// Findings under a heading.
#[derive(Clone, Debug, Serialize)]
struct Section {
    title: String,
    findings: Vec<Finding>,
}

impl Section {
    fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), findings: Vec::new() }
    }

    fn add(&mut self, grade: Grade, subject: impl Into<String>, detail: impl Into<String>) {
        self.findings.push(Finding { grade, subject: subject.into(), detail: detail.into() });
    }
}

/// Looks, prints, and fails with the code for "cannot be profiled" when something stands in the way.
pub fn run(args: &args::Check) -> anyhow::Result<()> {
    attach::ensure_tracefs();
    let mut sections = vec![machine()];
    if let Some(pid) = args.pid {
        sections.extend(target_sections(pid));
    }
    let text = if args.json { serde_json::to_string_pretty(&sections)? + "\n" } else { render(&sections) };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    let fails = sections.iter().flat_map(|section| &section.findings).any(|f| f.grade == Grade::Fail);
    if fails { Err(Unable.into()) } else { Ok(()) }
}

fn render(sections: &[Section]) -> String {
    let mut text = String::new();
    for section in sections {
        let _ = writeln!(text, "{}", section.title);
        for finding in &section.findings {
            let mark = match finding.grade {
                Grade::Ok => "ok  ",
                Grade::Note => "note",
                Grade::Fail => "FAIL",
            };
            let _ = writeln!(text, "  {mark}  {:<22} {}", finding.subject, finding.detail);
        }
    }
    text
}

fn machine() -> Section {
    let mut section = Section::new("machine");
    kernel(&mut section);
    privileges(&mut section);
    match attach::multi_support() {
        Ok(()) => {
            section.add(Grade::Ok, "uprobe links", "multi: all probes of a library detach in milliseconds")
        }
        Err(why) => section.add(
            Grade::Note,
            "uprobe links",
            format!("perf: about 0.1 s a probe to detach ({})", crate::chain(&why)),
        ),
    }
    if std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
        section.add(
            Grade::Ok,
            "system call hook",
            "tp_btf/sys_exit, the cheapest for processes not observed",
        );
    } else {
        section.add(
            Grade::Note,
            "system call hook",
            "raw tracepoint: the kernel has no BTF (CONFIG_DEBUG_INFO_BTF)",
        );
    }
    if std::path::Path::new("/sys/kernel/tracing/events/sched/sched_process_fork").exists() {
        section.add(Grade::Ok, "process hooks", "sched tracepoints");
    } else {
        section.add(
            Grade::Fail,
            "process hooks",
            "tracefs is missing: mount -t tracefs none /sys/kernel/tracing",
        );
    }
    section
}

/// The oldest kernel that is aimed at: ring buffer (5.8), attach cookies (5.15).
const OLDEST: (u32, u32) = (5, 15);

fn kernel(section: &mut Section) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= OLDEST {
        section.add(Grade::Ok, "kernel", release);
    } else {
        section.add(
            Grade::Fail,
            "kernel",
            format!("{release}: Linux 5.15 or later is needed (attach cookies)"),
        );
    }
}

/// Capabilities by number (linux/capability.h), what each is for, and whether there is no way without it.
const CAPABILITIES: [(u32, &str, &str, Grade); 5] = [
    (39, "CAP_BPF", "to load programs", Grade::Fail),
    (38, "CAP_PERFMON", "to attach them", Grade::Fail),
    (19, "CAP_SYS_PTRACE", "to read other users' processes", Grade::Note),
    (2, "CAP_DAC_READ_SEARCH", "to read their libraries", Grade::Note),
    (21, "CAP_SYS_ADMIN", "to open deleted libraries and those of other mount namespaces", Grade::Note),
];

fn privileges(section: &mut Section) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .unwrap_or(0);
    let lacking: Vec<_> = CAPABILITIES.iter().filter(|(bit, ..)| effective >> bit & 1 == 0).collect();
    if lacking.is_empty() {
        section.add(Grade::Ok, "privileges", "all capabilities that are of use");
    }
    for (_, name, purpose, grade) in lacking {
        section.add(*grade, "privileges", format!("{name} is missing, {purpose}: run as root or grant it"));
    }
}

fn target_sections(pid: u32) -> Vec<Section> {
    if let Err(error) = target::require(pid) {
        let mut section = Section::new(format!("process {pid}"));
        section.add(Grade::Fail, "target", crate::chain(&error));
        return vec![section];
    }
    let mut sections: Vec<_> = target::descendants(pid).into_iter().map(process).collect();
    let any_gpu = sections.iter().flat_map(|s| &s.findings).any(|f| f.subject.starts_with("libcu"));
    if let (false, Some(first)) = (any_gpu, sections.first_mut()) {
        first.add(
            Grade::Note,
            "GPU",
            "no CUDA library is mapped yet: requests will be seen, and GPU calls once one is loaded",
        );
    }
    sections
}

fn process(pid: u32) -> Section {
    let identity = target::identity(pid);
    let server =
        known::recognise(&identity.comm, &identity.executable.to_string_lossy(), &identity.command_line);
    let mut section = Section::new(format!("process {pid} ({}), server {server}", identity.comm));
    let Ok(mappings) = target::mappings(pid) else {
        section.add(Grade::Fail, "mappings", "not readable: run as root or with CAP_SYS_PTRACE");
        return section;
    };
    let mut seen = std::collections::HashSet::new();
    for mapping in mappings.iter().filter(|mapping| seen.insert(mapping.file)) {
        if let Some(layer) = target::gpu_layer(mapping.name()) {
            library(&mut section, pid, mapping, layer);
        } else if mapping.name().starts_with("libssl") {
            section.add(
                Grade::Note,
                mapping.name(),
                "TLS: requests that arrive encrypted are not read yet, only counted",
            );
        } else if mapping.name().starts_with("libamdhip64") {
            section.add(Grade::Note, mapping.name(), "HIP calls are not probed yet");
        }
    }
    let open = target::open_connections(pid).map_or(0, |open| open.len());
    section.add(
        Grade::Ok,
        "sockets",
        format!("{open} connections open; a request already under way ends as partial"),
    );
    section
}

fn library(section: &mut Section, pid: u32, mapping: &Mapping, layer: Layer) {
    let library = match attach::inspect(&mapping.openable(pid), layer) {
        Ok(library) => library,
        Err(error) => return section.add(Grade::Fail, mapping.name(), crate::chain(&error)),
    };
    let grade = if library.points.is_empty() { Grade::Fail } else { Grade::Ok };
    section.add(grade, mapping.name(), coverage(&library));
    let expensive: Vec<_> = library
        .points
        .iter()
        .filter(|point| point.expensive.is_some())
        .filter_map(|point| Some(crate::probe::api(point.api)?.symbol))
        .collect();
    if !expensive.is_empty() {
        section.add(
            Grade::Note,
            mapping.name(),
            format!(
                "{} functions would be single-stepped (3 to 14 times dearer): {}",
                expensive.len(),
                short(&expensive)
            ),
        );
    }
    let missing: Vec<_> = library.missing.iter().map(|missing| missing.symbol).collect();
    if !missing.is_empty() {
        section.add(
            Grade::Note,
            mapping.name(),
            format!("{} functions are not in this version: {}", missing.len(), short(&missing)),
        );
    }
    if mapping.deleted {
        section.add(Grade::Note, mapping.name(), "the file was replaced on disk; the mapped one is probed");
    }
}

fn coverage(library: &Library) -> String {
    let cheap = library.points.iter().filter(|point| point.expensive.is_none()).count();
    let build = library.build_id.as_deref().map_or_else(String::new, |id| format!(", build id {id}"));
    format!(
        "{} functions can be probed, {cheap} of them at emulated instructions{build}",
        library.points.len()
    )
}

/// The first few names.
fn short(names: &[&str]) -> String {
    const FEW: usize = 6;
    let shown = names.iter().take(FEW).copied().collect::<Vec<_>>().join(", ");
    if names.len() > FEW { format!("{shown}, …") } else { shown }
}
