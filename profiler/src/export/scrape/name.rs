//! OpenTelemetry's names → Prometheus', by the rules of Prometheus' OTLP receiver with its default settings
//! (`UnderscoreEscapingWithSuffixes`; prometheus/otlptranslator and `OTLPConfig` of Prometheus 3.14). In: names and units
//! of the catalogue, attribute names from anywhere. Out: names that every version of Prometheus can read.

use crate::metric::{Info, Kind};

/// A metric's name without the suffixes of its samples, and its unit, which the name ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// Without `_total`, `_bucket` and the like.
    pub name: String,
    /// In Prometheus' words; none for what is counted in things.
    pub unit: Option<String>,
}

/// What Prometheus calls a metric.
pub fn family(info: &Info) -> Family {
    let mut words: Vec<&str> =
        info.name.split(|c: char| !is_of_metrics(c)).filter(|w| !w.is_empty()).collect();
    let (unit, per) = unit(info.unit);
    for suffix in [&unit, &per] {
        // A name that has the unit in it does not get it twice.
        if !suffix.is_empty() && !words.contains(&suffix.as_str()) {
            words.push(suffix);
        }
    }
    if is_total(info.kind) {
        // Each of its samples gets it, at the end.
        words.retain(|word| *word != "total");
    }
    if info.unit == "1" && info.kind == Kind::Gauge {
        words.retain(|word| *word != "ratio");
        words.push("ratio");
    }
    let mut name = words.join("_");
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    let whole = [unit, per].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_");
    // The rules of OpenMetrics: no unit that the name does not end with.
    let ends_so = name.strip_suffix(&whole).is_some_and(|rest| rest.ends_with('_'));
    Family { unit: Some(whole).filter(|unit| !unit.is_empty() && ends_so), name }
}

/// Only grows.
pub fn is_total(kind: Kind) -> bool {
    matches!(kind, Kind::Counter | Kind::Sum)
}

/// What Prometheus calls an attribute; nothing if no character of it may stand in a label's name.
pub fn label(attribute: &str) -> Option<String> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut name: String = attribute.chars().map(|c| if is_fine(c) { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert_str(0, "key_");
    } else if name.starts_with('_') && !name.starts_with("__") {
        name.insert_str(0, "key");
    }
    name.contains(|c| c != '_').then_some(name)
}

fn is_of_metrics(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

/// A UCUM unit in Prometheus' words: what is measured, and per what.
fn unit(ucum: &str) -> (String, String) {
    let (main, per) = ucum.split_once('/').unwrap_or((ucum, ""));
    let known = |text: &str, words: &[(&str, &str)]| {
        let text = text.trim();
        // Braces are remarks: `{token}` counts things, which is no unit.
        if text.contains(['{', '}']) {
            return String::new();
        }
        let word = words.iter().find(|(symbol, _)| *symbol == text).map_or(text, |(_, word)| word);
        word.split(|c| !is_of_metrics(c)).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_")
    };
    let per = known(per, &PER);
    (known(main, &UNITS), if per.is_empty() { per } else { format!("per_{per}") })
}

const UNITS: [(&str, &str); 26] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("1", ""),
    ("%", "percent"),
];

