//! A sysfs of our own making, with two cards of AMD's and one of another's.

use super::*;
use crate::device::model::{Domain, ErrorKind, Limit, Sensor, Task};
use crate::device::whose::Targets;

fn write(root: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("{text}\n")).unwrap();
    }
}

/// An accelerator with all files, one that has few, and what is no card of AMD's.
fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    write(
        root.path(),
        &[
            ("class/drm/card1/device/vendor", "0x1002"),
            ("class/drm/card1/device/device", "0x74a1"),
            ("class/drm/card1/device/uevent", "DRIVER=amdgpu\nPCI_CLASS=38000\nPCI_SLOT_NAME=0000:c1:00.0"),
            ("class/drm/card1/device/unique_id", "a1b2c3d4e5f60718"),
            ("class/drm/card1/device/product_name", "AMD Instinct MI300X OAM"),
            ("class/drm/card1/device/gpu_busy_percent", "37"),
            ("class/drm/card1/device/mem_info_vram_used", "68719476736"),
            ("class/drm/card1/device/mem_info_vram_total", "206158430208"),
            ("class/drm/card1/device/pcie_replay_count", "2"),
            ("class/drm/card1/device/ras/umc_err_count", "ue: 1\nce: 5"),
            ("class/drm/card1/device/hwmon/hwmon4/power1_average", "412000000"),
            ("class/drm/card1/device/hwmon/hwmon4/temp1_input", "41000"),
            ("class/drm/card1/device/hwmon/hwmon4/temp1_label", "edge"),
            ("class/drm/card1/device/hwmon/hwmon4/temp1_crit", "100000"),
            ("class/drm/card1/device/hwmon/hwmon4/temp1_emergency", "105000"),
            ("class/drm/card1/device/hwmon/hwmon4/temp2_input", "48000"),
            ("class/drm/card1/device/hwmon/hwmon4/temp2_label", "junction"),
            ("class/drm/card1/device/hwmon/hwmon4/temp3_input", "39000"),
            ("class/drm/card1/device/hwmon/hwmon4/temp3_label", "mem"),
            ("class/drm/card1/device/hwmon/hwmon4/freq1_input", "2100000000"),
            ("class/drm/card1/device/hwmon/hwmon4/freq1_label", "sclk"),
            ("class/drm/card1/device/pp_dpm_mclk", "0: 900Mhz\n1: 1300Mhz *"),
            ("class/drm/card1-DP-1/status", "disconnected"),
            ("class/drm/card2/device/vendor", "0x1002"),
            ("class/drm/card2/device/uevent", "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:c2:00.0"),
            ("class/drm/card2/device/unique_id", "0000000000000000"),
            ("class/drm/card2/device/hwmon/hwmon5/energy1_input", "1000000"),
            ("class/drm/card0/device/vendor", "0x10de"),
            ("class/kfd/kfd/topology/nodes/0/gpu_id", "0"),
            ("class/kfd/kfd/topology/nodes/0/properties", "cpu_cores_count 96"),
            ("class/kfd/kfd/topology/nodes/1/gpu_id", "51234"),
            (
                "class/kfd/kfd/topology/nodes/1/properties",
                "simd_count 1216\nsimd_per_cu 4\nlocation_id 49408\ndomain 0",
            ),
        ],
    );
    root
}

struct Bench {
    source: Source,
    inventory: Inventory,
    whose: Whose,
    targets: Targets,
}

impl Bench {
    fn new(root: &Path) -> (Self, Reading) {
        let mut bench = Self {
            source: Source::new(root),
            inventory: Inventory::default(),
            whose: Whose::default(),
            targets: Targets::default(),
        };
        bench.targets.set([std::process::id()].into_iter());
        let reading = bench.round(0, Scope::All);
        (bench, reading)
    }

    fn round(&mut self, time_ns: u64, scope: Scope) -> Reading {
        let mut reading = Reading { time_ns, ..Reading::default() };
        self.whose.begin(&self.targets, true);
        self.source.look(&mut self.inventory, &mut reading);
        self.source.round(Tier::Dear, scope, &mut self.inventory, &mut self.whose, &mut reading);
        reading
    }
}

fn value(reading: &Reading, device: u32, what: What) -> Option<u64> {
    reading.samples.iter().filter(|sample| sample.device == device).find_map(|sample| sample.get(what))
}

