//! One process of the target: what it is, its GPU libraries, what stays blind, its sockets.

use super::blind;
use super::inside;
use super::library::LibraryReport;
use super::{Grade, Section};
use crate::attach;
use crate::server::{known, own_spans};
use crate::target::{self, Mapping};
use std::collections::HashSet;
use std::path::Path;

/// A section for `pid` and one for each of its children.
pub fn sections(pid: u32) -> Vec<Section> {
    if let Err(error) = target::require(pid) {
        let mut section = Section::new(format!("process {pid}"));
        section.add(Grade::Fail, "target", crate::chain(&error));
        return vec![section];
    }
    let is_server = |identity: &target::Identity| {
        known::is_server(&identity.comm, &identity.executable.to_string_lossy(), &identity.command_line)
    };
    let pids: Vec<u32> = target::group(pid, &is_server).into_keys().collect();
    let mut sections: Vec<_> = pids.iter().copied().map(section).collect();
    let processes: Vec<_> = pids
        .iter()
        .zip(&sections)
        .map(|(pid, section)| inside::Process::new(*pid, &section.libraries))
        .collect();
    let any_gpu = sections.iter().any(|section| section.libraries.iter().any(LibraryReport::is_gpu));
    if let (false, Some(first)) = (any_gpu, sections.first_mut()) {
        first.add(
            Grade::Note,
            "GPU",
            "no CUDA library is mapped yet: requests will be seen, and GPU calls once one is loaded",
        );
    }
    sections.push(inside::section(&processes));
    sections
}

fn section(pid: u32) -> Section {
    let identity = target::identity(pid);
    let server =
        known::recognise(&identity.comm, &identity.executable.to_string_lossy(), &identity.command_line);
    let mut section = Section::new(format!("process {pid} ({}), server {server}", identity.comm));
    let Ok(mappings) = target::mappings(pid) else {
        section.add(Grade::Fail, "mappings", "not readable: run as root or with CAP_SYS_PTRACE");
        return section;
    };
    let mut seen = HashSet::new();
    let mut files: Vec<_> = mappings.iter().filter(|mapping| seen.insert(mapping.file)).collect();
    // The program first, then by name: where they lie differs from run to run.
    let is_library = |mapping: &Mapping| Path::new(&mapping.path) != identity.executable;
    files.sort_by_key(|mapping| (is_library(mapping), mapping.name()));
    for mapping in &files {
        library(&mut section, pid, mapping);
    }
    telemetry(&mut section, pid, server, &identity);
    contexts(&mut section, pid, &mappings);
    blind::add(&mut section, pid, &files);
    let open = target::open_connections(pid).map_or(0, |open| open.len());
    section.add(
        Grade::Ok,
        "sockets",
        format!("{open} connections open; a request already under way ends as partial"),
    );
    section
}

/// What the process says of itself to others than gpuspan.
fn telemetry(section: &mut Section, pid: u32, server: &str, identity: &target::Identity) {
    if let Some(how) = own_spans(server, &identity.command_line, |name| identity.telemetry(name)) {
        let detail = format!(
            "it emits spans of its requests itself ({how}): gpuspan's are INTERNAL beside them; --server-span always makes them SERVER spans"
        );
        section.add(Grade::Note, "own spans", detail);
    }
    let Some(context) = target::process_context(pid) else { return };
    let detail =
        format!("its SDK publishes {} resource attributes, which are used", context.attributes.len());
    section.add(Grade::Ok, "process context", detail);
}

/// Where its threads publish what they work for.
fn contexts(section: &mut Section, pid: u32, mappings: &[Mapping]) {
    let schema = || target::process_context(pid)?.thread_schema;
    let (grade, detail) = match (attach::published(pid, mappings), schema()) {
        (Some((path, Ok(()))), _) => {
            (Grade::Ok, format!("the active spans of its threads are read by the variable of {path}"))
        }
        (Some((path, Err(why))), _) => (Grade::Note, format!("{} ({path})", why.blind())),
        (None, Some(schema)) => {
            let why = "and no file that is mapped exports `otel_thread_ctx_v1`, so they are not read";
            (Grade::Note, format!("its SDK says that threads publish their active spans ({schema}), {why}"))
        }
        (None, None) => return,
    };
    section.add(grade, "thread context", detail);
}

fn library(section: &mut Section, pid: u32, mapping: &Mapping) {
    let layer = target::layer(mapping.name());
    match attach::inspect(&mapping.openable(pid), layer) {
        Ok(library) if library.is_of_interest() => {
            let report = LibraryReport::new(mapping, &library);
            report.findings(section);
            section.libraries.push(report);
        }
        Err(error) if layer.is_some() => {
            section.add(Grade::Fail, mapping.name(), crate::chain(&error));
        }
        // Many things can be mapped; what is not called like a GPU library need not be one.
        _ => {}
    }
}
