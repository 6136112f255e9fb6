//! Recordings: a replay tells what the observation told, here and elsewhere; no word of anybody is in the file; a file
//! that was cut off or damaged is replayed up to there, and says so.
//!
//! `RECORD=1` makes the kept recordings anew, `UPDATE=1` renews what their replays must tell.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use e2e::program::Ended;
use e2e::recording::{self, Replay, kept};
use e2e::{Observation, Report, Stage, or_skip};
use serde_json::Value;
use tempfile::TempDir;
use workload::client::{Range, StreamMode};
use workload::options::Graphs;
use workload::{ClientOptions, ServerOptions, load};

use crate::checks::{client, options};
use crate::cli::{golden, ran};
use crate::requests::{post, send};

/// Observes and records a server under load.
fn recorded(path: &Path, options: &ServerOptions, client: ClientOptions, arguments: &[&str]) -> Report {
    let stage = Stage::start(options).unwrap();
    let record = ["--record", path.to_str().unwrap(), "--output", "json"];
    let observation = Observation::start(stage.server.pid(), &[&record, arguments].concat()).unwrap();
    load(&ClientOptions { url: stage.server.url(), ..client }).unwrap();
    observation.stop().unwrap()
}

#[test]
fn a_replay_tells_what_the_observation_told() {
    or_skip!();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("recording");
    let mixed = || ClientOptions { stream: StreamMode::Mix, traceparent: true, ..client(8, 48) };
    let graphs = ServerOptions { graphs: Graphs::Lazy, ..options() };
    for (options, arguments) in [
        (options(), &["--stacks", "1/10"][..]),
        (graphs, &["--results", "all"]),
        (options(), &["--detail", "aggregate"]),
    ] {
        let live = recorded(&path, &options, mixed(), arguments);
        let first = recording::replay(&path, "json").unwrap();
        recording::assert_same(&first, &live);
        let second = recording::replay(&path, "json").unwrap();
        let elsewhere = recording::replay_elsewhere(&path, "json").unwrap();
        for again in [second, elsewhere] {
            assert_eq!(again.otlp, first.otlp, "byte by byte");
            assert_eq!(again.summary, first.summary);
            assert_eq!(again.ended.stdout, first.ended.stdout);
        }
    }
}

/// Clients that leave, requests that fail, a server that ends under way.
#[test]
fn what_goes_wrong_is_told_again_too() {
    or_skip!();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("recording");
    let stage = Stage::start(&options()).unwrap();
    let record = ["--record", path.to_str().unwrap(), "--output", "json"];
    let observation = Observation::start(stage.server.pid(), &record).unwrap();
    let leaving = ClientOptions {
        url: stage.server.url(),
        max_tokens: Range { min: 20, max: 40 },
        abort_every: 2,
        ..client(8, 32)
    };
    load(&leaving).unwrap();
    for request in
        [post("{", "connection: close\r\n"), "GET /nothing HTTP/1.1\r\nconnection: close\r\n\r\n".into()]
    {
        send(stage.server.port(), request.as_bytes());
    }
    drop(stage);
    let live = observation.finish().unwrap();
    recording::assert_same(&recording::replay(&path, "json").unwrap(), &live);
}

#[test]
fn no_word_of_anybody_is_in_a_recording() {
    or_skip!();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("recording");
    let stage = Stage::start(&options()).unwrap();
    let observation = Observation::start(stage.server.pid(), &["--record", path.to_str().unwrap()]).unwrap();
    let word = "xylophone";
    let body = format!(
        r#"{{"model":"workload-1","messages":[{{"role":"user","content":"{word} {word}"}}],"max_tokens":5,"stream":true,"tools":[{{"type":"function","function":{{"name":"{word}"}}}}]}}"#
    );
    let headers = format!("connection: close\r\nauthorization: Bearer {word}\r\n");
    let answer = send(stage.server.port(), post(&body, &headers).as_bytes());
    let report = observation.stop().unwrap();
    assert_eq!(report.summary.requests.total, 1);
    let file = recording::unpack(&path).unwrap();
    let holds = |part: &[u8]| file.windows(part.len()).any(|window| window == part);
    assert!(
        holds(b"/v1/chat/completions") && holds(b"cudaLaunchKernel"),
        "the search would find nothing in nothing"
    );
    assert!(!holds(word.as_bytes()));
    // Every word of the answer's texts.
    let deltas =
        answer.lines().filter_map(|line| line.strip_prefix("data: ")?.split("\"content\":\"").nth(1));
    let texts: Vec<_> =
        deltas.filter_map(|rest| rest.split('"').next()).filter(|text| text.len() > 3).collect();
    assert!(!texts.is_empty(), "{answer}");
    for text in texts {
        assert!(!holds(text.as_bytes()), "{text}");
    }
}

