//! Raw arguments, as close to what was typed as possible. Each flag's help says what changing it brings.

use crate::attach::{Adapters, Detail, LinkKind, RING_BYTES};
use crate::config::Output;
use crate::device::{SHORTEST, Scope};
use crate::metric::Compat;
use crate::probe::Results;
use crate::span::{STEP_SAMPLE, ServerSpan};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// Zero-instrumentation profiler for GPU model servers.
///
/// Attaches to a running, unmodified server and shows its requests and the GPU work they caused. Exit codes: 0 ok,
/// 1 failed while running, 2 bad usage, 3 the machine or target cannot be profiled.
#[derive(Debug, Parser)]
#[command(name = "gpuspan", version, disable_help_subcommand = true, arg_required_else_help = true)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// More log lines on standard error; repeat for more still.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Observe a server: attach to a process and its children until interrupted
    Attach(Box<Attach>),
    /// Record an observation to a file instead of showing it
    Record(Box<Record>),
    /// Show an observation that was recorded, as it would have been shown live; looks at no process
    Replay(Replay),
    /// Observe all model servers of this machine, found as they come and go
    Agent(Agent),
    /// Say what could be observed here, and what would stay blind; attaches nothing
    Check(Check),
}

/// `gpuspan attach`.
#[derive(Debug, clap::Args)]
pub struct Attach {
    /// Process to observe, with its children and those it will have.
    #[arg(long, short, value_name = "PID")]
    pub pid: u32,
    /// Stop after this time, such as 500ms, 10s or 5m; without it, when interrupted or when the target ends.
    #[arg(long, short, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// What goes to standard output: a live table, one JSON object a request, or nothing.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
    /// Write one JSON object with all counts, losses and own cost to this file at the end.
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
    /// Send traces and metrics to this OTLP endpoint; the OTEL_EXPORTER_OTLP_* variables say the same and more.
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Write traces and metrics to this file as lines of OTLP/JSON; what was in it is replaced.
    #[arg(long, value_name = "FILE")]
    pub otlp_file: Option<PathBuf>,
    /// Let Prometheus and others that scrape fetch the metrics at http://ADDR/metrics, such as 127.0.0.1:9464: whoever
    /// reaches the address reads them. Port 0 takes any that is free, which --ready-file and the log name.
    #[arg(long, value_name = "ADDR", env = "GPUSPAN_PROMETHEUS_LISTEN")]
    pub prometheus_listen: Option<String>,
    /// Also record the observation to this file, for `gpuspan replay`; no text of requests or answers is in it.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Which traces there are.
    #[command(flatten)]
    pub traces: Traces,
    /// Which metrics there are.
    #[command(flatten)]
    pub metrics: Metrics,
    /// How devices are read.
    #[command(flatten)]
    pub devices: Devices,
    /// How it is probed.
    #[command(flatten)]
    pub probing: Probing,
}

/// `gpuspan agent`.
#[derive(Debug, clap::Args)]
pub struct Agent {
    /// Configuration, as YAML; without it the defaults stand, which observe every model server and answer at
    /// 127.0.0.1:9464.
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Say what the configuration comes to, or what is wrong with it, and end: with 0 or 2.
    #[arg(long)]
    pub check_config: bool,
    /// Say what would be observed, under which name and why, and what was passed over and why, and end. Attaches nothing.
    #[arg(long, conflicts_with = "check_config")]
    pub dry_run: bool,
    /// The dry run as one JSON object.
    #[arg(long, requires = "dry_run")]
    pub json: bool,
    /// Create this file once the agent runs, with the address of its pages in it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["check_config", "dry_run"])]
    pub ready_file: Option<PathBuf>,
}

/// `gpuspan record`.
#[derive(Debug, clap::Args)]
pub struct Record {
    /// Process to observe, with its children and those it will have.
    #[arg(long, short, value_name = "PID")]
    pub pid: u32,
    /// Where the recording goes; what was in the file is replaced. No text of requests or answers is in it.
    #[arg(long, short = 'o', value_name = "FILE")]
    pub output_file: PathBuf,
    /// Stop after this time, such as 500ms, 10s or 5m; without it, when interrupted or when the target ends.
    #[arg(long, short, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Write one JSON object with all counts, losses and own cost to this file at the end.
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
    /// How devices are read.
    #[command(flatten)]
    pub devices: Devices,
    /// How it is probed.
    #[command(flatten)]
    pub probing: Probing,
}

