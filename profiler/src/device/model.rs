//! What a device said, as plain data: whole numbers in the smallest unit that any source knows.
//!
//! In: nothing. Out: [`Reading`]s for the correlating thread, a recording and the metrics. What a device does not say is
//! not there; no value stands for it.

use serde::{Deserialize, Serialize};

/// A GPU, or an instance of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// UUID of NVIDIA's, unique id or PCI address of AMD's: it names the device for good.
    pub id: String,
    /// Name in its source, such as `nvidia0` or `card1`.
    pub name: String,
    /// Model, such as `NVIDIA H100 80GB HBM3`.
    pub model: String,
    /// `nvidia` or `amd`.
    pub vendor: String,
    /// Version of the driver.
    pub driver: String,
    /// PCI address, such as `0000:3b:00.0`; empty where it has none of its own.
    pub pci: String,
    /// Number of its device file.
    pub minor: Option<u32>,
    /// The GPU that it is an instance of (MIG).
    pub parent: Option<String>,
}

/// What was read at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// When, `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
    /// Devices that were not known before; they are numbered in the order in which they are told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// What they said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
    /// Where the processes of the target stand, when that has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub places: Option<Vec<Place>>,
    /// What is wrong, or is not any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
    /// What reading has cost so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

/// What one device said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Number of the device.
    pub device: u32,
    /// What it said.
    pub facts: Vec<Fact>,
}

/// One value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact(pub What, pub u64);

/// What a value is, and its unit. Totals only grow, whatever the device's own counter does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum What {
    /// Share of time in which a unit had anything to do: parts per million.
    Utilization(Task),
    /// Memory in use: bytes.
    MemoryUsed,
    /// Memory that there is: bytes.
    MemoryLimit,
    /// What went over a link since the first reading: bytes.
    Io(Link, Way),
    /// Errors since the driver's start: a total.
    Errors(ErrorKind),
    /// Number of a [`State`].
    State,
    /// Power now: milliwatts.
    Power,
    /// Energy since the first reading, by the device's own counter: microjoules.
    Energy,
    /// The same, added up from power because there is no counter.
    EnergyFromPower,
    /// Temperature: millidegrees Celsius.
    Temperature(Sensor),
    /// Temperature at which something is done about it: millidegrees Celsius.
    TemperatureLimit(Limit),
    /// Clock: hertz.
    Clock(Domain),
    /// Something holds the clock down now: 0 or 1.
    Throttled(Reason),
    /// How long something held the clock down, since the first reading: nanoseconds.
    ThrottleTime(Held),
    /// Share of a unit that was at work: parts per million.
    Activity(Unit),
    /// Events of this Xid code since the first reading.
    Xid(u32),
    /// Rows of memory that were replaced, or should be.
    RemappedRows(Rows),
    /// Memory of a process of the target: bytes. 0 once it has none any more.
    ProcessMemory(u32),
    /// Share of time in which a process of the target ran something: parts per million.
    ProcessUtilization(u32),
}