#[test]
fn a_recording_that_was_cut_off_is_replayed_up_to_there() {
    or_skip!();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("recording");
    let live = recorded(&path, &options(), client(4, 64), &[]);
    let whole = std::fs::read(&path).unwrap();
    let summary = |replay: &Replay| serde_json::from_str::<Value>(&replay.summary).unwrap();
    std::fs::write(&path, &whole[..whole.len() * 2 / 3]).unwrap();
    let cut = recording::replay(&path, "none").unwrap();
    fails(&cut.ended, "the recording ends in the middle, in record");
    let (told, all) = (span_ids(&cut.otlp), span_ids(&live.otlp));
    assert!(!told.is_empty() && told.is_subset(&all) && told.len() < all.len(), "{told:?}");
    let account = &summary(&cut)["recording"];
    assert_eq!(account["complete"], false);
    assert!(account["broken"].as_str().unwrap().contains("cut off"), "{account}");

    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 0x55;
    std::fs::write(&path, damaged).unwrap();
    let damaged = recording::replay(&path, "none").unwrap();
    fails(&damaged.ended, "damaged in record");
    assert_eq!(summary(&damaged)["recording"]["complete"], false);
}

fn span_ids(otlp: &str) -> BTreeSet<&str> {
    otlp.split("\"spanId\":\"").skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

fn fails(ended: &Ended, words: &str) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(words) && !ended.stderr.contains("panicked"), "{ended:?}");
}

/// What was flushed can be replayed: at most the last second is missing.
#[test]
fn a_recorder_that_was_killed_leaves_what_it_had() {
    or_skip!();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("recording");
    let stage = Stage::start(&options()).unwrap();
    let observation = Observation::start(stage.server.pid(), &["--record", path.to_str().unwrap()]).unwrap();
    load(&ClientOptions { url: stage.server.url(), ..client(4, 8) }).unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    observation.kill().unwrap();
    let replay = recording::replay(&path, "json").unwrap();
    fails(&replay.ended, "gpuspan was killed while it wrote it");
    let told = replay.ended.stdout.lines().filter(|line| line.contains("\"type\":\"request\""));
    assert_eq!(told.count(), 8);
}

/// A disk without room ends the recording, not the observation.
#[test]
fn a_file_that_cannot_be_written_costs_the_recording_alone() {
    or_skip!();
    let stage = Stage::start(&options()).unwrap();
    let folder = TempDir::new().unwrap();
    let otlp = folder.path().join("otlp");
    let summary = folder.path().join("summary");
    let pid = stage.server.pid().to_string();
    let attach =
        ["attach", "--pid", &pid, "--output", "none", "--duration", "2500ms", "--record", "/dev/full"];
    let files = ["--otlp-file", otlp.to_str().unwrap(), "--summary", summary.to_str().unwrap()];
    let ended = ran(&[&attach[..], &files].concat(), 1);
    assert!(ended.stderr.contains("/dev/full") && ended.stderr.contains("No space left"), "{}", ended.stderr);
    let summary: Value = serde_json::from_str(&std::fs::read_to_string(summary).unwrap()).unwrap();
    assert_eq!(summary["loss"]["balanced"], true);
    let nowhere = ["record", "--pid", &pid, "--output-file", "/nonexistent/recording"];
    let ended = ran(&nowhere, 1);
    assert!(ended.stderr.contains("/nonexistent/recording"), "{}", ended.stderr);
}

