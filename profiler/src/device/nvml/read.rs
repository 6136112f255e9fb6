//! Every value that is read of a device: which call, how often, what it is.
//!
//! In: a device. Out: facts. A row is one call of the library or a few that belong together; one that the device does not
//! have is never asked again. `pcie_throughput` is not among them: it blocks for 20 ms.

use crate::device::inventory::Out;
use crate::device::model::{
    Domain, ErrorKind, Held, Limit, Link, Reason, Rows, Sensor, State, Task, Way, What,
};
use crate::device::rhythm::Tier;
use crate::device::total::From;
use nvml_wrapper::Device as Handle;
use nvml_wrapper::bitmasks::device::ThrottleReasons as Bits;
use nvml_wrapper::enum_wrappers::device::{
    Clock, EccCounter, MemoryError, PerformancePolicy, TemperatureSensor, TemperatureThreshold,
};
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;

/// Whom is asked.
#[derive(Debug)]
pub struct Ask<'r, 'n> {
    /// The device.
    pub handle: &'r Handle<'n>,
    /// It measures links by its performance metrics.
    pub has_gpm: bool,
}

type Answer = Result<(), NvmlError>;

/// A row.
#[derive(Debug)]
pub struct Read {
    /// What is read, in words.
    pub name: &'static str,
    /// How often.
    pub tier: Tier,
    /// Parts of a GPU have it too.
    pub instances: bool,
    /// The call.
    pub get: fn(&Ask<'_, '_>, &mut Out<'_>) -> Answer,
}

const fn read(name: &'static str, tier: Tier, get: fn(&Ask<'_, '_>, &mut Out<'_>) -> Answer) -> Read {
    Read { name, tier, instances: false, get }
}

/// The row whose absence makes energy be added up from power.
pub const ENERGY: &str = "energy";

/// The rows. Costs on an H100 are in `docs/gpu.md`: energy takes 2.4 ms, the others 2 to 90 µs.
pub const READS: [Read; 15] = [
    read("power", Tier::Pulse, power),
    Read { instances: true, ..read("memory", Tier::Cheap, memory) },
    read("utilisation", Tier::Cheap, utilization),
    read("temperature", Tier::Cheap, temperature),
    read("memory temperature", Tier::Cheap, memory_temperature),
    read("clocks", Tier::Cheap, clocks),
    read("throttle reasons", Tier::Cheap, reasons),
    read("encoder utilisation", Tier::Dear, encoder),
    read("decoder utilisation", Tier::Dear, decoder),
    read("throttle times", Tier::Dear, violations),
    read("temperature limits", Tier::Dear, limits),
    read("bytes over links", Tier::Dear, links),
    read("memory errors", Tier::Dear, errors),
    read("state and remapped rows", Tier::Dear, rows),
    read(ENERGY, Tier::Dear, energy),
];

const POWER_INSTANT: u32 = 186;
const MEMORY_TEMPERATURE: u32 = 82;
const NVLINK: [(u32, Way); 2] = [(138, Way::Transmit), (139, Way::Receive)];
const PCIE: [(u32, Way); 2] = [(197, Way::Transmit), (198, Way::Receive)];
const REMAPPED: [(u32, Rows); 4] =
    [(142, Rows::Corrected), (143, Rows::Uncorrected), (144, Rows::Pending), (145, Rows::Failure)];

/// Whole values of fields, in their order; none for what the device does not have. One call for all of them.
fn fields<const N: usize>(ask: &Ask, ids: [u32; N]) -> Result<[Option<u64>; N], NvmlError> {
    let mut found = [None; N];
    let values = ask.handle.field_values_for(&ids.map(FieldId))?;
    for (slot, value) in found.iter_mut().zip(values) {
        *slot = match value?.value {
            Ok(SampleValue::U32(value)) => Some(value.into()),
            Ok(SampleValue::U64(value)) => Some(value),
            Ok(SampleValue::I64(value)) => u64::try_from(value).ok(),
            Ok(SampleValue::F64(value)) => Some(value as u64),
            Err(NvmlError::GpuLost) => return Err(NvmlError::GpuLost),
            Err(_) => None,
        };
    }
    Ok(found)
}

