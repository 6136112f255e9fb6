//! Every query of every board and every rule, asked as Grafana and Prometheus ask it.

use std::collections::BTreeSet;

use profiler::metric::catalog;
use xtask::dashboards::{Board, Panel, Rule, boards, groups, series};

use crate::ask::Source;
use crate::awaited;

/// What Grafana would put in the place of its variables. The run is short, and so is the step.
const REPLACED: [(&str, &str); 5] =
    [("$__rate_interval", "10s"), ("$service", ".*"), ("$instance", ".*"), ("$model", ".*"), ("$gpu", ".*")];

/// Panels and choices that have nothing to show.
pub fn complaints(source: &Source) -> Vec<String> {
    let missing = awaited::series();
    let boards = boards();
    let panels = boards.iter().flat_map(|board| board.panels().map(move |panel| (board, panel)));
    let asked = panels.flat_map(|(board, panel)| empty(source, &missing, board, panel));
    let choices = boards.iter().flat_map(|board| &board.variables).filter_map(|variable| {
        // label_values(SELECTOR, LABEL)
        let inside = variable.query.strip_prefix("label_values(")?.strip_suffix(')')?;
        let (selector, label) = inside.rsplit_once(", ")?;
        let expression = format!("count by ({label}) ({})", replaced(selector));
        let known = !mentions(&expression, &missing);
        (known && source.range(&expression).unwrap() == 0)
            .then(|| format!("nothing to choose for ${}", variable.name))
    });
    asked.chain(choices).collect()
}

fn empty(source: &Source, missing: &BTreeSet<String>, board: &Board, panel: &Panel) -> Vec<String> {
    let mut complaints = Vec::new();
    for query in &panel.queries {
        let expression = replaced(&query.expression);
        let place = format!("{} / {}: {expression}", board.title, panel.title);
        match source.range(&expression) {
            Err(error) => complaints.push(format!("{place}: {error:#}")),
            Ok(0) if panel.quiet.is_none() && !mentions(&expression, missing) => {
                complaints.push(format!("{place}: empty"))
            }
            Ok(_) => {}
        }
    }
    complaints
}

/// Recordings without a value, and alerts that watch what there is not. (That alerts speak up, `promtool` tests.)
pub fn rules(source: &Source) -> Vec<String> {
    let missing = awaited::series();
    let groups = groups();
    let asked = groups.iter().flat_map(|group| &group.rules).flat_map(|rule| match rule {
        Rule::Record(record) => vec![(record.name.as_str(), record.expression.clone())],
        Rule::Alert(alert) => {
            watched(&alert.value).into_iter().map(|name| (alert.name, format!("count({name})"))).collect()
        }
    });
    let quiet = |name: &str| QUIET.iter().any(|(quiet, _)| *quiet == name);
    let silent = asked.filter(|(name, expression)| {
        !quiet(name) && !mentions(expression, &missing) && source.now(expression).unwrap().is_empty()
    });
    silent.map(|(name, expression)| format!("rule {name}: {expression}: empty")).collect()
}

/// Alerts on what a healthy run has not, and why.
const QUIET: &[(&str, &str)] = &[
    ("GpuspanExportDrops", "nothing was dropped"),
    ("GpuspanMetricOverflows", "no metric has too many attribute sets"),
    ("GpuXid", "no device reports a fault"),
];

/// Recordings that Prometheus, which has evaluated the shipped rules, keeps nothing of.
pub fn recorded(source: &Source) -> Vec<String> {
    let missing = awaited::series();
    let groups = groups();
    let rules = groups.iter().flat_map(|group| &group.rules);
    let empty = rules.filter_map(|rule| match rule {
        Rule::Record(record) if !mentions(&record.expression, &missing) => {
            (source.range(&record.name).unwrap() == 0).then(|| format!("{} was not recorded", record.name))
        }
        _ => None,
    });
    empty.collect()
}

/// Metrics that an expression names.
fn watched(expression: &str) -> Vec<String> {
    let stored: BTreeSet<String> = catalog::all().flat_map(series::stored).collect();
    words(expression).into_iter().filter(|word| stored.contains(word)).collect()
}

fn mentions(expression: &str, names: &BTreeSet<String>) -> bool {
    words(expression).iter().any(|word| names.contains(word))
}

fn words(expression: &str) -> Vec<String> {
    expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).map(str::to_owned).collect()
}

fn replaced(expression: &str) -> String {
    REPLACED.iter().fold(expression.to_owned(), |text, (variable, value)| text.replace(variable, value))
}
