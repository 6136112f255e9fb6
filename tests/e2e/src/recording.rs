//! Recordings: replays of them, what is in them, and how two accounts of the same observation compare.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use flate2::write::GzEncoder;
use flate2::{Compression, Crc};
use serde_json::Value;
use tempfile::TempDir;

use crate::observation::Report;
use crate::program::{Ended, gpuspan, run_command};

/// What a replay left.
#[derive(Debug)]
pub struct Replay {
    /// How it ended, and its output.
    pub ended: Ended,
    /// `--otlp-file`.
    pub otlp: String,
    /// `--summary`.
    pub summary: String,
}

/// Replays a recording with nothing of the environment.
///
/// # Errors
/// When it cannot be started, or leaves no files.
pub fn replay(recording: &Path, output: &str) -> Result<Replay> {
    replay_by(Command::new("env").arg("-i").arg(gpuspan()?), recording, output)
}

/// Replays a recording on what looks like another machine: with another name, and another set of processes.
///
/// # Errors
/// When it cannot be started, or leaves no files.
pub fn replay_elsewhere(recording: &Path, output: &str) -> Result<Replay> {
    let script = "hostname elsewhere && exec env -i \"$@\"";
    let mut unshare = Command::new("unshare");
    unshare.args(["--uts", "--pid", "--net", "--fork", "--mount-proc", "sh", "-c", script, "sh"]);
    replay_by(unshare.arg(gpuspan()?), recording, output)
}

fn replay_by(command: &mut Command, recording: &Path, output: &str) -> Result<Replay> {
    let folder = TempDir::new()?;
    let file = |name: &str| folder.path().join(name);
    command.args(["replay".as_ref(), recording.as_os_str(), "--output".as_ref(), output.as_ref()]);
    command.args(["--otlp-file".as_ref(), file("otlp.jsonl").as_os_str()]);
    command.args([OsStr::new("--summary"), file("summary.json").as_os_str()]);
    let ended = run_command(command)?;
    let text =
        |name: &str| std::fs::read_to_string(file(name)).with_context(|| format!("no {name}: {ended:?}"));
    Ok(Replay { otlp: text("otlp.jsonl")?, summary: text("summary.json")?, ended })
}

/// What is in a recording.
///
/// # Errors
/// When it cannot be unpacked.
pub fn unpack(recording: &Path) -> Result<Vec<u8>> {
    let output = Command::new("gzip").arg("-dc").arg(recording).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// The lines with spans, sorted: batches of them as they were exported.
#[must_use]
pub fn spans(otlp: &str) -> Vec<&str> {
    let mut lines: Vec<_> = otlp.lines().filter(|line| line.contains("resourceSpans")).collect();
    lines.sort_unstable();
    lines
}

/// All metrics as they were told last, without gpuspan's own and without examples, which are told once. What processes use
/// of the machine is looked up and not recorded.
///
/// # Errors
/// When a line is no JSON.
pub fn metrics(otlp: &str) -> Result<Vec<Value>> {
    let mut last: Vec<(u64, Vec<Value>)> = Vec::new();
    for line in otlp.lines().filter(|line| line.contains("resourceMetrics")) {
        let line: Value = serde_json::from_str(line)?;
        for metrics in line.get("resourceMetrics").and_then(Value::as_array).into_iter().flatten() {
            if is_own(metrics) {
                continue;
            }
            let mut metrics = metrics.clone();
            let time = newest(&metrics);
            strip(&mut metrics);
            if !keep_observed(&mut metrics) {
                continue;
            }
            match last.last_mut().filter(|(of, _)| *of == time) {
                Some((_, all)) => all.push(metrics),
                None => last.push((time, vec![metrics])),
            }
        }
    }
    last.sort_by_key(|(time, _)| *time);
    Ok(last.pop().map(|(_, metrics)| metrics).unwrap_or_default())
}

/// Takes out what was looked up; false when nothing is left.
fn keep_observed(metrics: &mut Value) -> bool {
    let scopes = metrics.get_mut("scopeMetrics").and_then(Value::as_array_mut).into_iter().flatten();
    let mut left = 0;
    for metrics in scopes.filter_map(|scope| scope.get_mut("metrics")?.as_array_mut()) {
        let name = |metric: &Value| metric.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        metrics.retain(|metric| !name(metric).starts_with("process."));
        left += metrics.len();
    }
    left > 0
}

/// gpuspan's metrics of itself are about a process that is not observed.
fn is_own(metrics: &Value) -> bool {
    let attributes = metrics.pointer("/resource/attributes").and_then(Value::as_array);
    !attributes
        .into_iter()
        .flatten()
        .any(|attribute| attribute.get("key").is_some_and(|key| key == "gpuspan.server"))
}

fn newest(value: &Value) -> u64 {
    match value {
        Value::Object(fields) => {
            let own = fields.get("timeUnixNano").and_then(Value::as_str).and_then(|time| time.parse().ok());
            fields.values().map(newest).max().unwrap_or(0).max(own.unwrap_or(0))
        }
        Value::Array(values) => values.iter().map(newest).max().unwrap_or(0),
        _ => 0,
    }
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("exemplars");
            fields.values_mut().for_each(strip);
        }
        Value::Array(values) => values.iter_mut().for_each(strip),
        _ => {}
    }
}