/// Percent as parts per million.
fn percent(value: u32) -> u64 {
    u64::from(value.min(100)) * 10_000
}

/// Succeeded if anything did; one missing value does not take its neighbours along, a lost device does.
fn any(answers: impl IntoIterator<Item = Answer>) -> Answer {
    let mut first = None;
    let mut good = false;
    for answer in answers {
        match answer {
            Ok(()) => good = true,
            Err(NvmlError::GpuLost) => return Err(NvmlError::GpuLost),
            Err(error) => first = first.or(Some(error)),
        }
    }
    first.filter(|_| !good).map_or(Ok(()), Err)
}

/// Power of the last 100 ms, where the device has it; else its mean over about a second.
fn power(ask: &Ask, out: &mut Out) -> Answer {
    let instant = fields(ask, [POWER_INSTANT]).ok().and_then(|[instant]| instant);
    let milliwatts = match instant {
        Some(milliwatts) => milliwatts,
        None => ask.handle.power_usage()?.into(),
    };
    out.power(milliwatts);
    Ok(())
}

fn memory(ask: &Ask, out: &mut Out) -> Answer {
    let memory = ask.handle.memory_info()?;
    out.tell(What::MemoryUsed, memory.used);
    out.tell(What::MemoryLimit, memory.total);
    Ok(())
}

fn utilization(ask: &Ask, out: &mut Out) -> Answer {
    out.tell(What::Utilization(Task::General), percent(ask.handle.utilization_rates()?.gpu));
    Ok(())
}

fn encoder(ask: &Ask, out: &mut Out) -> Answer {
    out.tell(What::Utilization(Task::Encoder), percent(ask.handle.encoder_utilization()?.utilization));
    Ok(())
}

fn decoder(ask: &Ask, out: &mut Out) -> Answer {
    out.tell(What::Utilization(Task::Decoder), percent(ask.handle.decoder_utilization()?.utilization));
    Ok(())
}

fn temperature(ask: &Ask, out: &mut Out) -> Answer {
    let celsius = ask.handle.temperature(TemperatureSensor::Gpu)?;
    out.tell(What::Temperature(Sensor::Gpu), u64::from(celsius) * 1000);
    Ok(())
}

fn memory_temperature(ask: &Ask, out: &mut Out) -> Answer {
    let [celsius] = fields(ask, [MEMORY_TEMPERATURE])?;
    // Where there is no sensor some drivers say 0.
    let celsius = celsius.filter(|celsius| *celsius > 0).ok_or(NvmlError::NotSupported)?;
    out.tell(What::Temperature(Sensor::Memory), celsius * 1000);
    Ok(())
}

fn limits(ask: &Ask, out: &mut Out) -> Answer {
    let limits = [
        (TemperatureThreshold::Shutdown, Limit::Shutdown),
        (TemperatureThreshold::Slowdown, Limit::Slowdown),
    ];
    any(limits.into_iter().map(|(threshold, limit)| {
        let celsius = ask.handle.temperature_threshold(threshold)?;
        out.tell(What::TemperatureLimit(limit), u64::from(celsius) * 1000);
        Ok(())
    }))
}

fn clocks(ask: &Ask, out: &mut Out) -> Answer {
    let clocks = [
        (Clock::Graphics, Domain::Graphics),
        (Clock::SM, Domain::Sm),
        (Clock::Memory, Domain::Memory),
        (Clock::Video, Domain::Video),
    ];
    any(clocks.into_iter().map(|(clock, domain)| {
        let megahertz = ask.handle.clock_info(clock)?;
        out.tell(What::Clock(domain), u64::from(megahertz) * 1_000_000);
        Ok(())
    }))
}

