//! Processes on AMD's devices, as the KFD driver shows them.
//!
//! In: `/sys/class/kfd/kfd/topology/nodes` and `/sys/class/kfd/kfd/proc` (Linux 5.15 to 6.18). Out: memory of the target's
//! processes, and the compute units that they hold. Absent: processes that only draw.

use crate::device::inventory::Inventory;
use crate::device::model::{Reading, What};
use crate::device::whose::Whose;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A device as KFD numbers it.
#[derive(Debug)]
struct Node {
    gpu_id: String,
    pci: String,
    /// Its compute units.
    units: u64,
}

/// What KFD knows.
#[derive(Debug, Default)]
pub struct Kfd {
    processes: PathBuf,
    nodes: Vec<Node>,
    /// Processes that were told, with their device.
    told: BTreeSet<(u32, u32)>,
    /// Its list of processes may not be read.
    pub is_denied: bool,
}

impl Kfd {
    /// Looks for its devices in this sysfs.
    pub fn look(&mut self, sys: &Path) {
        let kfd = sys.join("class/kfd/kfd");
        let nodes = std::fs::read_dir(kfd.join("topology/nodes")).into_iter().flatten().flatten();
        let mut nodes: Vec<_> = nodes.filter_map(|entry| Node::of(&entry.path())).collect();
        nodes.sort_by(|left, right| left.pci.cmp(&right.pci));
        self.nodes = nodes;
        self.processes = kfd.join("proc");
    }

    /// Finds the target's processes on cards, which are told by number and PCI address.
    pub fn round(
        &mut self,
        cards: &[(u32, String)],
        inventory: &mut Inventory,
        whose: &mut Whose,
        reading: &mut Reading,
    ) {
        let mut told = BTreeSet::new();
        for (listed, folder) in self.list() {
            for node in &self.nodes {
                let Some((number, _)) = cards.iter().find(|(_, pci)| *pci == node.pci) else { continue };
                let Some(bytes) = number_in(&folder.join(format!("vram_{}", node.gpu_id))) else { continue };
                let Some(pid) = whose.join(listed, *number) else { continue };
                let held = number_in(&folder.join(format!("stats_{}/cu_occupancy", node.gpu_id)));
                inventory.listen(*number, reading, |out| {
                    out.tell(What::ProcessMemory(pid), bytes);
                    if let Some(held) = held.filter(|_| node.units > 0) {
                        out.tell(
                            What::ProcessUtilization(pid),
                            (held * 1_000_000 / node.units).min(1_000_000),
                        );
                    }
                });
                told.insert((pid, *number));
            }
        }
        for (pid, number) in self.told.difference(&told) {
            inventory.listen(*number, reading, |out| {
                out.tell(What::ProcessMemory(*pid), 0);
                out.tell(What::ProcessUtilization(*pid), 0);
            });
        }
        self.told = told;
    }

    fn list(&mut self) -> Vec<(u32, PathBuf)> {
        let entries = match std::fs::read_dir(&self.processes) {
            Ok(entries) => entries,
            Err(error) => {
                self.is_denied = error.kind() == ErrorKind::PermissionDenied;
                return Vec::new();
            }
        };
        let pid = |entry: &std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
        entries.flatten().filter_map(|entry| Some((pid(&entry)?, entry.path()))).collect()
    }
}

impl Node {
    /// A node that is a GPU: processors have the id 0.
    fn of(path: &Path) -> Option<Self> {
        let gpu_id = std::fs::read_to_string(path.join("gpu_id")).ok()?.trim().to_owned();
        let properties = std::fs::read_to_string(path.join("properties")).ok().filter(|_| gpu_id != "0")?;
        let of = |name: &str| {
            let line = properties.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
            line.trim().parse::<u64>().ok()
        };
        let (domain, location) = (of("domain").unwrap_or(0), of("location_id")?);
        let pci = format!(
            "{domain:04x}:{:02x}:{:02x}.{}",
            location >> 8 & 0xff,
            location >> 3 & 0x1f,
            location & 7
        );
        let units = of("simd_count").unwrap_or(0) / of("simd_per_cu").unwrap_or(1).max(1);
        Some(Self { gpu_id, pci, units })
    }
}

fn number_in(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}