/// `gpuspan replay`.
#[derive(Debug, clap::Args)]
pub struct Replay {
    /// The recording.
    #[arg(value_name = "FILE")]
    pub recording: PathBuf,
    /// What goes to standard output: lines, one JSON object a request, or nothing.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
    /// Write the summary of the observation to this file, with what is to be known of the recording.
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
    /// Send traces and metrics to this OTLP endpoint, with the times at which they were observed; the
    /// OTEL_EXPORTER_OTLP_* variables say the same and more.
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Write traces and metrics to this file as lines of OTLP/JSON; what was in it is replaced.
    #[arg(long, value_name = "FILE")]
    pub otlp_file: Option<PathBuf>,
    /// Which traces there are: the spans are those of the observation where these are the same.
    #[command(flatten)]
    pub traces: Traces,
    /// Which metrics there are.
    #[command(flatten)]
    pub metrics: Metrics,
}

/// How a process is probed.
#[derive(Debug, clap::Args)]
pub struct Probing {
    /// Size of the ring between kernel and user space, a power of two: larger outlasts longer stalls of gpuspan,
    /// smaller saves memory and loses records sooner (losses are counted).
    #[arg(long, value_name = "BYTES", default_value_t = RING_BYTES, value_parser = ring_bytes)]
    pub ring_bytes: u32,
    /// How probes are attached: perf links work on older kernels but take 0.1 s a probe to detach.
    #[arg(long, value_enum, default_value_t, value_name = "KIND")]
    pub links: LinkKind,
    /// Hook system calls by the raw tracepoint even where the BTF one can be had (dearer for other processes).
    #[arg(long)]
    pub raw_tracepoint: bool,
    /// How much is sent from the kernel: a record a call, or sums of launches and copies, which cost less. SIGUSR1
    /// changes between them while observing.
    #[arg(long, value_enum, default_value_t, value_name = "LEVEL")]
    pub detail: Detail,
    /// Of which calls failures are told: some, of those reported at return anyway (allocations, waits, graphs), or
    /// all, by a return probe at each launch and copy too, which makes those half as dear again.
    #[arg(long, value_enum, default_value_t, value_name = "WHICH")]
    pub results: Results,
    /// Whether servers are listened to inside, where an adapter knows them: exact queues, steps and tokens for a probe
    /// on each message or batch; off infers them from the outside.
    #[arg(long, value_enum, default_value_t, value_name = "WHICH")]
    pub adapters: Adapters,
    /// Take the CPU stack of one launch in N, such as 1/100, to see who launches; without it none is taken.
    #[arg(long, value_name = "1/N", value_parser = stack_every, default_value = "0", hide_default_value = true)]
    pub stacks: u32,
    /// Create this file once all probes are in place, for scripts that start their load then.
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Use this kernel object instead of the built-in one (a debug build by `cargo xtask ebpf --debug`).
    #[arg(long, value_name = "FILE", hide = true)]
    pub ebpf_object: Option<PathBuf>,
}

/// How devices are read, by NVML and amdgpu.
#[derive(Debug, clap::Args)]
pub struct Devices {
    /// Which devices are read: those that the target uses, all of the machine, or none, which loads no library and leaves
    /// requests without energy.
    #[arg(long = "device", value_enum, default_value_t, value_name = "WHICH")]
    pub scope: Scope,
    /// How often devices are read; what is dear ten times less often. Shorter follows changes closer; what would take more
    /// than 0.5 % of a core is read less often all the same.
    #[arg(long = "device-interval", value_name = "TIME", value_parser = interval, default_value = "1s")]
    pub interval: Duration,
    /// NVIDIA's management library, where it is not found by its name libnvidia-ml.so.1, as in a container.
    #[arg(long, value_name = "FILE", env = "GPUSPAN_NVML")]
    pub nvml: Option<PathBuf>,
    /// Where sysfs is mounted.
    #[arg(long, value_name = "FOLDER", env = "GPUSPAN_SYS", default_value = "/sys", hide = true)]
    pub sys: PathBuf,
}

