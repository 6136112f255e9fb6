//! What stays unseen in a process, in words that say what it means for what is shown.

use super::library::{LibraryReport, short};
use super::{Grade, Section};
use crate::attach::{self, Role};
use crate::probe::Layer;
use crate::target::{self, Mapping};

const SUBJECT: &str = "blind spot";

/// Adds what cannot be seen of a process that maps these files.
pub fn add(section: &mut Section, pid: u32, files: &[&Mapping]) {
    for mapping in files {
        if let Some(why) = attach::unreadable_tls(&mapping.openable(pid)) {
            section.add(Grade::Note, mapping.name(), why);
        }
        if mapping.name().starts_with("libamdhip64") {
            section.add(Grade::Note, mapping.name(), "HIP calls are not probed yet");
        }
    }
    if target::has_io_uring(pid) {
        let detail = "io_uring: requests read and answered through it pass no system call that is watched";
        section.add(Grade::Note, SUBJECT, detail);
    }
    if section.libraries.iter().any(LibraryReport::is_gpu) {
        gpu(section);
    }
}

fn gpu(section: &mut Section) {
    let has = |role| section.libraries.iter().any(|l| l.roles.contains(&role) && l.is_probed());
    let driver = has(Role::Shared(Layer::Driver));
    let hidden = section.libraries.iter().filter(|l| l.roles.contains(&Role::StrippedRuntime));
    let hidden: Vec<_> = hidden.map(|library| library.name().to_owned()).collect();
    let mut notes = Vec::new();
    if !hidden.is_empty() {
        let seen = if driver { "at the driver only" } else { "at the driver only, once libcuda is loaded" };
        notes.push(format!(
            "{}: device code, and a CUDA runtime that is stripped or absent: GPU calls are seen {seen}",
            short(&hidden)
        ));
    }
    if !driver {
        let detail = "libcuda is not probed: what calls the driver itself (cuBLAS, cuDNN, Triton) is unseen";
        notes.push(detail.to_owned());
    }
    notes.push(
        "graphs captured before the attach: their launches are counted, their nodes unknown".to_owned(),
    );
    notes.push(
        "kernels launched by kernels and nodes of conditional graphs: the GPU starts them, no call is seen"
            .to_owned(),
    );
    notes.into_iter().for_each(|note| section.add(Grade::Note, SUBJECT, note));
}
