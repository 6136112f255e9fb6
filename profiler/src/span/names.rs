//! What kernels are called in spans. A span's name is a label of metrics that backends make of spans, so only so many
//! names are used; beyond them a span has a common name, and its kernel's is an attribute alone.

use crate::correlate::{KernelKey, MOST_KERNELS};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Kernels whose names are used for spans: as many as have a point in metrics.
const MOST_SPAN_NAMES: usize = crate::metric::MOST_NAMES;
/// What a span is called when its kernel's name is one too many.
const BEYOND: &str = "kernel";
/// What a span is called when its kernel has no name, or has none yet.
pub const NAMELESS: &str = "unnamed kernel";

/// Names of kernels, as they are learnt.
#[derive(Debug, Default)]
pub struct Names {
    known: HashMap<KernelKey, Arc<str>>,
    spoken: HashSet<Arc<str>>,
}

impl Names {
    /// A kernel's short name is known. The first word stands.
    pub fn named(&mut self, kernel: KernelKey, name: Arc<str>) {
        if self.known.len() < MOST_KERNELS {
            self.known.entry(kernel).or_insert(name);
        }
    }

    /// A kernel's short name, if it has one by now.
    #[must_use]
    pub fn of(&self, kernel: KernelKey) -> Option<&Arc<str>> {
        self.known.get(&kernel)
    }

    /// What a span about a kernel of this name is called.
    pub fn span_name(&mut self, name: &Arc<str>) -> Cow<'static, str> {
        let is_known = self.spoken.contains(name);
        if is_known || self.spoken.len() < MOST_SPAN_NAMES && self.spoken.insert(Arc::clone(name)) {
            return name.to_string().into();
        }
        BEYOND.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_span_names_is_bounded_and_the_first_stand() {
        let mut names = Names::default();
        let key = KernelKey { pid: 1, function: 7 };
        names.named(key, "gemm".into());
        names.named(key, "other".into());
        assert_eq!(names.of(key).map(|name| &**name), Some("gemm"));
        let called: HashSet<_> = (0..1000).map(|n| names.span_name(&format!("k{n}").into())).collect();
        assert_eq!(called.len(), MOST_SPAN_NAMES + 1);
        assert_eq!(
            (names.span_name(&"k0".into()), names.span_name(&"k999".into())),
            ("k0".into(), BEYOND.into())
        );
    }
}
