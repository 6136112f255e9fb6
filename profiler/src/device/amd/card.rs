//! One card: its files, and what they say.
//!
//! In: `/sys/class/drm/cardN/device` of the amdgpu driver (Linux 5.15 to 6.18, Documentation/gpu/amdgpu). Out: facts.

use crate::device::inventory::Out;
use crate::device::model::{Device, Domain, ErrorKind, Limit, Sensor, Task, What};
use crate::device::rhythm::Tier;
use crate::device::total::From;
use std::io::ErrorKind as Io;
use std::path::{Path, PathBuf};

/// AMD's PCI vendor.
const VENDOR: &str = "0x1002";

/// A card.
#[derive(Debug)]
pub struct Card {
    /// Its folder.
    pub path: PathBuf,
    /// PCI address.
    pub pci: String,
    hwmon: Option<PathBuf>,
    /// Files that may not be read, since the last look.
    pub denied: Vec<String>,
}

/// Folders of cards, in their order; connectors (`card0-DP-1`) are none.
pub fn folders(sys: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(sys.join("class/drm")).into_iter().flatten().flatten();
    let number =
        |entry: &std::fs::DirEntry| entry.file_name().to_str()?.strip_prefix("card")?.parse::<u32>().ok();
    let mut cards: Vec<_> = entries.filter_map(|entry| Some((number(&entry)?, entry.path()))).collect();
    cards.sort();
    cards.into_iter().map(|(_, path)| path).collect()
}

impl Card {
    /// A card, if it is AMD's.
    pub fn of(path: &Path) -> Option<(Device, Self)> {
        let folder = path.join("device");
        let text = |file: &str| Some(std::fs::read_to_string(folder.join(file)).ok()?.trim().to_owned());
        if text("vendor")? != VENDOR {
            return None;
        }
        let uevent = text("uevent").unwrap_or_default();
        let field = |name: &str| uevent.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let pci = field("PCI_SLOT_NAME").unwrap_or_default().to_owned();
        let name = path.file_name()?.to_str()?.to_owned();
        let unique = text("unique_id").filter(|id| id.chars().any(|digit| digit != '0'));
        let product = text("product_name").filter(|product| !product.is_empty());
        let device = Device {
            id: unique.unwrap_or_else(|| if pci.is_empty() { name.clone() } else { pci.clone() }),
            model: product.or_else(|| text("device")).unwrap_or_default(),
            vendor: "amd".to_owned(),
            driver: field("DRIVER").unwrap_or("amdgpu").to_owned(),
            pci: pci.clone(),
            minor: name.strip_prefix("card").and_then(|number| number.parse().ok()),
            parent: None,
            name,
        };
        let hwmons = std::fs::read_dir(folder.join("hwmon")).into_iter().flatten().flatten();
        let hwmon = hwmons.map(|entry| entry.path()).min();
        let card = Self { path: path.to_owned(), pci, hwmon, denied: Vec::new() };
        Some((device, card))
    }

    /// Reads what a tier reads; false when it is not there any more.
    pub fn read(&mut self, tier: Tier, out: &mut Out) -> bool {
        if !self.path.join("device/vendor").exists() {
            return false;
        }
        self.power(out);
        if tier >= Tier::Cheap {
            self.gauges(out);
            self.temperatures(out);
            self.clocks(out);
        }
        if tier >= Tier::Dear {
            self.errors(out);
        }
        true
    }

    /// Microwatts; which of the files there is depends on the chip.
    fn power(&mut self, out: &mut Out) {
        if let Some(microjoules) = self.hwmon("energy1_input") {
            out.kept.uncounted = false;
            out.scaled(What::Energy, microjoules, 64, 1);
        } else {
            out.kept.uncounted = true;
        }
        if let Some(microwatts) = self.hwmon("power1_average").or_else(|| self.hwmon("power1_input")) {
            out.power(microwatts / 1000);
        }
    }

