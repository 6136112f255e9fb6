//! `gpuspan check`: what could be observed here, what would stay blind, and what to do about it. Attaches nothing to
//! the target.
//!
//! In: the machine, and a process with its children. Out: lines for people, or all of it as JSON.

mod blind;
mod device;
mod inside;
mod library;
mod machine;
mod process;

use super::args;
use super::exit::Unable;
use crate::attach::{self, Price};
use library::LibraryReport;
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
    /// What a probe costs on this machine.
    #[serde(rename = "probe_cost_ns", skip_serializing_if = "Option::is_none")]
    probe_cost: Option<Price>,
    /// Every GPU library of a process, with every function.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    libraries: Vec<LibraryReport>,
}

impl Section {
    fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), findings: Vec::new(), probe_cost: None, libraries: Vec::new() }
    }

    fn add(&mut self, grade: Grade, subject: impl Into<String>, detail: impl Into<String>) {
        self.findings.push(Finding { grade, subject: subject.into(), detail: detail.into() });
    }
}

/// Looks, prints, and fails with the code for "cannot be profiled" when something stands in the way.
pub fn run(args: &args::Check) -> anyhow::Result<()> {
    attach::ensure_tracefs();
    let mut sections = vec![machine::section(), device::section(args.nvml.as_deref(), &args.sys)];
    if let Some(pid) = args.pid {
        sections.extend(process::sections(pid));
    }
    let text = if args.json {
        serde_json::to_string_pretty(&sections)? + "\n"
    } else {
        render(&sections, args.symbols)
    };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    let fails = sections.iter().flat_map(|section| &section.findings).any(|f| f.grade == Grade::Fail);
    if fails { Err(Unable.into()) } else { Ok(()) }
}

fn render(sections: &[Section], symbols: bool) -> String {
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
        for library in section.libraries.iter().filter(|_| symbols) {
            text += &library.table();
        }
    }
    text
}
