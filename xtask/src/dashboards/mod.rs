//! `cargo xtask dashboards`: the boards and rules under `deploy`, and `docs/dashboards.md`. In: what they ask, written with
//! the catalogue's own constants, so that a metric that goes or changes its name is noticed here and not on a wall.
//! Out: files, or with `--check` whether they are current. Absent: running a query, which the tests do.

mod boards;
mod grafana;
mod page;
mod rules;
pub mod series;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

pub use boards::boards;
pub use grafana::{Board, Panel, Query};
pub use rules::{Alert, Group, Record, Rule, groups};

/// Write the dashboards, the rules and the page about them from the catalogue of metrics.
#[derive(clap::Args)]
pub struct Args {
    /// Only say whether what is there is current.
    #[arg(long)]
    check: bool,
}

/// Writes or checks.
pub fn run(args: &Args) -> Result<()> {
    if args.check {
        let stale = stale();
        ensure!(stale.is_empty(), "not current: {}; run `cargo xtask dashboards`", stale.join(", "));
        println!("dashboards: ok");
        return Ok(());
    }
    for (path, text) in files() {
        let path = root().join(path);
        std::fs::create_dir_all(path.parent().context("a file without a folder")?)?;
        std::fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}

/// Files that are not what they should be.
fn stale() -> Vec<String> {
    let is_stale = |path: &PathBuf, text: &String| {
        std::fs::read_to_string(root().join(path)).ok().as_ref() != Some(text)
    };
    let stale = files().into_iter().filter(|(path, text)| is_stale(path, text));
    stale.map(|(path, _)| path.display().to_string()).collect()
}

/// Every file, by its path in the repository.
pub fn files() -> Vec<(PathBuf, String)> {
    let boards = boards();
    let groups = groups();
    let board = |board: &Board| {
        let text = serde_json::to_string_pretty(&board.json()).unwrap_or_default();
        (PathBuf::from(format!("deploy/grafana/dashboards/{}.json", board.uid)), text + "\n")
    };
    let group = |group: &Group| {
        (PathBuf::from(format!("deploy/prometheus/rules/{}.yml", group.name)), rules::yaml(group))
    };
    let mut files: Vec<_> = boards.iter().map(board).chain(groups.iter().map(group)).collect();
    files.push(("deploy/prometheus/rules_test.yml".into(), rules::tests(&groups)));
    files.push(("docs/dashboards.md".into(), page::markdown(&boards, &groups)));
    files
}

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use profiler::metric::catalog;
    use std::collections::{HashMap, HashSet};

    #[test]
    fn files_are_current() {
        assert_eq!(stale(), Vec::<String>::new(), "run `cargo xtask dashboards`");
    }

    /// Words of PromQL, and labels that no attribute of a point stands behind.
    const KNOWN: &[&str] = &[
        "sum",
        "by",
        "rate",
        "increase",
        "histogram_quantile",
        "topk",
        "max",
        "count",
        "on",
        "unless",
        "or",
        "last_over_time",
        "label_replace",
        "group_left",
        "le",
        "label_values",
        "job",
        "instance",
        "model_name",
        "__rate_interval",
        "service",
        "model",
        "gpu",
        "m",
        "h",
        "s",
    ];

    /// Names of labels, operators and metrics in an expression, without what stands in quotes.
    fn words(expression: &str) -> Vec<String> {
        let bare: String = expression.split('"').step_by(2).collect::<Vec<_>>().join(" ");
        let words = bare.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
        words
            .filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
            .map(str::to_owned)
            .collect()
    }

    /// Whether every word of an expression is a metric, or an attribute that one of its metrics may have.
    fn unknown(expression: &str) -> Vec<String> {
        let metrics: HashMap<String, _> = catalog::all()
            .flat_map(|info| series::stored(info).into_iter().map(move |name| (name, info)))
            .collect();
        let words = words(expression);
        let mut labels: HashSet<String> = KNOWN.iter().map(|word| (*word).to_owned()).collect();
        labels.extend(["service.name", "service.instance.id"].map(series::label));
        for info in words.iter().filter_map(|word| metrics.get(word)) {
            labels.extend(info.attributes.iter().map(|name| series::label(name)));
        }
        words.into_iter().filter(|word| !metrics.contains_key(word) && !labels.contains(word)).collect()
    }

    #[test]
    fn queries_name_only_what_there_is() {
        let boards = boards();
        let asked = boards
            .iter()
            .flat_map(Board::panels)
            .flat_map(|panel| &panel.queries)
            .map(|query| query.expression.clone());
        let groups = groups();
        let ruled = groups.iter().flat_map(|group| &group.rules).map(|rule| match rule {
            Rule::Alert(alert) => alert.expression(),
            Rule::Record(record) => record.expression.clone(),
        });
        let chosen =
            boards.iter().flat_map(|board| &board.variables).map(|variable| variable.query.to_owned());
        for expression in asked.chain(ruled).chain(chosen) {
            assert_eq!(unknown(&expression), Vec::<String>::new(), "{expression}");
        }
        assert_eq!(unknown("rate(gone_total{service_name=\"x\",gpuspan_part=\"y\"}[5m])").len(), 2);
    }

    #[test]
    fn boards_are_told_apart_and_panels_fit() {
        let boards = boards();
        let uids: HashSet<_> = boards.iter().map(|board| board.uid).collect();
        assert_eq!(uids.len(), boards.len());
        for board in &boards {
            let json = board.json();
            let places: Vec<_> = json["panels"]
                .as_array()
                .unwrap()
                .iter()
                .map(|panel| {
                    let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
                    (at("x"), at("y"), at("w"), at("h"))
                })
                .collect();
            for (n, a) in places.iter().enumerate() {
                assert!(a.0 + a.2 <= 24, "{}: {a:?}", board.uid);
                let overlaps = |b: &(u64, u64, u64, u64)| {
                    a.0 < b.0 + b.2 && b.0 < a.0 + a.2 && a.1 < b.1 + b.3 && b.1 < a.1 + a.3
                };
                assert!(!places[n + 1..].iter().any(overlaps), "{}: {a:?}", board.uid);
            }
        }
    }
}
