//! What devices say → points, under their machine; of processes on them, under the process.
//!
//! In: readings, energy of iterations. Out: a point for each fact. A device that does not answer has no gauges until it does again.

use super::catalog::{self, attribute as name};
use super::{Counter, Gauge, Handle, Registry, Sum, Target, UpDownCounter};
use crate::correlate::{Engine, Purpose};
use crate::device::{Device, Fact, Reading, State, What};
use crate::span::model::{Attribute, Resource, Value, text};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Where a fact goes, and what it is divided by to have the metric's unit.
#[derive(Debug)]
enum Cell {
    Gauge(Handle<Gauge>, f64),
    Level(Handle<UpDownCounter>),
    Count(Handle<Counter>),
    Sum(Handle<Sum>, f64),
    States(Vec<(State, Handle<UpDownCounter>)>),
}

/// All devices of a machine.
#[derive(Debug)]
pub struct Devices {
    registry: Arc<Registry>,
    host: Arc<Resource>,
    devices: Vec<Vec<Attribute>>,
    cells: HashMap<(u32, What), Cell>,
    shares: HashMap<u32, Handle<Gauge>>,
}

impl Devices {
    /// Of the machine that a process runs on.
    #[must_use]
    pub fn new(registry: Arc<Registry>, process: &Resource) -> Self {
        let host = Arc::new(host(process));
        Self { registry, host, devices: Vec::new(), cells: HashMap::new(), shares: HashMap::new() }
    }

    /// Takes a reading, at a moment in Unix time. `process` knows resources of processes.
    pub fn take(&mut self, reading: &Reading, now_ns: u64, process: impl Fn(u32) -> Option<Arc<Resource>>) {
        self.devices.extend(reading.devices.iter().map(attributes));
        for sample in &reading.samples {
            for fact in &sample.facts {
                self.fact(sample.device, *fact, now_ns, &process);
            }
            let both = (sample.get(What::MemoryUsed), sample.get(What::MemoryLimit));
            if let (Some(used), Some(limit @ 1..)) = both {
                let about = self.about(sample.device);
                let (registry, host) = (&self.registry, &self.host);
                let share = self.shares.entry(sample.device);
                let new =
                    || registry.target(host, now_ns).handle(&catalog::HW_GPU_MEMORY_UTILIZATION, &about);
                share.or_insert_with(new).set(used as f64 / limit as f64);
            }
            if sample.get(What::State) == Some(State::Failed as u64) {
                self.hide(sample.device);
            }
        }
    }

    /// A process is gone, or its number is another's now: its points are looked up anew.
    pub fn forget(&mut self, pid: u32) {
        let is_of = |what: &What| matches!(what, What::ProcessMemory(of) | What::ProcessUtilization(of) if *of == pid);
        self.cells.retain(|(_, what), _| !is_of(what));
    }

    fn about(&self, device: u32) -> Vec<Attribute> {
        self.devices.get(device as usize).cloned().unwrap_or_default()
    }

    fn fact(
        &mut self,
        device: u32,
        Fact(what, value): Fact,
        now_ns: u64,
        process: impl Fn(u32) -> Option<Arc<Resource>>,
    ) {
        if !self.cells.contains_key(&(device, what)) {
            let whose = match what {
                What::ProcessMemory(pid) | What::ProcessUtilization(pid) => process(pid),
                _ => Some(Arc::clone(&self.host)),
            };
            let Some(whose) = whose else { return };
            let cell = cell(&self.registry.target(&whose, now_ns), what, self.about(device));
            self.cells.insert((device, what), cell);
        }
        match self.cells.get(&(device, what)) {
            Some(Cell::Gauge(gauge, unit)) => gauge.set(value as f64 / unit),
            Some(Cell::Level(level)) => level.set(super::level(value)),
            Some(Cell::Count(count)) => count.observe(value),
            Some(Cell::Sum(sum, unit)) => sum.observe(value as f64 / unit),
            Some(Cell::States(states)) => {
                states.iter().for_each(|(state, point)| point.set(i64::from(*state as u64 == value)));
            }
            None => {}
        }
    }

    /// What a device said before says nothing of it now.
    fn hide(&mut self, device: u32) {
        for cell in self.cells.iter().filter(|((of, _), _)| *of == device).map(|(_, cell)| cell) {
            if let Cell::Gauge(gauge, _) = cell {
                gauge.set(f64::NAN);
            }
        }
        if let Some(share) = self.shares.get(&device) {
            share.set(f64::NAN);
        }
    }
}