/// A summary without what a replay has of its own: what it exported, and what it says of the recording.
///
/// # Errors
/// When it is no JSON.
pub fn summary(text: &str) -> Result<Value> {
    let mut summary: Value = serde_json::from_str(text)?;
    let fields = summary.as_object_mut().context("a summary is an object")?;
    fields.remove("recording");
    if let Some(loss) = fields.get_mut("loss").and_then(Value::as_object_mut) {
        loss.remove("export");
    }
    Ok(summary)
}

/// Sorted lines: those of requests and of iterations take turns as they are looked at.
#[must_use]
pub fn lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// Asserts that a replay tells what the observation told: the same spans and lines, the same metrics and sums at the end.
///
/// # Panics
/// When it does not.
pub fn assert_same(replay: &Replay, live: &Report) {
    assert_eq!(replay.ended.code, Some(0), "{:?}", replay.ended);
    assert_eq!(spans(&replay.otlp), spans(&live.otlp));
    assert!(!spans(&live.otlp).is_empty());
    let told = |text| metrics(text).map_err(|error| error.to_string());
    assert_eq!(told(&replay.otlp), told(&live.otlp));
    assert!(told(&live.otlp).is_ok_and(|metrics| !metrics.is_empty()));
    let sums = |text| summary(text).map_err(|error| error.to_string());
    assert_eq!(sums(&replay.summary), sums(&live.summary_text));
    assert_eq!(lines(&replay.ended.stdout), lines(&live.stdout));
    let account = serde_json::from_str::<Value>(&replay.summary).ok();
    let account = account.as_ref().and_then(|summary| summary.get("recording"));
    let of = |name: &str| account.and_then(|account| account.get(name));
    assert_eq!((of("complete"), of("unasked")), (Some(&true.into()), Some(&0.into())), "{account:?}");
}

/// Where the kept recordings lie.
#[must_use]
pub fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/recordings").join(name)
}

/// Takes this machine's name and folders out of a recording that is to be kept, and packs it as small as it gets.
///
/// # Errors
/// When it is no recording.
pub fn neutralise(recording: &Path) -> Result<()> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let bytes = unpack(recording)?;
    let (mark, mut records) = bytes.split_at_checked(MARK).context("it has no mark")?;
    let mut out = GzEncoder::new(std::fs::File::create(recording)?, Compression::best());
    out.write_all(mark)?;
    while let Some((length, rest)) = records.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let (record, behind) =
            rest.get(4..).and_then(|rest| rest.split_at_checked(length)).context("a record is cut off")?;
        let mut value: Value = rmp_serde::from_slice(record)?;
        rename(&mut value, host.trim());
        let record = rmp_serde::to_vec_named(&value)?;
        let mut sum = Crc::new();
        sum.update(&record);
        out.write_all(&u32::try_from(record.len())?.to_le_bytes())?;
        out.write_all(&sum.sum().to_le_bytes())?;
        out.write_all(&record)?;
        records = behind;
    }
    out.finish()?;
    Ok(())
}

/// Bytes of the mark with the version (`docs/recording.md`).
const MARK: usize = 12;

fn rename(value: &mut Value, host: &str) {
    match value {
        Value::String(text) if text == host => *text = "host".to_owned(),
        Value::String(text) if text.starts_with(&format!("{host}.")) => {
            *text = text.replacen(host, "host", 1);
        }
        Value::String(text) => {
            let path = Path::new(&*text);
            // A route is a path too, and no file.
            if let (true, true, Some(name)) = (path.is_absolute(), path.exists(), path.file_name()) {
                *text = format!("/opt/{}", name.to_string_lossy());
            }
        }
        Value::Object(fields) => fields.values_mut().for_each(|value| rename(value, host)),
        Value::Array(values) => values.iter_mut().for_each(|value| rename(value, host)),
        _ => {}
    }
}