#[test]
fn a_recording_is_made_alone_and_shown_later() {
    or_skip!();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("recording");
    let stage = Stage::start(&options()).unwrap();
    let pid = stage.server.pid().to_string();
    let url = stage.server.url();
    let ready = folder.path().join("ready");
    let loading = std::thread::spawn({
        let ready = ready.clone();
        move || {
            e2e::wait::until("the probes' being in place", || Ok(ready.exists().then_some(()))).unwrap();
            load(&ClientOptions { url, ..client(4, 12) }).unwrap()
        }
    });
    let record = ["record", "-p", &pid, "-d", "4s", "-o", path.to_str().unwrap(), "--ready-file"];
    let ended = ran(&[&record[..], &[ready.to_str().unwrap()]].concat(), 0);
    assert_eq!(ended.stdout, "");
    loading.join().unwrap();
    let shown = ran(&["replay", path.to_str().unwrap()], 0);
    assert!(shown.stdout.contains("requests  12 (12 completed)"), "{}", shown.stdout);
    assert!(shown.stdout.contains("nothing lost, all counts add up"), "{}", shown.stdout);
}

#[test]
fn what_is_no_recording_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "hello, this is a text").unwrap();
    let ended = ran(&["replay", path.to_str().unwrap()], 1);
    assert!(ended.stderr.contains("it is no recording of gpuspan"), "{}", ended.stderr);
    let ended = ran(&["replay", "/nonexistent"], 1);
    assert!(ended.stderr.contains("No such file"), "{}", ended.stderr);
}

/// A replay waits for a backend that is slow, and not for one that is not there.
#[test]
fn a_dead_backend_is_given_up() {
    let folder = TempDir::new().unwrap();
    let summary = folder.path().join("summary");
    let recording = kept("workload.gpuspan");
    let files = ["replay", recording.to_str().unwrap(), "--summary", summary.to_str().unwrap()];
    // Nobody listens on the port of `discard`.
    let ended = ran(&[&files[..], &["--otlp-endpoint", "http://127.0.0.1:9"]].concat(), 0);
    assert!(ended.took < Duration::from_secs(30), "{:?}", ended.took);
    let summary: Value = serde_json::from_str(&std::fs::read_to_string(summary).unwrap()).unwrap();
    let traces = &summary["loss"]["export"]["otlp.traces"];
    assert!(traces["produced"].as_u64().unwrap() > 0 && traces["exported"] == 0, "{traces}");
    assert_eq!(summary["loss"]["balanced"], true);
}

/// A recording of the workload server that is kept: it is told as it was told before, whatever has changed.
#[test]
fn the_kept_recording_of_the_workload_server_is_told_as_ever() {
    let path = kept("workload.gpuspan");
    if std::env::var_os("RECORD").is_some() {
        or_skip!();
        let few =
            ClientOptions { stream: StreamMode::Mix, max_tokens: Range { min: 3, max: 6 }, ..client(3, 6) };
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        recorded(&path, &options(), few, &[]);
        recording::neutralise(&path).unwrap();
    }
    told_as_ever(&path, "workload");
}

/// The same of a real llama-server on the stand-in libraries, with what its adapter heard inside.
/// `RECORD=1 cargo xtask test servers llama` makes it.
#[test]
fn the_kept_recording_of_llama_server_is_told_as_ever() {
    told_as_ever(&kept("llama.gpuspan"), "llama");
}

/// Compares what a kept recording tells with what it told.
fn told_as_ever(path: &Path, name: &str) {
    let replay = recording::replay(path, "none").unwrap();
    assert_eq!(replay.ended.code, Some(0), "{:?}", replay.ended);
    let lines: Vec<Value> =
        recording::spans(&replay.otlp).into_iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    golden(&format!("recordings/{name}.spans.json"), &(serde_json::to_string_pretty(&lines).unwrap() + "\n"));
    let summary = recording::summary(&replay.summary).unwrap();
    golden(
        &format!("recordings/{name}.summary.json"),
        &(serde_json::to_string_pretty(&summary).unwrap() + "\n"),
    );
}