/// The point of a fact.
fn cell(target: &Target, what: What, about: Vec<Attribute>) -> Cell {
    let with = |more: Attribute| about.iter().cloned().chain([more]).collect::<Vec<_>>();
    let gauge = |metric, attributes: &[Attribute], unit| Cell::Gauge(target.handle(metric, attributes), unit);
    let level = |metric, attributes: &[Attribute]| Cell::Level(target.handle(metric, attributes));
    let sum = |metric, attributes: &[Attribute], unit| Cell::Sum(target.handle(metric, attributes), unit);
    let count = |metric, attributes: &[Attribute]| Cell::Count(target.handle(metric, attributes));
    let on_device = |pid: u32| {
        let id = about.iter().find(|(key, _)| *key == name::HW_ID).cloned();
        id.into_iter().chain([(name::PROCESS_PID, Value::Int(pid.into()))]).collect::<Vec<_>>()
    };
    match what {
        What::Utilization(task) => {
            gauge(&catalog::HW_GPU_UTILIZATION, &with((name::HW_GPU_TASK, text(task.name()))), MILLION)
        }
        What::MemoryUsed => level(&catalog::HW_GPU_MEMORY_USAGE, &about),
        What::MemoryLimit => level(&catalog::HW_GPU_MEMORY_LIMIT, &about),
        What::Io(link, way) => {
            let mut attributes = with((name::NETWORK_IO_DIRECTION, text(way.name())));
            attributes.push((name::GPUSPAN_GPU_LINK, text(link.name())));
            count(&catalog::HW_GPU_IO, &attributes)
        }
        What::Errors(kind) => count(&catalog::HW_ERRORS, &with((name::ERROR_TYPE, text(kind.name())))),
        What::State => Cell::States(
            State::ALL
                .iter()
                .map(|state| {
                    let attributes = with((name::HW_STATE, text(state.name())));
                    (*state, target.handle(&catalog::HW_STATUS, &attributes))
                })
                .collect(),
        ),
        What::Power => gauge(&catalog::HW_POWER, &about, THOUSAND),
        What::Energy => {
            sum(&catalog::HW_ENERGY, &with((name::GPUSPAN_ENERGY_SOURCE, text("counter"))), MILLION)
        }
        What::EnergyFromPower => {
            sum(&catalog::HW_ENERGY, &with((name::GPUSPAN_ENERGY_SOURCE, text("power"))), MILLION)
        }
        What::Temperature(sensor) => {
            gauge(&catalog::HW_TEMPERATURE, &with((name::HW_SENSOR_LOCATION, text(sensor.name()))), THOUSAND)
        }
        What::TemperatureLimit(limit) => {
            gauge(&catalog::HW_TEMPERATURE_LIMIT, &with((name::HW_LIMIT_TYPE, text(limit.name()))), THOUSAND)
        }
        What::Clock(domain) => {
            gauge(&catalog::GPU_CLOCK, &with((name::GPUSPAN_GPU_CLOCK_DOMAIN, text(domain.name()))), 1.0)
        }
        What::Throttled(reason) => {
            level(&catalog::GPU_THROTTLED, &with((name::GPUSPAN_GPU_THROTTLE_REASON, text(reason.name()))))
        }
        What::ThrottleTime(held) => sum(
            &catalog::GPU_THROTTLE_TIME,
            &with((name::GPUSPAN_GPU_THROTTLE_REASON, text(held.name()))),
            1e9,
        ),
        What::Activity(unit) => {
            gauge(&catalog::GPU_ACTIVITY, &with((name::GPUSPAN_GPU_UNIT, text(unit.name()))), MILLION)
        }
        What::Xid(code) => {
            count(&catalog::GPU_XIDS, &with((name::GPUSPAN_GPU_XID_CODE, Value::Int(code.into()))))
        }
        What::RemappedRows(rows) => {
            level(&catalog::GPU_REMAPPED_ROWS, &with((name::GPUSPAN_GPU_ROWS, text(rows.name()))))
        }
        What::ProcessMemory(pid) => level(&catalog::PROCESS_GPU_MEMORY, &on_device(pid)),
        What::ProcessUtilization(pid) => gauge(&catalog::PROCESS_GPU_UTILIZATION, &on_device(pid), MILLION),
    }
}

/// Takes the energy of all iterations so far, under the process whose work is told.
pub fn energy(target: &Target, engine: &Engine) {
    for ((_, device, part), microjoules) in added(engine) {
        let device = device.map(|device| (name::CUDA_DEVICE_INDEX, Value::Int(device.into())));
        let attributes: Vec<_> = device.into_iter().chain([(name::GPUSPAN_PART, text(part))]).collect();
        target.handle(&catalog::GPU_ENERGY, &attributes).observe(microjoules as f64 / MILLION);
    }
}