const PER: [(&str, &str); 7] = [
    ("s", "second"),
    ("m", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::metric::catalog;

    fn info(name: &'static str, unit: &'static str, kind: Kind) -> Info {
        Info {
            name,
            unit,
            kind,
            bounds: &[],
            origin: catalog::Origin::Gpuspan,
            stability: catalog::Stability::Development,
            attributes: &[],
            help: "",
        }
    }

    #[test]
    fn metrics() {
        use Kind::{Counter, Gauge, Histogram, Sum, UpDownCounter};
        let cases = [
            (
                "gen_ai.server.request.duration",
                "s",
                Histogram,
                "gen_ai_server_request_duration_seconds",
                "seconds",
            ),
            ("gpuspan.gpu.energy", "J", Sum, "gpuspan_gpu_energy_joules", "joules"),
            ("hw.power", "W", Gauge, "hw_power_watts", "watts"),
            ("hw.temperature", "Cel", Gauge, "hw_temperature_celsius", "celsius"),
            ("gpuspan.gpu.clock", "Hz", Gauge, "gpuspan_gpu_clock_hertz", "hertz"),
            ("hw.gpu.io", "By", Counter, "hw_gpu_io_bytes", "bytes"),
            ("hw.gpu.utilization", "1", Gauge, "hw_gpu_utilization_ratio", ""),
            ("a.ratio.of", "1", Gauge, "a_of_ratio", ""),
            // Only gauges of dimension one are ratios.
            ("gpuspan.gpu.throttled", "1", UpDownCounter, "gpuspan_gpu_throttled", ""),
            ("gpuspan.engine.batch.fill", "1", Histogram, "gpuspan_engine_batch_fill", ""),
            ("gpuspan.engine.tokens", "{token}", Counter, "gpuspan_engine_tokens", ""),
            ("gpuspan.self.probes", "{probe}", UpDownCounter, "gpuspan_self_probes", ""),
            ("a.rate", "By/s", Gauge, "a_rate_bytes_per_second", "bytes_per_second"),
            ("a.rate", "{token}/s", Gauge, "a_rate_per_second", "per_second"),
            ("a.total.of", "", Counter, "a_of", ""),
            ("1st", "", Gauge, "_1st", ""),
            // Units that are words, and names with the unit in them.
            ("ttft_milliseconds", "ms", Histogram, "ttft_milliseconds", "milliseconds"),
            ("kv_cache_free_memory_bytes", "bytes", Gauge, "kv_cache_free_memory_bytes", "bytes"),
            ("gpu.cuda.memcpy.bytes", "By", Counter, "gpu_cuda_memcpy_bytes", "bytes"),
            ("bytes.in.the.middle", "By", Gauge, "bytes_in_the_middle", ""),
            ("active_requests_count", "requests", Gauge, "active_requests_count", ""),
            ("batch_fill_percentage", "percent", Histogram, "batch_fill_percentage_percent", "percent"),
            ("prefill_tokens_processed", "tokens", Counter, "prefill_tokens_processed", ""),
            ("decode_prefill_ratio", "ratio", Gauge, "decode_prefill_ratio", "ratio"),
        ];
        for (name, unit, kind, expected, unit_word) in cases {
            let family = family(&info(name, unit, kind));
            assert_eq!((family.name.as_str(), family.unit.as_deref().unwrap_or("")), (expected, unit_word));
        }
    }

    #[test]
    fn labels() {
        let cases = [
            ("gen_ai.request.model", Some("gen_ai_request_model")),
            ("a..b", Some("a__b")),
            ("k8s.pod/label-x", Some("k8s_pod_label_x")),
            ("1st", Some("key_1st")),
            ("_own", Some("key_own")),
            ("__reserved", Some("__reserved")),
            ("größe", Some("gr__e")),
            ("..", None),
            ("", None),
        ];
        for (attribute, expected) in cases {
            assert_eq!(label(attribute).as_deref(), expected, "{attribute}");
        }
    }

    /// What OpenMetrics forbids: that a sample of one family could be taken for another's.
    #[test]
    fn no_two_metrics_of_the_catalogue_share_a_name() {
        let mut owners: HashMap<String, &str> = HashMap::new();
        for info in catalog::all() {
            let family = family(info).name;
            let suffixes: &[&str] = match info.kind {
                Kind::Counter | Kind::Sum => &["", "_total", "_created"],
                Kind::Histogram => &["", "_bucket", "_count", "_sum", "_created"],
                Kind::Gauge | Kind::UpDownCounter => &[""],
            };
            for suffix in suffixes {
                let former = owners.insert(format!("{family}{suffix}"), info.name);
                assert_eq!(former, None, "{} comes out as {family}{suffix}", info.name);
            }
        }
    }
}
