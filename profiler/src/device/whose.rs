//! Process ids of a driver → processes of the target, and CUDA's ordinals → devices.
//!
//! In: the target's pids, what devices say of processes, procfs. Out: pids of this namespace, and [`Place`]s. A driver
//! tells pids of the host or of the container, by version and call; either is found.

use super::model::{Device, Place};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

/// The target's processes, as the controlling thread knows them.
#[derive(Debug, Default)]
pub struct Targets(Mutex<BTreeSet<u32>>);

impl Targets {
    /// These from now on.
    pub fn set(&self, pids: impl Iterator<Item = u32>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pids.collect();
    }

    fn get(&self) -> BTreeSet<u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What is known of a process of the target.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Its pid in the innermost namespace.
    inner: u32,
    visible: Option<String>,
    by_pci: bool,
    /// Numbers of the device files that it has open.
    minors: Vec<u32>,
}

/// Finds out.
#[derive(Debug, Default)]
pub struct Whose {
    known: BTreeMap<u32, Known>,
    /// Devices on which each process has a context.
    contexts: BTreeMap<u32, BTreeSet<u32>>,
    told: Vec<Place>,
}

impl Whose {
    /// A round begins: the target's processes as they are now. With `afresh` all is looked at again: a process may have
    /// become another program, and opened devices.
    pub fn begin(&mut self, targets: &Targets, afresh: bool) {
        let pids = targets.get();
        self.known.retain(|pid, _| !afresh && pids.contains(pid));
        self.contexts.clear();
        for pid in pids {
            self.known.entry(pid).or_insert_with(|| Known::of(pid));
        }
    }

    /// The process of the target that a driver calls `pid`, which has a context on a device.
    pub fn join(&mut self, pid: u32, device: u32) -> Option<u32> {
        let found = self.find_here(pid)?;
        self.contexts.entry(found).or_default().insert(device);
        Some(found)
    }

    /// The process of the target that a driver calls `pid`.
    pub fn find_here(&self, pid: u32) -> Option<u32> {
        self.find(pid, |pid| !crate::target::open_gpus(pid).is_empty())
    }

    /// Its own pid, else that of one namespace, unless that is the pid of another process here that uses a GPU.
    fn find(&self, pid: u32, uses_gpu: impl Fn(u32) -> bool) -> Option<u32> {
        if self.known.contains_key(&pid) {
            return Some(pid);
        }
        let mut inside = self.known.iter().filter(|(_, known)| known.inner == pid).map(|(outer, _)| *outer);
        let found = inside.next().filter(|_| inside.next().is_none())?;
        (!uses_gpu(pid)).then_some(found)
    }

    /// Where the target's processes stand, if that has changed.
    pub fn places(&mut self, devices: &[Device]) -> Option<Vec<Place>> {
        let places: Vec<_> =
            self.known.iter().filter_map(|(pid, known)| self.place(*pid, known, devices)).collect();
        if places == self.told {
            return None;
        }
        self.told.clone_from(&places);
        Some(places)
    }

    /// Devices that the target uses.
    #[must_use]
    pub fn used(&self) -> BTreeSet<u32> {
        let placed = self.told.iter().flat_map(|place| place.devices.iter().copied());
        self.contexts.values().flatten().copied().chain(placed).collect()
    }

    fn place(&self, pid: u32, known: &Known, devices: &[Device]) -> Option<Place> {
        let contexts: Vec<u32> = self.contexts.get(&pid).into_iter().flatten().copied().collect();
        let has = |device: &Device| device.minor.is_some_and(|minor| known.minors.contains(&minor));
        let opened = || {
            numbered(devices, |device| device.parent.is_none() && device.vendor == "nvidia" && has(device))
        };
        let open = if contexts.is_empty() { opened() } else { contexts };
        place(pid, &open, known.visible.as_deref(), known.by_pci, devices)
    }
}

fn numbered(devices: &[Device], is_one: impl Fn(&Device) -> bool) -> Vec<u32> {
    (0u32..).zip(devices).filter(|(_, device)| is_one(device)).map(|(index, _)| index).collect()
}

/// Where a process stands that has these devices `open` and was started with this `CUDA_VISIBLE_DEVICES`. The only open one
/// is it. Of several, those that are visible, in their order: numbers follow PCI addresses if `CUDA_DEVICE_ORDER` says so, or
/// if all are of one model, since CUDA puts the fastest first.
fn place(pid: u32, open: &[u32], visible: Option<&str>, by_pci: bool, devices: &[Device]) -> Option<Place> {
    let unknown =
        |why: &str| Some(Place { pid, devices: Vec::new(), only: false, unknown: Some(why.to_owned()) });
    match open {
        [] => return None,
        [only] => return Some(Place { pid, devices: vec![*only], only: true, unknown: None }),
        _ => {}
    }
    let mut whole = numbered(devices, |device| device.parent.is_none() && device.vendor == "nvidia");
    let of = |index: &u32| devices.get(*index as usize);
    whole.sort_by_key(|index| of(index).map(|device| device.pci.clone()));
    let models: BTreeSet<_> = whole.iter().filter_map(of).map(|device| &device.model).collect();
    let in_order = by_pci || models.len() == 1;
    let ordinals = match visible {
        None if in_order => whole,
        None => {
            return unknown(
                "several models and no CUDA_DEVICE_ORDER=PCI_BUS_ID: CUDA puts the fastest first",
            );
        }
        Some(visible) => match listed(visible, &whole, in_order, devices) {
            Some(ordinals) => ordinals,
            None => {
                return unknown(
                    "CUDA_VISIBLE_DEVICES of its start names no devices by an order that is known",
                );
            }
        },
    };
    if open.iter().any(|device| !ordinals.contains(device)) {
        return unknown("it uses devices that CUDA_VISIBLE_DEVICES of its start does not name");
    }
    Some(Place { pid, devices: ordinals, only: false, unknown: None })
}

