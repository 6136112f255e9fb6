//! A request's spans as a tree of lines, for a terminal.

use super::duration;
use crate::span::model::{Span, Value};
use std::fmt::Write as _;

/// Width of the time bar, characters.
const BAR: usize = 32;

/// Attributes worth a place beside a span's name, with the words for them.
const SHOWN: [(&str, &str); 8] = [
    ("gen_ai.request.model", "model"),
    ("gen_ai.usage.input_tokens", "in"),
    ("gen_ai.usage.output_tokens", "out"),
    ("gpuspan.time_to_first_token", "ttft"),
    ("gpuspan.launches", "launches"),
    ("gpuspan.copies", "copies"),
    ("gpuspan.steps", "steps"),
    ("gpuspan.evidence", "evidence"),
];

/// The tree of one trace, SERVER span first; empty without spans.
#[must_use]
pub fn tree(spans: &[Span]) -> String {
    let Some(root) = spans.first() else { return String::new() };
    let hex: String = root.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut text = format!("trace {hex}\n");
    for (index, span) in spans.iter().enumerate() {
        let branch = match index {
            0 => "",
            _ if index + 1 == spans.len() => "└─ ",
            _ => "├─ ",
        };
        let name = format!("{branch}{}", span.name);
        let took = duration(span.end_ns.saturating_sub(span.start_ns));
        let _ = writeln!(text, "{name:<28} {took:>9}  {}  {}", bar(root, span), details(span));
    }
    text
}

/// Where in the root's time a span lies.
fn bar(root: &Span, span: &Span) -> String {
    let total = root.end_ns.saturating_sub(root.start_ns).max(1) as f64;
    let place = |time_ns: u64| {
        let share = time_ns.saturating_sub(root.start_ns) as f64 / total;
        ((share * BAR as f64).round() as usize).min(BAR)
    };
    let (from, to) = (place(span.start_ns).min(BAR - 1), place(span.end_ns));
    (0..BAR).map(|at| if at == from || (from..to).contains(&at) { '█' } else { '·' }).collect()
}

fn details(span: &Span) -> String {
    let shown = SHOWN.iter().filter_map(|(name, word)| {
        let (_, value) = span.attributes.iter().find(|(key, _)| key == name)?;
        let value = match value {
            Value::Str(text) => text.to_string(),
            Value::Int(number) => number.to_string(),
            Value::Double(seconds) => duration((seconds * 1e9) as u64),
            Value::Bool(truth) => truth.to_string(),
            Value::Strs(texts) => texts.join(","),
        };
        Some(format!("{word} {value}"))
    });
    shown.collect::<Vec<_>>().join("  ")
}
