//! Launches and GPU time by kernel → points, as many as are worth their price.
//!
//! In: what kernels are called, running counts, and GPU work of iterations. Out: counters for each of the first
//! [`MOST_NAMES`] names by arrival; those of all further ones are in `other`, and those without a name in a point without
//! one. GPU time is a kernel's only where an iteration had no other: of a mix nothing tells whose it was, and it is in
//! the point without a name.

use super::catalog::{self, Counter, Metric, Sum, attribute};
use super::series::Instrument;
use super::{Handle, Target};
use crate::correlate::{GpuWork, KernelKey, Totals};
use crate::span::model::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Names that have a point of their own. A vLLM step launches some 60 different kernels, PyTorch knows 24,000; each
/// point costs a backend a time series for every process.
pub const MOST_NAMES: usize = 200;
/// The name of the point that all further kernels share.
const OTHER: &str = "other";

/// What a kernel's launches are counted under.
#[derive(Debug)]
enum Label {
    Named(Arc<str>),
    Other,
    Nameless,
}

/// The counters.
#[derive(Debug)]
pub struct KernelLaunches {
    target: Target,
    kernels: HashMap<KernelKey, Label>,
    names: HashMap<Arc<str>, Handle<Counter>>,
    other: Option<Handle<Counter>>,
    nameless: Option<Handle<Counter>>,
    /// GPU time by kernel, nanoseconds; of none in particular under `None`.
    times: BTreeMap<Option<KernelKey>, u64>,
}

impl KernelLaunches {
    /// For one target.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            target,
            kernels: HashMap::new(),
            names: HashMap::new(),
            other: None,
            nameless: None,
            times: BTreeMap::new(),
        }
    }

    /// A kernel's short name is known, or it is known that there is none. The first word stands: a count never moves
    /// from one point to another.
    pub fn named(&mut self, kernel: KernelKey, name: Option<Arc<str>>) {
        if self.kernels.contains_key(&kernel) || self.kernels.len() >= crate::correlate::MOST_KERNELS {
            return;
        }
        let label = match name {
            None => Label::Nameless,
            Some(name) if self.names.contains_key(&name) => Label::Named(name),
            Some(name) if self.names.len() < MOST_NAMES => {
                self.names.insert(name.clone(), handle(&self.target, &catalog::KERNEL_LAUNCHES, Some(&name)));
                Label::Named(name)
            }
            Some(_) => {
                self.target.add(&catalog::SELF_KERNELS_BEYOND, &[], 1);
                Label::Other
            }
        };
        self.kernels.insert(kernel, label);
    }

    /// Takes the GPU work of an iteration.
    pub fn work(&mut self, gpu: &GpuWork) {
        let only = gpu.work.only_kernel().filter(|_| self.times.len() < crate::correlate::MOST_KERNELS);
        *self.times.entry(only).or_default() += gpu.whole.gpu_ns;
    }

    /// Takes the running counts over. A kernel that nobody has named yet waits, unless this is the `last` time.
    pub fn totals(&mut self, totals: &Totals, last: bool) {
        let mut named: HashMap<&str, u64> = HashMap::new();
        let (mut other, mut nameless) = (totals.uncounted_kernels, 0);
        for (kernel, (direct, nodes)) in &totals.work.kernels {
            let count = direct + nodes;
            match self.kernels.get(kernel) {
                Some(Label::Named(name)) => *named.entry(name).or_default() += count,
                Some(Label::Other) => other += count,
                Some(Label::Nameless) => nameless += count,
                None if last => nameless += count,
                None => {}
            }
        }
        for (name, count) in named {
            if let Some(handle) = self.names.get(name) {
                handle.observe(count);
            }
        }
        if other > 0 {
            self.other
                .get_or_insert_with(|| handle(&self.target, &catalog::KERNEL_LAUNCHES, Some(OTHER)))
                .observe(other);
        }
        if nameless > 0 {
            self.nameless
                .get_or_insert_with(|| handle(&self.target, &catalog::KERNEL_LAUNCHES, None))
                .observe(nameless);
        }
        self.tell_times(last);
    }

    /// The GPU time since the last call. A kernel that nobody has named yet waits, unless this is the `last` time.
    fn tell_times(&mut self, last: bool) {
        for (kernel, ns) in &mut self.times {
            let label = kernel.map(|kernel| self.kernels.get(&kernel));
            let name = match label {
                Some(Some(Label::Named(name))) => Some(name.as_ref()),
                Some(Some(Label::Other)) => Some(OTHER),
                Some(None) if !last => continue,
                None | Some(Some(Label::Nameless) | None) => None,
            };
            let seconds = super::seconds(std::mem::take(ns));
            handle::<Sum>(&self.target, &catalog::KERNEL_GPU_TIME, name).add(seconds);
        }
    }
}

fn handle<K: Instrument>(target: &Target, metric: &'static Metric<K>, name: Option<&str>) -> Handle<K> {
    let attribute = name.map(|name| (attribute::CUDA_KERNEL_NAME, Value::Str(name.to_owned().into())));
    target.handle(metric, attribute.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::{PointValue, Registry};
    use crate::span::model::Resource;

    fn points(registry: &Registry, metric: &str) -> HashMap<Option<String>, u64> {
        let snapshot = registry.snapshot(2);
        let points = snapshot.targets.iter().flat_map(|target| &target.metrics);
        let points = points.filter(|m| m.info.name == metric).flat_map(|m| &m.points);
        let name = |attributes: &[(&'static str, Value)]| match attributes.first() {
            Some((_, Value::Str(name))) => Some(name.to_string()),
            _ => None,
        };
        points
            .map(|point| match &point.value {
                PointValue::Int(count) => (name(&point.attributes), count.cast_unsigned()),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn the_first_names_have_points_and_the_rest_share_one() {
        let registry = Registry::default();
        let mut launches = KernelLaunches::new(registry.target(&Arc::new(Resource::default()), 1));
        let key = |function: usize| KernelKey { pid: 1, function: function as u64 };
        let mut totals = Totals::default();
        for function in 0..MOST_NAMES + 5 {
            launches.named(key(function), Some(format!("k{function}").into()));
            totals.work.kernels.insert(key(function), (2, 1));
        }
        let nobody = 1000;
        launches.named(key(nobody), None);
        // The same kernel launched through another handle.
        launches.named(key(nobody + 1), Some("k0".into()));
        for function in [nobody, nobody + 1, nobody + 2] {
            totals.work.kernels.insert(key(function), (10, 0));
        }
        launches.totals(&totals, false);
        let seen = points(&registry, "gpuspan.kernel.launches");
        let of = |name: &str| seen.get(&Some(name.to_owned())).copied();
        assert_eq!((of("k0"), of("k199"), of("k200")), (Some(13), Some(3), None));
        assert_eq!((of("other"), seen.get(&None).copied()), (Some(15), Some(10)));
        assert_eq!(points(&registry, "gpuspan.self.kernels_beyond").get(&None), Some(&5));
        // What nobody has named by the end has no name.
        launches.totals(&totals, true);
        assert_eq!(points(&registry, "gpuspan.kernel.launches").get(&None), Some(&20));
    }
}
