//! What a person or a script sees on standard output while observing.

mod account;
mod json;
mod line;
mod table;
mod tree;

use crate::account::Summary;
use crate::attach::Detail;
use crate::config::Output;
use crate::session::Session;
use crate::target::Member;
use std::io::IsTerminal as _;
use std::time::Duration;

pub use tree::tree;

/// Whom an observation is about, as it stands.
#[derive(Clone, Debug)]
pub struct Whom {
    /// The pid that was asked for.
    pub pid: u32,
    /// The server that it was recognised as.
    pub server: &'static str,
    /// How much is sent from the kernel.
    pub detail: Detail,
    /// Every process of the group.
    pub members: Vec<Member>,
}

/// Something that shows an observation.
pub trait View {
    /// Shows how it stands, several times a second.
    fn show(&mut self, whom: &Whom, session: &Session, elapsed: Duration);

    /// Shows what it came to.
    fn finish(&mut self, summary: &Summary, session: &Session);
}

/// The view of an output setting: the live table only where it can be redrawn.
#[must_use]
pub fn of(output: Output) -> Box<dyn View> {
    match output {
        Output::None => Box::new(Nothing),
        Output::Json => Box::new(json::Json::default()),
        Output::Table if std::io::stdout().is_terminal() => match table::Table::new() {
            Ok(table) => Box::new(table),
            Err(_) => Box::new(line::Lines::default()),
        },
        Output::Table => Box::new(line::Lines::default()),
    }
}

/// The view of a replay, which runs too fast to be looked at: nothing is drawn anew.
#[must_use]
pub fn of_replay(output: Output) -> Box<dyn View> {
    match output {
        Output::None => Box::new(Nothing),
        Output::Json => Box::new(json::Json::default()),
        Output::Table => Box::new(line::Lines::default()),
    }
}

/// Shows nothing.
struct Nothing;

impl View for Nothing {
    fn show(&mut self, _: &Whom, _: &Session, _: Duration) {}
    fn finish(&mut self, _: &Summary, _: &Session) {}
}

/// Nanoseconds for people: three digits and a unit.
#[must_use]
pub fn duration(ns: u64) -> String {
    let ns = ns as f64;
    match ns {
        _ if ns < 1e3 => format!("{ns:.0} ns"),
        _ if ns < 1e4 => format!("{:.2} µs", ns / 1e3),
        _ if ns < 1e6 => format!("{:.0} µs", ns / 1e3),
        _ if ns < 1e7 => format!("{:.2} ms", ns / 1e6),
        _ if ns < 1e9 => format!("{:.0} ms", ns / 1e6),
        _ => format!("{:.2} s", ns / 1e9),
    }
}

/// Bytes for people.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or("");
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {name}") }
}

/// The middle and the 99th of a hundred of some durations, nanoseconds.
#[must_use]
pub fn percentiles(mut values: Vec<u64>) -> Option<(u64, u64)> {
    values.sort_unstable();
    let at = |share: f64| values.get(((values.len() as f64 - 1.0) * share).round() as usize).copied();
    Some((at(0.5)?, at(0.99)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(duration(950), "950 ns");
        assert_eq!(duration(1_234), "1.23 µs");
        assert_eq!(duration(412_345_678), "412 ms");
        assert_eq!(duration(2_500_000_000), "2.50 s");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1_572_864), "1.5 MiB");
        assert_eq!(percentiles((1..=101).collect()), Some((51, 100)));
        assert_eq!(percentiles(Vec::new()), None);
    }
}
