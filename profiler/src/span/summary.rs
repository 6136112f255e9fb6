//! What the GPU ran in a phase → the summaries under the phase's span: one for each of the kernels that had most of it,
//! one for all others, and one for each direction of copies, with the attributes `aggregation.*` that the OpenTelemetry
//! Collector's span pruning has for spans that stand for many.
//!
//! Count, shortest, longest and mean are of whole iterations, whoever they ran for; only the total is the request's
//! share, so that totals of all requests can be added up. Time that is not known to be a kernel's is in the others'
//! total: the totals of a phase are its share exactly. Absent: waits, which are CPU time.

use super::model::{Attribute, Value, int, text};
use super::names::{NAMELESS, Names};
use crate::correlate::{KernelKey, KernelShare, Phase, TimeClass};
use crate::metric::catalog::attribute as name;
use crate::probe::Direction;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;

/// Kernels with a summary of their own in each phase: as many as one looks at.
const TOP: usize = 10;
/// Name of the summary of all others.
const OTHER: &str = "other";

/// A span that stands for many, before it has ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Name of its span.
    pub name: Cow<'static, str>,
    /// What it sums up.
    pub attributes: Vec<Attribute>,
}

/// A kernel as people know it: two processes' or two handles' may be one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Named(Arc<str>),
    Nameless(KernelKey),
}

/// The summaries of a phase, the most GPU time first.
#[must_use]
pub fn of(phase: &Phase, names: &mut Names) -> Vec<Summary> {
    let mut ranked = ranked(phase, names);
    let rest = ranked.split_off(ranked.len().min(TOP));
    let mut left_ns = phase.share.gpu_ns;
    let mut summaries = Vec::new();
    for (label, share) in &ranked {
        // Rounding may make parts a little more than the whole.
        let total_ns = share.gpu_ns.min(left_ns);
        left_ns -= total_ns;
        summaries.push(kernel(label, share, total_ns, names));
    }
    let launches = rest.iter().map(|(_, share)| share.launches).sum::<u64>() + phase.kernels.other.launches;
    if launches > 0 || left_ns > 0 {
        summaries.push(other(launches, left_ns, phase.share.class));
    }
    let copies = Direction::ALL.into_iter().zip(phase.copies).filter(|(_, (count, _))| *count > 0);
    summaries.extend(copies.map(|(direction, (count, bytes))| copy(direction, count, bytes)));
    summaries
}

fn ranked(phase: &Phase, names: &Names) -> Vec<(Label, KernelShare)> {
    let mut merged: Vec<(Label, KernelShare)> = Vec::new();
    for (key, share) in phase.kernels.ranked() {
        let label = names.of(key).map_or(Label::Nameless(key), |name| Label::Named(Arc::clone(name)));
        match merged.iter_mut().find(|(known, _)| *known == label) {
            Some((_, sum)) => sum.merge(&share),
            None => merged.push((label, share)),
        }
    }
    merged.sort_by(|(left, one), (right, other)| {
        let rank = |share: &KernelShare| Reverse((share.gpu_ns, share.launches));
        rank(one).cmp(&rank(other)).then_with(|| left.cmp(right))
    });
    merged
}

fn kernel(label: &Label, share: &KernelShare, total_ns: u64, names: &mut Names) -> Summary {
    let mut attributes = summary("kernel", share.launches, total_ns, TimeClass::Estimated);
    let (min_ns, max_ns) = share.range_ns;
    if total_ns > 0 && max_ns > 0 {
        attributes.push((name::AGGREGATION_DURATION_MIN_NS, int(min_ns)));
        attributes.push((name::AGGREGATION_DURATION_MAX_NS, int(max_ns)));
        let mean_ns = share.whole_ns.checked_div(share.launches).filter(|mean_ns| *mean_ns > 0);
        attributes.extend(mean_ns.map(|mean_ns| (name::AGGREGATION_DURATION_AVG_NS, int(mean_ns))));
    }
    attributes.push((name::GPUSPAN_STEPS, int(share.steps)));
    let name = match label {
        Label::Named(name) => {
            attributes.push((name::CUDA_KERNEL_NAME, text(name)));
            names.span_name(name)
        }
        Label::Nameless(key) => {
            attributes.push((name::GPUSPAN_KERNEL_HANDLE, text(&format!("{:#x}", key.function))));
            NAMELESS.into()
        }
    };
    Summary { name, attributes }
}

fn other(launches: u64, total_ns: u64, class: TimeClass) -> Summary {
    Summary { name: OTHER.into(), attributes: summary("other", launches, total_ns, class) }
}

fn copy(direction: Direction, count: u64, bytes: u64) -> Summary {
    let mut attributes = summary("copy", count, 0, TimeClass::Estimated);
    attributes.push((name::CUDA_MEMCPY_KIND, text(direction.name())));
    attributes.push((name::GPUSPAN_COPY_BYTES, int(bytes)));
    Summary { name: format!("cudaMemcpy {}", direction.name()).into(), attributes }
}