fn reasons(ask: &Ask, out: &mut Out) -> Answer {
    let now = ask.handle.current_throttle_reasons()?;
    let reasons = [
        (Bits::GPU_IDLE, Reason::GpuIdle),
        (Bits::APPLICATIONS_CLOCKS_SETTING, Reason::ApplicationsClocks),
        (Bits::SW_POWER_CAP, Reason::PowerCap),
        (Bits::HW_SLOWDOWN, Reason::HwSlowdown),
        (Bits::SYNC_BOOST, Reason::SyncBoost),
        (Bits::SW_THERMAL_SLOWDOWN, Reason::SwThermal),
        (Bits::HW_THERMAL_SLOWDOWN, Reason::HwThermal),
        (Bits::HW_POWER_BRAKE_SLOWDOWN, Reason::PowerBrake),
        (Bits::DISPLAY_CLOCK_SETTING, Reason::DisplayClock),
    ];
    for (bit, reason) in reasons {
        out.tell(What::Throttled(reason), u64::from(now.contains(bit)));
    }
    Ok(())
}

fn violations(ask: &Ask, out: &mut Out) -> Answer {
    let policies = [
        (PerformancePolicy::Power, Held::Power),
        (PerformancePolicy::Thermal, Held::Thermal),
        (PerformancePolicy::SyncBoost, Held::SyncBoost),
        (PerformancePolicy::BoardLimit, Held::BoardLimit),
        (PerformancePolicy::LowUtilization, Held::LowUtilization),
        (PerformancePolicy::Reliability, Held::Reliability),
    ];
    any(policies.into_iter().map(|(policy, held)| {
        let time = ask.handle.violation_status(policy)?;
        out.total(What::ThrottleTime(held), time.violation_time, 64, From::Zero);
        Ok(())
    }))
}

/// Where performance metrics are measured they have both links, and nothing is counted twice.
fn links(ask: &Ask, out: &mut Out) -> Answer {
    if ask.has_gpm {
        return Ok(());
    }
    let [sent, received, linked_out, linked_in] =
        fields(ask, [PCIE[0].0, PCIE[1].0, NVLINK[0].0, NVLINK[1].0])?;
    let ways = [
        (Link::Pcie, PCIE[0].1, sent, 1),
        (Link::Pcie, PCIE[1].1, received, 1),
        // In KiB.
        (Link::Nvlink, NVLINK[0].1, linked_out, 1024),
        (Link::Nvlink, NVLINK[1].1, linked_in, 1024),
    ];
    any(ways.into_iter().map(|(link, way, raw, unit)| {
        let raw = raw.ok_or(NvmlError::NotSupported)?;
        // Drivers count in 32 or 64 bits: what was above 32 bits cannot wrap there.
        let bits = if raw > u64::from(u32::MAX) { 64 } else { 32 };
        out.scaled(What::Io(link, way), raw, bits, unit);
        Ok(())
    }))
}

fn errors(ask: &Ask, out: &mut Out) -> Answer {
    let ecc =
        [(MemoryError::Corrected, ErrorKind::Corrected), (MemoryError::Uncorrected, ErrorKind::Uncorrected)];
    let mut answers = Vec::new();
    for (error, kind) in ecc {
        let count = ask.handle.total_ecc_errors(error, EccCounter::Volatile);
        answers.push(count.map(|count| out.total(What::Errors(kind), count, 64, From::Raw)));
    }
    let replays = ask.handle.pcie_replay_counter();
    let replay = What::Errors(ErrorKind::PcieReplay);
    answers.push(replays.map(|replays| out.total(replay, replays.into(), 32, From::Raw)));
    any(answers)
}

/// Rows of its memory say how it is, where it replaces them.
fn rows(ask: &Ask, out: &mut Out) -> Answer {
    let values = fields(ask, REMAPPED.map(|(id, _)| id))?;
    let mut state = State::Ok;
    for ((_, rows), value) in REMAPPED.into_iter().zip(values) {
        let Some(value) = value else { continue };
        out.tell(What::RemappedRows(rows), value);
        state = match rows {
            Rows::Pending if value > 0 => State::Degraded,
            Rows::Failure if value > 0 => State::PredictedFailure,
            _ => state,
        };
    }
    out.tell(What::State, state as u64);
    Ok(())
}

fn energy(ask: &Ask, out: &mut Out) -> Answer {
    let millijoules = ask.handle.total_energy_consumption()?;
    out.scaled(What::Energy, millijoules, 64, 1000);
    Ok(())
}