/// Which traces there are. `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` say which share of the requests.
#[derive(Debug, Default, clap::Args)]
pub struct Traces {
    /// Show one engine step in N in a trace of its own, linked with its requests: 1 shows all, at hundreds of spans a
    /// second; 0 none.
    #[arg(long, value_name = "N", default_value_t = STEP_SAMPLE)]
    pub step_sample: u64,
    /// Keep the traces of requests that took this long or longer, such as 2s, also where OTEL_TRACES_SAMPLER_ARG leaves
    /// them out; failed ones are always kept.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub keep_slow: Option<Duration>,
    /// Trace requests also when their caller's `traceparent` says that it does not sample them.
    #[arg(long)]
    pub ignore_unsampled: bool,
    /// Whether requests have SERVER spans: not where the server emits its own (they are INTERNAL then), always, or never.
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub server_span: ServerSpan,
}

/// Which metrics there are besides those of `docs/metrics.md`.
#[derive(Debug, Default, clap::Args)]
pub struct Metrics {
    /// Tell metrics under the names of another program, too, for the dashboards that it has; each costs a time series more.
    #[arg(long, value_enum, value_name = "PROGRAM")]
    pub compat: Option<Compat>,
}

/// `gpuspan check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// Process to look at; without it only the machine is checked.
    #[arg(long, short, value_name = "PID")]
    pub pid: Option<u32>,
    /// NVIDIA's management library, where it is not found by its name libnvidia-ml.so.1, as in a container.
    #[arg(long, value_name = "FILE", env = "GPUSPAN_NVML")]
    pub nvml: Option<PathBuf>,
    /// Where sysfs is mounted.
    #[arg(long, value_name = "FOLDER", env = "GPUSPAN_SYS", default_value = "/sys", hide = true)]
    pub sys: PathBuf,
    /// One JSON object instead of lines.
    #[arg(long)]
    pub json: bool,
    /// Also list every function of each GPU library: where it would be probed, why there, and what kind of cost that is.
    #[arg(long)]
    pub symbols: bool,
}

/// `500ms`, `10s`, `5m`, `1h`, or seconds without a unit.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or("");
    let factor = match unit {
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("`{unit}` is no unit of time: use ms, s, m or h")),
    };
    let value: f64 =
        digits.parse().map_err(|_| "a duration is a number and a unit, such as 10s".to_owned())?;
    Duration::try_from_secs_f64(value * factor).map_err(|_| "the duration is out of range".to_owned())
}

/// A duration that devices can follow.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < SHORTEST {
        return Err(format!("devices make no new figures within less than {} ms", SHORTEST.as_millis()));
    }
    Ok(interval)
}

/// `1/N`, or 0 for none.
fn stack_every(text: &str) -> Result<u32, String> {
    let every = text.strip_prefix("1/").unwrap_or(if text == "0" { text } else { "" });
    let wrong = |_| "a sample is written 1/N, such as 1/100; 1/1 takes the stack of every launch".to_owned();
    let every: u32 = every.parse().map_err(wrong)?;
    if every == 0 && text != "0" {
        Err("one in 0 cannot be taken: leave --stacks out".to_owned())
    } else {
        Ok(every)
    }
}

fn ring_bytes(text: &str) -> Result<u32, String> {
    let bytes: u32 = text.parse().map_err(|_| "the size is a number of bytes".to_owned())?;
    if bytes.is_power_of_two() && (4096..=1 << 30).contains(&bytes) {
        return Ok(bytes);
    }
    Err("the size must be a power of two between 4096 and 1073741824".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn durations() {
        for (text, millis) in
            [("500ms", 500), ("10s", 10_000), ("2", 2_000), ("1.5m", 90_000), ("1h", 3_600_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "5 days", "-1s", "1e400s", "nan"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn intervals_of_devices() {
        assert_eq!(interval("100ms"), Ok(SHORTEST));
        assert!(interval("99ms").is_err() && interval("x").is_err());
        let default = Args::try_parse_from(["gpuspan", "record", "--pid", "1", "-o", "x"]).unwrap();
        let Command::Record(record) = default.command else { panic!("{default:?}") };
        assert_eq!(record.devices.interval, crate::device::INTERVAL);
    }

    #[test]
    fn samples_of_stacks() {
        assert_eq!((stack_every("1/100"), stack_every("1/1"), stack_every("0")), (Ok(100), Ok(1), Ok(0)));
        for text in ["100", "1/0", "2/3", "1/", "1/x", ""] {
            assert!(stack_every(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ring_sizes() {
        assert_eq!(ring_bytes("65536"), Ok(65536));
        for text in ["0", "1000", "2147483648", "x"] {
            assert!(ring_bytes(text).is_err(), "{text}");
        }
    }
}