#[test]
fn every_file_has_its_unit() {
    let root = machine();
    let (_, reading) = Bench::new(root.path());
    let ids: Vec<_> =
        reading.devices.iter().map(|device| (device.id.as_str(), device.model.as_str())).collect();
    assert_eq!(ids, [("a1b2c3d4e5f60718", "AMD Instinct MI300X OAM"), ("0000:c2:00.0", "")]);
    for (what, expected) in [
        (What::Utilization(Task::General), 370_000),
        (What::MemoryUsed, 64 << 30),
        (What::MemoryLimit, 192 << 30),
        (What::Power, 412_000),
        (What::Temperature(Sensor::Gpu), 41_000),
        (What::Temperature(Sensor::Hotspot), 48_000),
        (What::Temperature(Sensor::Memory), 39_000),
        (What::TemperatureLimit(Limit::Slowdown), 100_000),
        (What::TemperatureLimit(Limit::Shutdown), 105_000),
        (What::Clock(Domain::Graphics), 2_100_000_000),
        (What::Clock(Domain::Memory), 1_300_000_000),
        (What::Errors(ErrorKind::Uncorrected), 1),
        (What::Errors(ErrorKind::Corrected), 5),
        (What::Errors(ErrorKind::PcieReplay), 2),
        (What::EnergyFromPower, 0),
        (What::State, State::Ok as u64),
    ] {
        assert_eq!(value(&reading, 0, what), Some(expected), "{what:?}");
    }
    assert_eq!(value(&reading, 1, What::Power), None, "what is not there is not told");
    assert_eq!(value(&reading, 1, What::Energy), Some(0));
}

#[test]
fn energy_goes_on_from_power_or_from_its_counter() {
    let root = machine();
    let (mut bench, _) = Bench::new(root.path());
    write(root.path(), &[("class/drm/card2/device/hwmon/hwmon5/energy1_input", "3500000")]);
    let reading = bench.round(2_000_000_000, Scope::All);
    assert_eq!(value(&reading, 0, What::EnergyFromPower), Some(824_000_000), "412 W for 2 s");
    assert_eq!(value(&reading, 1, What::Energy), Some(2_500_000));
    write(root.path(), &[("class/drm/card2/device/hwmon/hwmon5/energy1_input", "500")]);
    assert_eq!(
        value(&bench.round(3_000_000_000, Scope::All), 1, What::Energy),
        Some(2_500_500),
        "after a reset"
    );
}

#[test]
fn processes_are_those_of_the_target() {
    let root = machine();
    let own = std::process::id();
    let (mut bench, _) = Bench::new(root.path());
    assert!(bench.round(1, Scope::Target).samples.is_empty(), "nobody of the target uses a card");
    let folder = format!("class/kfd/kfd/proc/{own}");
    write(
        root.path(),
        &[(&format!("{folder}/vram_51234"), "1048576"), ("class/kfd/kfd/proc/1/vram_51234", "77")],
    );
    write(root.path(), &[(&format!("{folder}/stats_51234/cu_occupancy"), "76")]);
    let reading = bench.round(2, Scope::Target);
    assert_eq!(value(&reading, 0, What::ProcessMemory(own)), Some(1 << 20));
    assert_eq!(value(&reading, 0, What::ProcessUtilization(own)), Some(250_000), "76 of 304 compute units");
    assert_eq!(value(&reading, 0, What::ProcessMemory(1)), None);
    assert!(reading.samples.iter().all(|sample| sample.device == 0), "the other card is not used");
    std::fs::remove_dir_all(root.path().join(folder)).unwrap();
    assert_eq!(value(&bench.round(3, Scope::All), 0, What::ProcessMemory(own)), Some(0));
}

#[test]
fn a_card_that_goes_and_comes_back_is_told() {
    let root = machine();
    let (mut bench, _) = Bench::new(root.path());
    let (there, away) = (root.path().join("class/drm/card1"), root.path().join("away"));
    std::fs::rename(&there, &away).unwrap();
    let reading = bench.round(1, Scope::All);
    assert_eq!(value(&reading, 0, What::State), Some(State::Failed as u64));
    assert_eq!(reading.notes.len(), 1);
    assert!(bench.round(2, Scope::All).notes.is_empty(), "told once");
    std::fs::rename(&away, &there).unwrap();
    let reading = bench.round(3, Scope::All);
    assert_eq!(value(&reading, 0, What::State), Some(State::Ok as u64));
    assert_eq!(reading.notes[0].what, "it is in sysfs again");
    assert!(reading.devices.is_empty(), "it keeps its number");
}

#[test]
fn a_machine_without_cards_says_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (_, reading) = Bench::new(root.path());
    assert_eq!(reading, Reading::default());
}
