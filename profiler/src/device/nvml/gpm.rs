//! Performance metrics of Hopper and later: means between two samples.
//!
//! In: samples of the device. Out: activity of its units, and bytes over its links. A device that has none, or does not give
//! them to us, is not asked again.

use crate::device::inventory::Out;
use crate::device::model::{Link, Unit, Way, What};
use nvml_wrapper::Device as Handle;
use nvml_wrapper::enums::gpm::GpmMetricId as Id;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::gpm::{GpmSample, gpm_metrics_get};

/// What is measured as a share of time or of what is possible, in percent.
const SHARES: [(Id, Unit); 9] = [
    (Id::GraphicsUtil, Unit::Graphics),
    (Id::SmUtil, Unit::Sm),
    (Id::SmOccupancy, Unit::SmOccupancy),
    (Id::AnyTensorUtil, Unit::Tensor),
    (Id::DramBwUtil, Unit::Dram),
    (Id::Fp64Util, Unit::Fp64),
    (Id::Fp32Util, Unit::Fp32),
    (Id::Fp16Util, Unit::Fp16),
    (Id::IntegerUtil, Unit::Integer),
];

/// What is measured in MiB a second (nvml.h of CUDA 12 and 13).
const RATES: [(Id, Link, Way); 4] = [
    (Id::PcieTxPerSec, Link::Pcie, Way::Transmit),
    (Id::PcieRxPerSec, Link::Pcie, Way::Receive),
    (Id::NvlinkTotalTxPerSec, Link::Nvlink, Way::Transmit),
    (Id::NvlinkTotalRxPerSec, Link::Nvlink, Way::Receive),
];

const MIB: f64 = 1_048_576.0;

/// How it is with a device.
#[derive(Debug, Default)]
pub struct Gpm<'n> {
    before: Option<(GpmSample<'n>, u64)>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Untried,
    Works,
    /// It has none, or does not give them to us.
    Off,
}

impl<'n> Gpm<'n> {
    /// It measures.
    #[must_use]
    pub fn works(&self) -> bool {
        self.state == State::Works
    }

    /// Measures since the last time.
    pub fn measure(
        &mut self,
        handle: &Handle<'n>,
        instance: Option<u32>,
        out: &mut Out,
    ) -> Result<(), NvmlError> {
        if self.state == State::Off {
            return Ok(());
        }
        let measured = self.try_measure(handle, instance, out);
        self.state = match &measured {
            Ok(true) => State::Works,
            Ok(false) => State::Off,
            Err(NvmlError::NotSupported | NvmlError::NoPermission | NvmlError::FailedToLoadSymbol(_)) => {
                State::Off
            }
            Err(_) => self.state,
        };
        if self.state == State::Off {
            self.before = None;
        }
        measured.map(drop)
    }

    /// False where there is nothing to measure.
    fn try_measure(
        &mut self,
        handle: &Handle<'n>,
        instance: Option<u32>,
        out: &mut Out,
    ) -> Result<bool, NvmlError> {
        if self.state == State::Untried && instance.is_none() && !handle.gpm_support()? {
            return Ok(false);
        }
        let now = match instance {
            None => handle.gpm_sample()?,
            Some(id) => handle.mig_parent_device()?.gpm_mig_sample(id)?,
        };
        if let Some((before, then_ns)) = &self.before {
            tell(before, &now, out.time_ns.saturating_sub(*then_ns), out)?;
        }
        self.before = Some((now, out.time_ns));
        Ok(true)
    }
}

fn tell<'n>(
    before: &GpmSample<'n>,
    now: &GpmSample<'n>,
    span_ns: u64,
    out: &mut Out,
) -> Result<(), NvmlError> {
    let ids: Vec<Id> = SHARES.iter().map(|(id, _)| *id).chain(RATES.iter().map(|(id, ..)| *id)).collect();
    let values = gpm_metrics_get(now.nvml(), before, now, &ids)?;
    // One that the device does not have, or has no number for: over short times it says NaN.
    let good = |value: f64| value.is_finite() && value >= 0.0;
    for value in values.into_iter().flatten().filter(|value| good(value.value)) {
        if let Some((_, unit)) = SHARES.iter().find(|(id, _)| *id == value.metric_id) {
            out.tell(What::Activity(*unit), (value.value.min(100.0) * 10_000.0).round() as u64);
        }
        if let Some((_, link, way)) = RATES.iter().find(|(id, ..)| *id == value.metric_id) {
            out.more(What::Io(*link, *way), (value.value * MIB * span_ns as f64 / 1e9).round() as u64);
        }
    }
    Ok(())
}
