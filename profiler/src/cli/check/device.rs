//! The devices' part of the check: what each says of itself, and what it does not.

use super::{Grade, Section};
use crate::device::{Found, Settings, survey};
use std::path::Path;

/// Asks every device once.
pub fn section(nvml: Option<&Path>, sys: &Path) -> Section {
    let settings = Settings { nvml: nvml.map(Path::to_owned), sys: sys.to_owned(), ..Settings::default() };
    let mut section = Section::new("devices");
    let (devices, notes) = survey(&settings);
    for Found { device, has, lacks } in devices {
        let what = format!("{} ({}), driver {}: {}", device.model, device.id, device.driver, has.join(", "));
        section.add(Grade::Ok, &device.name, what);
        if !lacks.is_empty() {
            section.add(Grade::Note, &device.name, format!("does not say: {}", lacks.join(", ")));
        }
    }
    for note in notes {
        section.add(Grade::Note, note.about, note.what);
    }
    section
}