/// Of all processes together: they are one target.
fn added(engine: &Engine) -> BTreeMap<Purpose, u64> {
    let mut sums = BTreeMap::new();
    for ((_, device, part), microjoules) in engine.energy() {
        *sums.entry((0, device, part)).or_default() += microjoules;
    }
    sums
}

/// Milliwatts, millidegrees.
const THOUSAND: f64 = 1e3;
/// Parts per million, microjoules.
const MILLION: f64 = 1e6;

fn attributes(device: &Device) -> Vec<Attribute> {
    let mut about = vec![
        (name::HW_ID, text(&device.id)),
        (name::HW_TYPE, text("gpu")),
        (name::HW_NAME, text(&device.name)),
        (name::HW_MODEL, text(&device.model)),
        (name::HW_VENDOR, text(&device.vendor)),
    ];
    about.extend(device.parent.as_ref().map(|parent| (name::HW_PARENT, text(parent))));
    about
}

/// The machine of a process. Backends name series by service, which is gpuspan for what it reads of a machine.
fn host(process: &Resource) -> Resource {
    let of = |wanted: &str| {
        process.attributes.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.clone())
    };
    let instance = of(name::HOST_ID).or_else(|| of(name::HOST_NAME));
    let known = [
        (name::HOST_ID, of(name::HOST_ID)),
        (name::HOST_NAME, of(name::HOST_NAME)),
        (name::SERVICE_INSTANCE_ID, instance),
        (name::SERVICE_NAME, Some(text("gpuspan"))),
        (name::TELEMETRY_DISTRO_NAME, of(name::TELEMETRY_DISTRO_NAME)),
        (name::TELEMETRY_DISTRO_VERSION, of(name::TELEMETRY_DISTRO_VERSION)),
    ];
    let attributes = known.into_iter().filter_map(|(key, value)| Some((key.into(), value?)));
    Resource { attributes: attributes.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Domain, ErrorKind, Held, Link, Reason, Rows, Sample, Sensor, Task, Unit, Way};
    use crate::metric::{Point, PointValue, Snapshot};

    const PID: u32 = 41;

    fn process() -> Arc<Resource> {
        let attributes =
            vec![("host.name".into(), text("node7")), ("process.pid".into(), Value::Int(PID.into()))];
        Arc::new(Resource { attributes })
    }

    fn told(facts: &[(What, u64)]) -> Reading {
        let facts = facts.iter().map(|(what, value)| Fact(*what, *value)).collect();
        Reading { samples: vec![Sample { device: 0, facts }], ..Reading::default() }
    }

    fn devices() -> (Arc<Registry>, Devices) {
        let registry = Arc::new(Registry::default());
        let mut devices = Devices::new(Arc::clone(&registry), &process());
        let device = Device { id: "MIG-1".to_owned(), parent: Some("GPU-1".to_owned()), ..Device::default() };
        devices.take(&Reading { devices: vec![device], ..Reading::default() }, 1, |_| None);
        (registry, devices)
    }

    fn has(point: &Point, key: &str, wanted: &str) -> bool {
        point.attributes.iter().any(|(name, value)| *name == key && *value == text(wanted))
    }

    fn value(snapshot: &Snapshot, metric: &str, wanted: (&str, &str)) -> Option<f64> {
        let point =
            snapshot.find(metric).find(|point| wanted.0.is_empty() || has(point, wanted.0, wanted.1))?;
        match point.value {
            PointValue::Int(value) => Some(value as f64),
            PointValue::Double(value) => Some(value),
            PointValue::Distribution(_) => None,
        }
    }

    #[test]
    fn every_fact_is_a_point_in_the_unit_of_its_metric() {
        let (registry, mut devices) = devices();
        let none = ("", "");
        let facts = [
            (
                What::Utilization(Task::Encoder),
                370_000,
                "hw.gpu.utilization",
                ("hw.gpu.task", "encoder"),
                0.37,
            ),
            (What::MemoryUsed, 1 << 30, "hw.gpu.memory.usage", none, 1_073_741_824.0),
            (What::MemoryLimit, 4 << 30, "hw.gpu.memory.limit", none, 4_294_967_296.0),
            (What::Io(Link::Nvlink, Way::Receive), 77, "hw.gpu.io", ("gpuspan.gpu.link", "nvlink"), 77.0),
            (What::Errors(ErrorKind::Corrected), 3, "hw.errors", ("error.type", "corrected"), 3.0),
            (What::State, State::Degraded as u64, "hw.status", ("hw.state", "degraded"), 1.0),
            (What::Power, 412_500, "hw.power", none, 412.5),
            (What::Energy, 2_500_000, "hw.energy", ("gpuspan.energy.source", "counter"), 2.5),
            (
                What::Temperature(Sensor::Memory),
                41_500,
                "hw.temperature",
                ("hw.sensor_location", "memory"),
                41.5,
            ),
            (What::Clock(Domain::Sm), 1_980_000_000, "gpuspan.gpu.clock", none, 1.98e9),
            (What::Throttled(Reason::PowerCap), 1, "gpuspan.gpu.throttled", none, 1.0),
            (What::ThrottleTime(Held::Power), 1_500_000_000, "gpuspan.gpu.throttle.time", none, 1.5),
            (
                What::Activity(Unit::Tensor),
                934_000,
                "gpuspan.gpu.activity",
                ("gpuspan.gpu.unit", "tensor"),
                0.934,
            ),
            (What::Xid(79), 2, "gpuspan.gpu.xid", none, 2.0),
            (What::RemappedRows(Rows::Pending), 1, "gpuspan.gpu.remapped_rows", none, 1.0),
            (What::ProcessMemory(PID), 512, "gpuspan.process.gpu.memory.usage", ("hw.id", "MIG-1"), 512.0),
            (What::ProcessUtilization(PID), 560_000, "gpuspan.process.gpu.utilization", none, 0.56),
        ];
        let values: Vec<_> = facts.iter().map(|(what, value, ..)| (*what, *value)).collect();
        devices.take(&told(&values), 2, |pid| (pid == PID).then(process));
        let snapshot = registry.snapshot(3);
        for (what, _, metric, wanted, expected) in facts {
            assert_eq!(value(&snapshot, metric, wanted), Some(expected), "{what:?}");
        }
        assert_eq!(value(&snapshot, "hw.gpu.memory.utilization", none), Some(0.25));
        assert_eq!(value(&snapshot, "hw.status", ("hw.state", "ok")), Some(0.0));
        let power = snapshot.find("hw.power").next().unwrap();
        assert!(has(power, "hw.id", "MIG-1") && has(power, "hw.parent", "GPU-1"), "{power:?}");
        let whose =
            snapshot.targets.iter().find(|target| target.metrics.iter().any(|m| m.info.name == "hw.power"));
        let host = &whose.unwrap().resource.attributes;
        assert!(host.contains(&("host.name".into(), text("node7"))), "{host:?}");
        assert!(!host.iter().any(|(key, _)| key == "process.pid"), "{host:?}");
    }

    #[test]
    fn a_device_that_does_not_answer_has_no_gauges_and_keeps_its_sums() {
        let (registry, mut devices) = devices();
        devices.take(&told(&[(What::Power, 9000), (What::Energy, 5_000_000), (What::State, 0)]), 2, |_| None);
        devices.take(&told(&[(What::State, State::Failed as u64)]), 3, |_| None);
        let snapshot = registry.snapshot(4);
        assert_eq!(value(&snapshot, "hw.power", ("", "")), None);
        assert_eq!(value(&snapshot, "hw.energy", ("", "")), Some(5.0));
        assert_eq!(value(&snapshot, "hw.status", ("hw.state", "failed")), Some(1.0));
        devices.take(&told(&[(What::Power, 8000), (What::State, 0)]), 5, |_| None);
        assert_eq!(value(&registry.snapshot(6), "hw.power", ("", "")), Some(8.0));
    }

    #[test]
    fn a_process_with_the_number_of_another_has_its_own_points() {
        let (registry, mut devices) = devices();
        let of = |name: &str| Arc::new(Resource { attributes: vec![("service.name".into(), text(name))] });
        let told = told(&[(What::ProcessMemory(PID), 512)]);
        devices.take(&told, 2, |_| Some(of("first")));
        registry.target(&of("first"), 2).retire();
        devices.forget(PID);
        devices.take(&told, 3, |_| Some(of("second")));
        registry.snapshot(4);
        let left = registry.snapshot(5);
        assert_eq!(
            left.targets.iter().map(|target| target.resource.clone()).collect::<Vec<_>>(),
            [of("second")]
        );
        assert_eq!(value(&left, "gpuspan.process.gpu.memory.usage", ("", "")), Some(512.0));
    }

    #[test]
    fn a_process_that_is_not_known_is_not_told() {
        let (registry, mut devices) = devices();
        devices.take(&told(&[(What::ProcessMemory(7), 512)]), 2, |_| None);
        assert_eq!(registry.snapshot(3).points(), 0);
    }
}
