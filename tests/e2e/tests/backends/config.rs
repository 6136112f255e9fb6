//! The stack's files, read by the programs that will read them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use xtask::backend::Name;

use crate::program::{backend, collector};

fn deploy() -> PathBuf {
    xtask::dashboards::root().join("deploy")
}

/// Runs a check in a folder; a failure shows what it said.
fn check(command: &mut Command, folder: &Path) {
    let output = command.current_dir(folder).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
}

#[test]
fn prometheus_reads_its_configuration_and_rules() {
    let Some(promtool) = backend(Name::Promtool) else { return };
    check(Command::new(promtool).args(["check", "config", "prometheus.yml"]), &deploy().join("prometheus"));
}

#[test]
fn every_alert_speaks_up() {
    let Some(promtool) = backend(Name::Promtool) else { return };
    check(Command::new(promtool).args(["test", "rules", "rules_test.yml"]), &deploy().join("prometheus"));
}

/// What Prometheus' own linter cannot read of a scrape in the older format. (Which words it would have chosen is a matter
/// of taste: 3.)
pub fn read_as_text(scrape: &str) -> Option<String> {
    let mut lint = Command::new(backend(Name::Promtool)?);
    let lint =
        lint.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = lint.spawn().unwrap();
    child.stdin.take().unwrap().write_all(scrape.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (!matches!(output.status.code(), Some(0 | 3))).then(|| format!("promtool cannot read a scrape: {said}"))
}

#[test]
fn compose_reads_the_stack() {
    let Some(compose) = backend(Name::DockerCompose) else { return };
    check(Command::new(compose).args(["config", "--quiet"]), &deploy().join("compose"));
}

#[test]
fn the_collector_reads_its_configuration() {
    let Some(collector) = collector() else { return };
    check(
        Command::new(collector).args(["validate", "--config", "collector.yaml"]),
        &deploy().join("compose"),
    );
}

/// TypeScript knows each field and each word of Grafana's dashboards, and complains of others.
#[test]
fn grafana_knows_every_field_of_the_boards() {
    let folder = match xtask::backend::grafana_schema() {
        Ok(folder) => folder,
        Err(error) => {
            println!("skipped: no schema of Grafana's: {error:#}");
            return;
        }
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/backends/boards_as_types.mjs");
    let boards = deploy().join("grafana/dashboards");
    check(Command::new("node").arg(script).arg(boards).arg("check.ts"), &folder);
    let options =
        ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022", "check.ts"];
    check(Command::new("node_modules/.bin/tsc").args(options), &folder);
}