    fn gauges(&mut self, out: &mut Out) {
        if let Some(percent) = self.number("gpu_busy_percent") {
            out.tell(What::Utilization(Task::General), percent.min(100) * 10_000);
        }
        for (file, what) in
            [("mem_info_vram_used", What::MemoryUsed), ("mem_info_vram_total", What::MemoryLimit)]
        {
            if let Some(bytes) = self.number(file) {
                out.tell(what, bytes);
            }
        }
    }

    /// Millidegrees; the label says where: `edge`, `junction`, `mem`.
    fn temperatures(&mut self, out: &mut Out) {
        for index in 1..=3 {
            let Some(now) = self.hwmon(&format!("temp{index}_input")) else { continue };
            let sensor = match self.label(&format!("temp{index}_label")).as_deref() {
                Some("junction") => Sensor::Hotspot,
                Some("mem") => Sensor::Memory,
                _ => Sensor::Gpu,
            };
            out.tell(What::Temperature(sensor), now);
            if sensor != Sensor::Gpu {
                continue;
            }
            for (kind, limit) in [("crit", Limit::Slowdown), ("emergency", Limit::Shutdown)] {
                if let Some(at) = self.hwmon(&format!("temp{index}_{kind}")) {
                    out.tell(What::TemperatureLimit(limit), at);
                }
            }
        }
    }

    /// Hertz by label; where hwmon has none, megahertz of the line with a star in the table of levels.
    fn clocks(&mut self, out: &mut Out) {
        for (file, label, table, domain) in [
            ("freq1", "sclk", "pp_dpm_sclk", Domain::Graphics),
            ("freq2", "mclk", "pp_dpm_mclk", Domain::Memory),
        ] {
            let named = self.label(&format!("{file}_label")).is_none_or(|found| found == label);
            let hertz = self.hwmon(&format!("{file}_input")).filter(|_| named);
            let level =
                || Some(self.text(&format!("device/{table}"))?.lines().find_map(current)? * 1_000_000);
            if let Some(hertz) = hertz.or_else(level) {
                out.tell(What::Clock(domain), hertz);
            }
        }
    }

    /// `ue: 0` and `ce: 3` of the memory controller.
    fn errors(&mut self, out: &mut Out) {
        let counts = self.text("device/ras/umc_err_count").unwrap_or_default();
        for (name, kind) in [("ue", ErrorKind::Uncorrected), ("ce", ErrorKind::Corrected)] {
            let count = counts
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok());
            if let Some(count) = count {
                out.total(What::Errors(kind), count, 64, From::Raw);
            }
        }
        if let Some(replays) = self.number("pcie_replay_count") {
            out.total(What::Errors(ErrorKind::PcieReplay), replays, 64, From::Raw);
        }
    }

    fn number(&mut self, file: &str) -> Option<u64> {
        let text = self.text(&format!("device/{file}"))?;
        text.trim().parse().ok()
    }

    fn hwmon(&mut self, file: &str) -> Option<u64> {
        let path = self.hwmon.as_ref()?.join(file);
        self.read_file(&path)?.trim().parse().ok()
    }

    fn label(&mut self, file: &str) -> Option<String> {
        let path = self.hwmon.as_ref()?.join(file);
        Some(self.read_file(&path)?.trim().to_owned())
    }

    fn text(&mut self, file: &str) -> Option<String> {
        let path = self.path.join(file);
        self.read_file(&path)
    }

    fn read_file(&mut self, path: &Path) -> Option<String> {
        let read = std::fs::read_to_string(path);
        if let Err(error) = &read
            && error.kind() == Io::PermissionDenied
        {
            self.denied.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
        read.ok()
    }
}

/// `1: 1900Mhz *`: the level that is set, in megahertz.
fn current(line: &str) -> Option<u64> {
    let level = line.trim_end().strip_suffix('*')?;
    let (_, clock) = level.split_once(':')?;
    let digits: String = clock.trim().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