/// `0,2` or `GPU-3f…,GPU-a1…`, as far as the first that names nothing, like CUDA.
fn listed(visible: &str, whole: &[u32], in_order: bool, devices: &[Device]) -> Option<Vec<u32>> {
    let mut ordinals = Vec::new();
    for name in visible.split(',').map(str::trim) {
        let found = match name.parse::<usize>() {
            Ok(_) if !in_order => return None,
            Ok(number) => whole.get(number).copied(),
            Err(_) => {
                numbered(devices, |device| device.id.starts_with(name) && !name.is_empty()).first().copied()
            }
        };
        match found {
            Some(device) => ordinals.push(device),
            None => break,
        }
    }
    (!ordinals.is_empty()).then_some(ordinals)
}

impl Known {
    fn of(pid: u32) -> Self {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let variables: HashMap<&str, &str> = environment
            .split(|byte| *byte == 0)
            .filter_map(|line| std::str::from_utf8(line).ok()?.split_once('='))
            .collect();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        Self {
            inner: inner_pid(&status).unwrap_or(pid),
            visible: variables.get("CUDA_VISIBLE_DEVICES").map(|visible| (*visible).to_owned()),
            by_pci: variables.get("CUDA_DEVICE_ORDER") == Some(&"PCI_BUS_ID"),
            minors: crate::target::open_gpus(pid),
        }
    }
}

/// The last number of `NSpid` of `/proc/PID/status`: the pid that the process itself sees.
fn inner_pid(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(models: &[&str]) -> Vec<Device> {
        let device = |(index, model): (usize, &&str)| Device {
            id: format!("GPU-{index}f"),
            model: (*model).to_owned(),
            vendor: "nvidia".to_owned(),
            // PCI order is not the order in which they are told.
            pci: format!("0000:{:02x}:00.0", 9 - index),
            ..Device::default()
        };
        models.iter().enumerate().map(device).collect()
    }

    fn ordinals(
        open: &[u32],
        visible: Option<&str>,
        by_pci: bool,
        models: &[&str],
    ) -> Option<(Vec<u32>, bool)> {
        let place = place(7, open, visible, by_pci, &devices(models))?;
        assert_eq!(place.unknown.is_some(), place.devices.is_empty());
        Some((place.devices, place.only))
    }

    #[test]
    fn the_only_open_device_is_it() {
        assert_eq!(ordinals(&[1], Some("0"), false, &["a", "b"]), Some((vec![1], true)));
        assert_eq!(ordinals(&[], Some("0"), false, &["a", "b"]), None);
    }

    #[test]
    fn ordinals_follow_what_is_visible() {
        let same = ["a", "a", "a"];
        assert_eq!(ordinals(&[0, 1], None, false, &same), Some((vec![2, 1, 0], false)));
        assert_eq!(ordinals(&[0, 2], Some("2,0"), false, &same), Some((vec![0, 2], false)));
        assert_eq!(
            ordinals(&[0, 2], Some("GPU-2, GPU-0f"), false, &["a", "b", "c"]),
            Some((vec![2, 0], false))
        );
        assert_eq!(ordinals(&[0, 2], Some("2,0,-1,1"), false, &same), Some((vec![0, 2], false)));
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        let nothing = Some((Vec::new(), false));
        assert_eq!(ordinals(&[0, 1], None, false, &["a", "b"]), nothing);
        assert_eq!(ordinals(&[0, 1], None, true, &["a", "b"]), Some((vec![1, 0], false)));
        assert_eq!(ordinals(&[0, 1], Some("0,1"), false, &["a", "b"]), nothing);
        assert_eq!(
            ordinals(&[0, 1], Some("GPU-1f,nothing"), false, &["a", "a"]),
            nothing,
            "0 is not visible"
        );
    }

    #[test]
    fn pids_of_the_host_and_of_the_container_are_found() {
        let known = |inner| Known { inner, ..Known::default() };
        let whose =
            Whose { known: BTreeMap::from([(4100, known(17)), (4200, known(18))]), ..Whose::default() };
        let nobody = |_| false;
        assert_eq!(whose.find(4100, nobody), Some(4100));
        assert_eq!(whose.find(18, nobody), Some(4200));
        assert_eq!(whose.find(19, nobody), None);
        assert_eq!(
            whose.find(18, |pid| pid == 18),
            None,
            "18 is another process of the host, which has a GPU"
        );
        let twins =
            Whose { known: BTreeMap::from([(4100, known(17)), (4200, known(17))]), ..Whose::default() };
        assert_eq!(twins.find(17, nobody), None, "two containers have a 17");
    }

    #[test]
    fn the_pid_that_a_process_sees() {
        assert_eq!(inner_pid("Name:\tx\nNSpid:\t4100\t17\nThreads:\t1\n"), Some(17));
        assert_eq!(inner_pid("NSpid:\t4100\n"), Some(4100));
        assert_eq!(inner_pid("Name:\tx\n"), None);
    }
}
