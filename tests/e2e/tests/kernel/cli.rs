//! The command line as its users see it: helps, errors and output, compared with golden files. `UPDATE=1` renews them.

use std::path::Path;

use e2e::program::{Ended, run};
use e2e::{Observation, Stage, or_skip};
use serde_json::Value;
use workload::client::StreamMode;
use workload::{ClientOptions, load};

use crate::checks::{client, options};

pub fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, kept, "run the tests with UPDATE=1 to renew {}", path.display());
}

pub fn ran(arguments: &[&str], code: i32) -> Ended {
    let ended = run(arguments).unwrap();
    assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:?}");
    assert!(!ended.stderr.contains("panicked"), "{arguments:?}: {}", ended.stderr);
    ended
}

#[test]
fn helps() {
    golden("help.txt", &ran(&["--help"], 0).stdout);
    golden("help-attach.txt", &ran(&["attach", "--help"], 0).stdout);
    golden("help-record.txt", &ran(&["record", "--help"], 0).stdout);
    golden("help-replay.txt", &ran(&["replay", "--help"], 0).stdout);
    golden("help-agent.txt", &ran(&["agent", "--help"], 0).stdout);
    golden("help-check.txt", &ran(&["check", "--help"], 0).stdout);
    assert!(ran(&["--version"], 0).stdout.starts_with("gpuspan "));
}

#[test]
fn bad_usage_is_told_from_bad_luck() {
    let own = std::process::id().to_string();
    let pid: &[&str] = &["attach", "--pid", &own];
    let mut text = String::new();
    for arguments in [
        &[][..],
        &["nonsense"],
        &["attach"],
        &["attach", "--pid", "x"],
        &["attach", "--pid", "-1"],
        &[pid, &["--duration", "5 days"]].concat(),
        &[pid, &["--output", "xml"]].concat(),
        &[pid, &["--ring-bytes", "1000"]].concat(),
        &[pid, &["--links", "none"]].concat(),
        &[pid, &["--otlp-endpoint", "ftp://collector/"]].concat(),
        &[pid, &["--otlp-endpoint", "http://user:secret@collector:4317"]].concat(),
        &[pid, &["--nonsense"]].concat(),
        &["record", "--pid", &own],
        &["replay"],
        &["check", "--pid", ""],
        &["agent", "--json"],
        &["agent", "--check-config", "--dry-run"],
        &["agent", "--check-config", "--config", "/nowhere/agent.yaml"],
    ] {
        let ended = ran(arguments, 2);
        assert_eq!(ended.stdout, "", "{arguments:?}: errors go to standard error");
        assert!(!ended.stderr.contains("secret"), "{arguments:?}: {}", ended.stderr);
        let shown: Vec<_> = arguments.iter().map(|word| if *word == own { "PID" } else { word }).collect();
        text += &format!(
            "$ {}\n{}\n",
            ["gpuspan"].into_iter().chain(shown).collect::<Vec<_>>().join(" "),
            ended.stderr
        );
    }
    golden("usage.txt", &text);
}

#[test]
fn a_configuration_is_checked_and_errors_say_what_to_write() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.yaml");
    let arguments = ["agent", "--check-config", "--config", file.to_str().unwrap()];
    std::fs::write(&file, "budget:\n  target: 5%\n").unwrap();
    let right = ran(&arguments, 0).stdout;
    assert!(right.contains("  target: 5%\n") && right.ends_with("# the configuration is valid\n"), "{right}");
    std::fs::write(&file, "budget:\n  targt: 5%\n").unwrap();
    let wrong = ran(&arguments, 2);
    assert!(
        wrong.stderr.contains("agent.yaml:2:3: unknown key `targt`, did you mean `target`?"),
        "{wrong:?}"
    );
    assert_eq!(wrong.stdout, "");
}

#[test]
fn a_dry_run_says_what_would_be_observed_and_attaches_nothing() {
    let stage = Stage::start(&options()).unwrap();
    let told = ran(&["agent", "--dry-run", "--json"], 0).stdout;
    let told: Value = serde_json::from_str(&told).unwrap();
    let pid = stage.server.pid();
    let found = told["found"].as_array().unwrap().iter().find(|found| found["root"] == pid);
    let why = found.unwrap_or_else(|| panic!("{told:#}"))["why"].as_str().unwrap();
    assert!(why.contains("is mapped, and it listens on tcp:"), "{why}");
    assert!(!told.to_string().contains(&format!("\"root\":{},", std::process::id())), "{told:#}");
}

#[test]
fn json_lines_are_the_requests() {
    or_skip!();
    let stage = Stage::start(&options()).unwrap();
    let observation = Observation::start(stage.server.pid(), &["--output", "json"]).unwrap();
    let client = ClientOptions {
        url: stage.server.url(),
        stream: StreamMode::Mix,
        traceparent: true,
        ..client(4, 24)
    };
    let records = load(&client).unwrap();
    let report = observation.stop().unwrap();
    let lines = report.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let (steps, lines): (Vec<_>, Vec<_>) = lines.partition(|line| line["type"] == "step");
    assert_eq!(lines.len(), records.len());
    assert_eq!(steps.len() as u64, report.summary.steps.iterations.generic);
    assert!(steps.iter().all(|step| step["adapter"] == "generic"), "no engine is heard");
    for record in &records {
        let line = lines.iter().find(|line| line["trace_id"] == record.trace_id.as_deref().unwrap()).unwrap();
        let span =
            report.spans.iter().find(|span| span.is_server() && line["trace_id"] == *span.trace_id).unwrap();
        let usage = record.usage.unwrap();
        assert_eq!(line["method"], "POST");
        assert_eq!((&line["route"], &line["model"]), (&"/v1/chat/completions".into(), &"workload-1".into()));
        assert_eq!((&line["status"], &line["outcome"]), (&200.into(), &"completed".into()));
        assert_eq!(line["streaming"], record.stream);
        assert_eq!(
            (&line["input_tokens"], &line["output_tokens"]),
            (&usage.prompt_tokens.into(), &usage.completion_tokens.into())
        );
        assert_eq!(line["launches"].as_u64(), span.int("gpuspan.launches"));
        assert_eq!(line["time_to_first_token_s"].as_f64(), span.double("gpuspan.time_to_first_token"));
        assert_eq!((line["duration_s"].as_f64().unwrap() * 1e9).round(), span.duration_ns() as f64);
    }
}

#[test]
fn a_duration_ends_it_and_lines_say_what_was_seen() {
    or_skip!();
    let stage = Stage::start(&options()).unwrap();
    let observation =
        Observation::start(stage.server.pid(), &["--duration", "2s", "--output", "table"]).unwrap();
    let records = load(&ClientOptions { url: stage.server.url(), ..client(4, 8) }).unwrap();
    let report = observation.finish().unwrap();
    assert!((2.0..10.0).contains(&report.summary.window_s), "{}", report.summary.window_s);
    assert_eq!(report.summary.requests.total, records.len() as u64);
    // Standard output is no terminal here: plain lines, without escapes.
    assert!(!report.stdout.contains('\u{1b}') && report.stdout.contains("launches"), "{}", report.stdout);
}