/// Enums whose variants have a name in metrics.
macro_rules! named {
    ($(#[$about:meta] $name:ident { $($variant:ident = $text:literal, $help:literal;)* })*) => {$(
        #[$about]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $(#[doc = $help] $variant,)*
        }

        impl $name {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// As metrics spell it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    )*};
}

named! {
    /// What a GPU's units do.
    Task {
        General = "general", "Kernels.";
        Encoder = "encoder", "Video encoding.";
        Decoder = "decoder", "Video decoding.";
    }
    /// Ways to other devices.
    Link {
        Pcie = "pcie", "To the host.";
        Nvlink = "nvlink", "To other GPUs.";
    }
    /// Seen from the GPU.
    Way {
        Receive = "receive", "Into it.";
        Transmit = "transmit", "Out of it.";
    }
    /// Errors.
    ErrorKind {
        Corrected = "corrected", "Memory errors that ECC corrected.";
        Uncorrected = "uncorrected", "Memory errors that it could not.";
        PcieReplay = "pcie_replay", "Packets that had to be sent again over PCIe.";
    }
    /// How a device is.
    State {
        Ok = "ok", "As it should be.";
        Degraded = "degraded", "It waits for a reset to replace rows of its memory.";
        Failed = "failed", "It does not answer: it fell off the bus, or needs a reset.";
        PredictedFailure = "predicted_failure", "Rows of its memory could not be replaced.";
    }
    /// Places of sensors.
    Sensor {
        Gpu = "gpu", "On the GPU.";
        Hotspot = "hotspot", "Where the GPU is hottest.";
        Memory = "memory", "At its memory.";
    }
    /// What is done at a temperature.
    Limit {
        Shutdown = "high.critical", "The device switches itself off.";
        Slowdown = "high.degraded", "It slows down.";
    }
    /// Clocks.
    Domain {
        Graphics = "graphics", "Of the graphics engine, or of all of the GPU.";
        Sm = "sm", "Of the multiprocessors.";
        Memory = "memory", "Of the memory.";
        Video = "video", "Of encoder and decoder.";
    }
    /// What holds a clock down now.
    Reason {
        GpuIdle = "gpu_idle", "Nothing runs.";
        ApplicationsClocks = "applications_clocks_setting", "Somebody set the clock.";
        PowerCap = "sw_power_cap", "The power limit.";
        HwSlowdown = "hw_slowdown", "Heat or power: the hardware at least halves the clock.";
        SyncBoost = "sync_boost", "The slowest of a group.";
        SwThermal = "sw_thermal_slowdown", "Heat, by the driver.";
        HwThermal = "hw_thermal_slowdown", "Heat, by the hardware.";
        PowerBrake = "hw_power_brake_slowdown", "The power supply asked for it.";
        DisplayClock = "display_clock_setting", "A display.";
    }
    /// What held a clock down.
    Held {
        Power = "power", "The power limit.";
        Thermal = "thermal", "Heat.";
        SyncBoost = "sync_boost", "The slowest of a group.";
        BoardLimit = "board_limit", "A limit of the board.";
        LowUtilization = "low_utilization", "There was little to do.";
        Reliability = "reliability", "A voltage limit.";
    }
    /// Units whose activity is measured.
    Unit {
        Graphics = "graphics", "Anything of the compute or graphics engine.";
        Sm = "sm", "Multiprocessors with a warp.";
        SmOccupancy = "sm_occupancy", "Warps, of those that have room.";
        Tensor = "tensor", "Tensor cores.";
        Dram = "dram", "Bandwidth of the memory.";
        Fp64 = "fp64", "Units for 64-bit numbers.";
        Fp32 = "fp32", "Units for 32-bit numbers.";
        Fp16 = "fp16", "Units for 16-bit numbers.";
        Integer = "integer", "Units for whole numbers.";
    }
    /// Rows of memory.
    Rows {
        Corrected = "corrected", "Replaced after errors that ECC corrected.";
        Uncorrected = "uncorrected", "Replaced after errors that it could not.";
        Pending = "pending", "To be replaced at the next reset: 0 or 1.";
        Failure = "failure", "Could not be replaced: 0 or 1.";
    }
}

/// Which devices a process of the target uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Process.
    pub pid: u32,
    /// Numbers of its devices, by CUDA's ordinal; empty where which is which is not known.
    pub devices: Vec<u32>,
    /// It has only one, whatever ordinal a call names.
    pub only: bool,
    /// Why its devices are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

/// Something that is wrong with a source, a device or one of its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Of what: `nvml`, `amdgpu`, or the id of a device.
    pub about: String,
    /// What is wrong, and what to do.
    pub what: String,
}

/// What reading has cost since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// CPU time of the reading thread, nanoseconds.
    pub cpu_ns: u64,
    /// Time since that thread began, nanoseconds.
    pub wall_ns: u64,
    /// Rounds of reading.
    pub rounds: u64,
    /// Values that were asked for and not answered, though the device has them.
    pub failed: u64,
}

impl Sample {
    /// The value of something, if it is there.
    #[must_use]
    pub fn get(&self, what: What) -> Option<u64> {
        self.facts.iter().find(|fact| fact.0 == what).map(|fact| fact.1)
    }
}
