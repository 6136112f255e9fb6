//! `docs/dashboards.md`. In: boards and rules. Out: Markdown with every query. Absent: pictures.

use std::fmt::Write as _;

use super::grafana::Board;
use super::rules::{Group, Rule};

const HEAD: &str = "\
# Dashboards and rules

Written by `cargo xtask dashboards` from `xtask/src/dashboards`; edit there, not here. The queries are made of the rows of
[the catalogue](metrics.md), and a test asks every one of them of a real VictoriaMetrics and a real Prometheus while gpuspan
is attached to servers: none is empty. How to start the stack: [deploy/README.md](../deploy/README.md).

Panels marked *quiet* may have nothing to show although all is well. `$service`, `$instance`, `$model` and `$gpu` are the
boards' choices.

## What takes the place of other parts

Monitoring of model servers is often drawn with more parts than these. A profiler does not need them:

| part | what takes its place |
|---|---|
| an SDK in the server, exporters in its code | probes in the kernel: nothing is added to the server, restarted or configured |
| PostgreSQL, or another store of results | Prometheus keeps series, Tempo keeps traces, both on a local volume; long-term storage is theirs (remote write, object stores) |
| memcached before Tempo's search | Tempo's own cache in memory: a single node reads from its own disk |
| Jaeger, Zipkin and OpenCensus receivers | OTLP, which they all send, and which Tempo 3 keeps |
| a hardware poller (`gpustat`, `rocm-smi`, `amdsmi`) with a file of samples | NVML, GPM and amdgpu's files, read by gpuspan itself, joined with processes (`--devices`) |
| service discovery by containers | gpuspan recognises servers by what they are; `service.name` and `service.instance.id` come from the target, and are labels |
| anomaly detection | alert rules with thresholds in `deploy/prometheus/rules`, to be changed; exemplars lead from a bucket to a trace |
| fragmentation analysis of the KV cache | the engine's own share of blocks in use where it says it, and memory by the model's shape where it does not |
| access control for boards | Grafana's own: the stack of `deploy/compose` listens on loopback and asks nobody for a password |

";

/// The whole page.
pub fn markdown(boards: &[Board], groups: &[Group]) -> String {
    let mut page = String::from(HEAD);
    page.push_str("## Boards\n");
    for board in boards {
        write_board(&mut page, board);
    }
    page.push_str("\n## Rules\n");
    for group in groups {
        write_group(&mut page, group);
    }
    page
}

fn write_board(page: &mut String, board: &Board) {
    let _ = write!(page, "\n### {}\n\n{}\n\n| panel | query |\n|---|---|\n", board.title, board.help);
    for panel in board.panels() {
        let quiet = panel.quiet.map(|why| format!(" *quiet: {why}*")).unwrap_or_default();
        let queries: Vec<_> = panel.queries.iter().map(|query| code(&query.expression)).collect();
        let _ = writeln!(page, "| **{}**: {}{quiet} | {} |", panel.title, panel.help, queries.join("<br>"));
    }
}

fn write_group(page: &mut String, group: &Group) {
    let _ = write!(page, "\n### `{}`\n\n{}\n\n| rule | expression |\n|---|---|\n", group.name, group.help);
    for rule in &group.rules {
        let _ = match rule {
            Rule::Alert(alert) => writeln!(
                page,
                "| **{}** ({}, for {}): {} | {} |",
                alert.name,
                alert.severity,
                alert.wait,
                alert.help,
                code(&alert.expression())
            ),
            Rule::Record(record) => writeln!(page, "| `{}` | {} |", record.name, code(&record.expression)),
        };
    }
}

/// Code in a cell of a table, where a bar would end the cell.
fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|"))
}
