//! Raw arguments, as close to what was typed as possible. Each flag's help says what changing it brings.

use crate::attach::{Detail, LinkKind, RING_BYTES};
use crate::config::Output;
use crate::probe::Results;
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

/// `gpuspan check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// Process to look at; without it only the machine is checked.
    #[arg(long, short, value_name = "PID")]
    pub pid: Option<u32>,
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
