//! A snapshot as text. In: all targets' metrics. Out: one document in either format, in which each metric stands once
//! with the points of all targets. Absent: exponential buckets, which text has no words for.

use std::borrow::Cow;
use std::fmt::Write as _;

use indexmap::IndexMap;
use indexmap::map::Entry;

use super::accept::Format;
use super::labels::{Labels, escape};
use super::name::{self, is_total};
use super::number;
use crate::metric::catalog::Origin;
use crate::metric::{Distribution, Exemplar, Info, Kind, PointValue, Snapshot};

/// The whole answer to a scrape.
pub fn document(snapshot: &Snapshot, format: Format) -> String {
    let mut out = Writer { text: String::new(), format };
    out.targets(snapshot);
    for (info, series) in families(snapshot).values() {
        out.family(info, series);
    }
    if format == Format::OpenMetrics {
        out.text.push_str("# EOF\n");
    }
    out.text
}

/// A metric of all targets: its series by their labels.
type Family<'a> = (&'static Info, IndexMap<String, Series<'a>>);

/// One series.
#[derive(Debug)]
struct Series<'a> {
    start_ns: u64,
    value: Cow<'a, PointValue>,
}

/// By name, in the order in which they are met.
fn families(snapshot: &Snapshot) -> IndexMap<&'static str, Family<'_>> {
    let mut families: IndexMap<&'static str, Family<'_>> = IndexMap::new();
    for target in &snapshot.targets {
        let whose = Labels::of_series(&target.resource);
        for metric in &target.metrics {
            let info = metric.info;
            let (_, all) = families.entry(info.name).or_insert_with(|| (info, IndexMap::new()));
            for point in &metric.points {
                let labels = whose.of_point(&point.attributes).render(info.kind == Kind::Histogram);
                match all.entry(labels) {
                    Entry::Vacant(slot) => {
                        slot.insert(Series { start_ns: target.start_ns, value: Cow::Borrowed(&point.value) });
                    }
                    // Processes to which the operator gave the same identity.
                    Entry::Occupied(mut known) => {
                        known.get_mut().start_ns = known.get().start_ns.min(target.start_ns);
                        join(known.get_mut().value.to_mut(), &point.value, info.kind);
                    }
                }
            }
        }
    }
    families
}

/// Two values of one series: a scrape must not name it twice. What adds up is added; of what does not, the later stands.
fn join(into: &mut PointValue, from: &PointValue, kind: Kind) {
    match (into, from) {
        (into, from) if kind == Kind::Gauge => *into = from.clone(),
        (PointValue::Int(into), PointValue::Int(from)) => *into = into.saturating_add(*from),
        (PointValue::Double(into), PointValue::Double(from)) => *into += from,
        (PointValue::Distribution(into), PointValue::Distribution(from)) => {
            into.count += from.count;
            into.sum += from.sum;
            into.buckets.iter_mut().zip(&from.buckets).for_each(|(into, from)| *into += from);
            into.exemplars.extend(&from.exemplars);
        }
        // One metric has one kind of value.
        _ => {}
    }
}

/// A document in the making.
struct Writer {
    text: String,
    format: Format,
}

impl Writer {
    fn is_open(&self) -> bool {
        self.format == Format::OpenMetrics
    }

    /// What is known of the targets, as Prometheus joins it: `* on (job, instance) group_left (…) target_info`.
    fn targets(&mut self, snapshot: &Snapshot) {
        let infos = snapshot.targets.iter().filter_map(|target| Labels::target_info(&target.resource));
        let mut lines: Vec<String> = infos.map(|labels| labels.render(false)).collect();
        lines.dedup();
        if lines.is_empty() {
            return;
        }
        // The older format knows no such type, and names metrics by their samples.
        let (family, kind) = if self.is_open() { ("target", "info") } else { ("target_info", "gauge") };
        self.head(family, kind, None, "Target metadata");
        lines.iter().for_each(|labels| self.sample("target_info", labels, "1"));
    }

    fn family(&mut self, info: &'static Info, series: &IndexMap<String, Series<'_>>) {
        let name::Family { name, unit } = name::family(info);
        let samples = if is_total(info.kind) { format!("{name}_total") } else { name.clone() };
        let kind = match info.kind {
            Kind::Counter | Kind::Sum => "counter",
            Kind::Gauge | Kind::UpDownCounter => "gauge",
            Kind::Histogram => "histogram",
        };
        self.head(if self.is_open() { &name } else { &samples }, kind, unit.as_deref(), info.help);
        for (labels, Series { start_ns, value }) in series {
            match value.as_ref() {
                PointValue::Int(value) => self.sample(&samples, labels, &value.to_string()),
                PointValue::Double(value) => self.sample(&samples, labels, &number::value(*value)),
                PointValue::Distribution(value) => self.histogram(&name, labels, info.bounds, value),
            }
            if self.is_open() && begins_with_us(info) {
                self.sample(&format!("{name}_created"), labels, &number::seconds(*start_ns));
            }
        }
    }

    fn head(&mut self, name: &str, kind: &str, unit: Option<&str>, help: &str) {
        if self.is_open() {
            self.line(format_args!("# TYPE {name} {kind}"));
            if let Some(unit) = unit {
                self.line(format_args!("# UNIT {name} {unit}"));
            }
            self.line(format_args!("# HELP {name} {}", escape(help)));
        } else {
            // Quotes are plain characters here.
            let help = help.replace('\\', r"\\").replace('\n', r"\n");
            self.line(format_args!("# HELP {name} {help}"));
            self.line(format_args!("# TYPE {name} {kind}"));
        }
    }

    fn histogram(&mut self, name: &str, labels: &str, bounds: &[f64], value: &Distribution) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut below = 0;
        for (index, count) in value.buckets.iter().enumerate() {
            below += count;
            let bound = bounds.get(index).map_or_else(|| "+Inf".to_owned(), |bound| self.bound(*bound));
            let exemplar = self.exemplar(value, bounds, index);
            self.line(format_args!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {below}{exemplar}"));
        }
        self.sample(&format!("{name}_sum"), labels, &number::value(value.sum));
        self.sample(&format!("{name}_count"), labels, &value.count.to_string());
    }

    fn bound(&self, bound: f64) -> String {
        if self.is_open() { number::canonical_bound(bound) } else { number::value(bound) }
    }

    /// The bucket's newest exemplar as it stands behind the value.
    fn exemplar(&self, value: &Distribution, bounds: &[f64], bucket: usize) -> String {
        let of_bucket =
            |exemplar: &&Exemplar| bounds.partition_point(|bound| *bound < exemplar.value) == bucket;
        let newest = value.exemplars.iter().filter(of_bucket).max_by_key(|exemplar| exemplar.time_ns);
        let Some(exemplar) = newest.filter(|_| self.is_open()) else { return String::new() };
        format!(
            " # {{trace_id=\"{}\",span_id=\"{}\"}} {} {}",
            hex(&exemplar.trace_id),
            hex(&exemplar.span_id),
            number::value(exemplar.value),
            number::seconds(exemplar.time_ns),
        )
    }

    fn sample(&mut self, name: &str, labels: &str, value: &str) {
        if labels.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{labels}}} {value}"));
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{line}");
    }
}

/// Whether a total began at zero when the target was found. Those that the kernel or a device counts were there before.
fn begins_with_us(info: &Info) -> bool {
    let adds_up = is_total(info.kind) || info.kind == Kind::Histogram;
    let is_ours = matches!(
        info.origin,
        Origin::Http | Origin::GenAi | Origin::Obi | Origin::Gpuspan | Origin::Transformers
    );
    adds_up && is_ours
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