/// A time of 0 is one that is not known.
fn summary(of: &'static str, count: u64, total_ns: u64, class: TimeClass) -> Vec<Attribute> {
    let mut attributes = vec![
        (name::AGGREGATION_IS_SUMMARY, Value::Bool(true)),
        (name::AGGREGATION_SPAN_COUNT, int(count)),
        (name::GPUSPAN_SUMMARY_OF, Value::Str(of.into())),
    ];
    if total_ns > 0 {
        attributes.push((name::AGGREGATION_DURATION_TOTAL_NS, int(total_ns)));
        attributes.push((name::GPUSPAN_GPU_TIME_CLASS, Value::Str(class.name().into())));
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::Share;
    use proptest::prelude::*;

    fn share(launches: u64, gpu_ns: u64) -> KernelShare {
        KernelShare { launches, steps: 1, gpu_ns, whole_ns: gpu_ns * 4, range_ns: (1, gpu_ns) }
    }

    fn phase(kernels: &[(u64, KernelShare)], gpu_ns: u64) -> Phase {
        let mut phase = Phase::default();
        phase.share = Share { steps: 1, gpu_ns, ..Share::default() };
        for (function, share) in kernels {
            phase.kernels.add(KernelKey { pid: 1, function: *function }, share);
        }
        phase
    }

    fn value(summary: &Summary, attribute: &str) -> Option<i64> {
        summary.attributes.iter().find(|(name, _)| *name == attribute).map(|(_, value)| match value {
            Value::Int(value) => *value,
            other => panic!("{other:?}"),
        })
    }

    fn totals(summaries: &[Summary]) -> Vec<i64> {
        summaries.iter().filter_map(|summary| value(summary, name::AGGREGATION_DURATION_TOTAL_NS)).collect()
    }

    #[test]
    fn the_first_ten_have_names_and_the_rest_is_together() {
        let kernels: Vec<_> = (1..=30).map(|n| (n, share(n, n * 10))).collect();
        let mut names = Names::default();
        names.named(KernelKey { pid: 1, function: 30 }, "gemm".into());
        names.named(KernelKey { pid: 1, function: 29 }, "gemm".into());
        let summaries = of(&phase(&kernels, 5000), &mut names);
        assert_eq!(summaries.len(), 11);
        assert_eq!(summaries[0].name, "gemm");
        assert_eq!(value(&summaries[0], name::AGGREGATION_SPAN_COUNT), Some(59));
        assert_eq!(value(&summaries[0], name::AGGREGATION_DURATION_AVG_NS), Some(590 * 4 / 59));
        assert_eq!(summaries[1].name, NAMELESS);
        assert_eq!(summaries[1].attributes.last(), Some(&(name::GPUSPAN_KERNEL_HANDLE, text("0x1c"))));
        assert_eq!((&*summaries[10].name, totals(&summaries).iter().sum::<i64>()), (OTHER, 5000));
    }

    #[test]
    fn time_that_nothing_tells_apart_is_the_others() {
        let summaries = of(&phase(&[(1, share(7, 0)), (2, share(3, 0))], 900), &mut Names::default());
        assert_eq!(summaries.len(), 3);
        assert_eq!((&*summaries[2].name, totals(&summaries)), (OTHER, vec![900]));
        assert_eq!(value(&summaries[0], name::AGGREGATION_SPAN_COUNT), Some(7));
    }

    #[test]
    fn copies_are_told_by_direction() {
        let mut phase = phase(&[], 0);
        phase.copies[Direction::DtoH as usize] = (3, 12);
        let summaries = of(&phase, &mut Names::default());
        assert_eq!(summaries.len(), 1);
        assert_eq!(summaries[0].name, "cudaMemcpy DtoH");
        assert_eq!(value(&summaries[0], name::GPUSPAN_COPY_BYTES), Some(12));
    }

    proptest! {
        #[test]
        fn totals_are_the_share_and_counts_are_all(
            kernels in prop::collection::vec((0u64..150, 1u64..1000, 0u64..1000), 0..200),
            gpu_ns in 0u64..20_000,
        ) {
            let kernels: Vec<_> = kernels.into_iter().map(|(f, n, ns)| (f, share(n, ns))).collect();
            let phase = phase(&kernels, gpu_ns);
            let summaries = of(&phase, &mut Names::default());
            let totals = totals(&summaries);
            prop_assert_eq!(totals.iter().sum::<i64>(), gpu_ns as i64);
            let launches: i64 =
                summaries.iter().filter_map(|summary| value(summary, name::AGGREGATION_SPAN_COUNT)).sum();
            prop_assert_eq!(launches as u64, kernels.iter().map(|(_, share)| share.launches).sum::<u64>());
            prop_assert!(summaries.len() <= TOP + 1);
        }
    }
}
