//! One process of the target: what it is, its GPU libraries, what stays blind, its sockets.

use super::blind;
use super::library::LibraryReport;
use super::{Grade, Section};
use crate::attach;
use crate::server::known;
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
    let mut sections: Vec<_> = target::descendants(pid).into_iter().map(section).collect();
    let any_gpu = sections.iter().any(|section| section.libraries.iter().any(LibraryReport::is_gpu));
    if let (false, Some(first)) = (any_gpu, sections.first_mut()) {
        first.add(
            Grade::Note,
            "GPU",
            "no CUDA library is mapped yet: requests will be seen, and GPU calls once one is loaded",
        );
    }
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
    blind::add(&mut section, pid, &files);
    let open = target::open_connections(pid).map_or(0, |open| open.len());
    section.add(
        Grade::Ok,
        "sockets",
        format!("{open} connections open; a request already under way ends as partial"),
    );
    section
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
