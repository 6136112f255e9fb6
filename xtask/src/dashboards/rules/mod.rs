//! Rules as Prometheus reads them. In: alerts and recordings as values. Out: its YAML, and a test of each alert for
//! `promtool`. Absent: what they say, which the files beside this one do.

mod alerts;
mod gpu;
mod per_token;
mod sglang;
mod vllm;

use std::fmt::Write as _;

/// Rules that are evaluated together, in one file.
#[derive(Debug)]
pub struct Group {
    /// Its name, and its file's.
    pub name: &'static str,
    /// Stands above it in its file.
    pub help: &'static str,
    /// In order: a rule may use those before it.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Debug)]
pub enum Rule {
    /// Speaks up while an expression has a value.
    Alert(Alert),
    /// Keeps an expression's value under a name.
    Record(Record),
}

/// When somebody has to know something.
#[derive(Debug)]
pub struct Alert {
    /// Its name.
    pub name: &'static str,
    /// What is watched.
    pub value: String,
    /// When that is too much or too little.
    pub condition: &'static str,
    /// For how long, before anybody is told.
    pub wait: &'static str,
    /// `critical` wakes people up, `warning` waits for the morning, `info` stands on a board.
    pub severity: &'static str,
    /// What happens.
    pub summary: &'static str,
    /// What it means and what to do.
    pub help: &'static str,
    /// Series with values a minute apart, by which it speaks up within the hour.
    pub example: Vec<(&'static str, &'static str)>,
}

/// A series under another name.
#[derive(Debug)]
pub struct Record {
    /// The name.
    pub name: String,
    /// Its value.
    pub expression: String,
}

impl Alert {
    /// The whole condition.
    pub fn expression(&self) -> String {
        format!("{} {}", self.value, self.condition)
    }
}

/// Every group.
pub fn groups() -> Vec<Group> {
    vec![
        alerts::requests(),
        alerts::itself(),
        gpu::group(),
        per_token::group(),
        vllm::group(),
        sglang::group(),
    ]
}

/// A group's file.
pub fn yaml(group: &Group) -> String {
    let mut out = format!(
        "# Written by `cargo xtask dashboards`; edit xtask/src/dashboards/rules.\n# {}\n",
        group.help
    );
    let _ = write!(out, "groups:\n  - name: {}\n    rules:\n", group.name);
    for rule in &group.rules {
        match rule {
            Rule::Alert(alert) => write_alert(&mut out, alert),
            Rule::Record(record) => {
                let _ = writeln!(
                    out,
                    "      - record: {}\n        expr: {}",
                    record.name,
                    quoted(&record.expression)
                );
            }
        }
    }
    out
}

fn write_alert(out: &mut String, alert: &Alert) {
    let _ = writeln!(out, "      - alert: {}", alert.name);
    let _ = writeln!(out, "        expr: {}", quoted(&alert.expression()));
    let _ = writeln!(out, "        for: {}", alert.wait);
    let _ = writeln!(out, "        labels:\n          severity: {}", alert.severity);
    let _ = writeln!(out, "        annotations:\n          summary: {}", quoted(alert.summary));
    let _ = writeln!(out, "          description: {}", quoted(alert.help));
}

/// A file for `promtool test rules`: each alert's example makes it speak up within the hour, and it alone is looked at.
pub fn tests(groups: &[Group]) -> String {
    let mut out = String::from(
        "# Written by `cargo xtask dashboards`: each alert has an example that sets it off.\nrule_files:\n",
    );
    for group in groups {
        let _ = writeln!(out, "  - rules/{}.yml", group.name);
    }
    out.push_str("evaluation_interval: 1m\ntests:\n");
    for rule in groups.iter().flat_map(|group| &group.rules) {
        let Rule::Alert(alert) = rule else { continue };
        let _ = writeln!(out, "  - name: {}\n    interval: 1m\n    input_series:", alert.name);
        for (series, values) in &alert.example {
            let _ = writeln!(out, "      - series: {}\n        values: {}", quoted(series), quoted(values));
        }
        let fires = format!(r#"count(ALERTS{{alertname="{}", alertstate="firing"}})"#, alert.name);
        let _ =
            writeln!(out, "    promql_expr_test:\n      - expr: {}\n        eval_time: 1h", quoted(&fires));
        out.push_str("        exp_samples:\n          - value: 1\n");
    }
    out
}

/// Text in YAML that stands for itself.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
