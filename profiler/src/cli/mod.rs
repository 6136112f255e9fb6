//! The command line: raw arguments → resolved settings → run → exit code.

mod agent;
mod args;
mod attach;
mod check;
mod exit;
mod privileges;
mod record;
mod replay;
mod signals;
mod traces;

use clap::{CommandFactory as _, Parser as _};
use std::io::IsTerminal as _;
use std::process::ExitCode;

/// Parses the command line and runs what it asks for.
#[must_use]
pub fn main() -> ExitCode {
    // Clap ends the program by itself on bad usage, with code 2, and on --help and --version, with 0.
    let args = args::Args::parse();
    start_log(args.verbose);
    let result = match args.command {
        args::Command::Attach(args) => attach::run(&args),
        args::Command::Record(args) => record::run(&args),
        args::Command::Replay(args) => replay::run(&args),
        args::Command::Agent(args) => agent::run(&args),
        args::Command::Check(args) => check::run(&args),
    };
    exit::code(result)
}

/// The command line's own description, for manuals and completions.
#[must_use]
pub fn command() -> clap::Command {
    args::Args::command()
}

/// Log lines go to standard error; `GPUSPAN_LOG` takes the filters of `tracing-subscriber`, and with
/// `GPUSPAN_LOG_FORMAT=json` each is a JSON object.
fn start_log(verbose: u8) {
    let default = match verbose {
        0 => "warn",
        1 => "info",
        2 => "profiler=debug,info",
        _ => "debug",
    };
    let filter = std::env::var("GPUSPAN_LOG").unwrap_or_else(|_| default.to_owned());
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    if std::env::var("GPUSPAN_LOG_FORMAT").is_ok_and(|format| format == "json") {
        log.json().flatten_event(true).init();
    } else {
        log.with_ansi(std::io::stderr().is_terminal()).init();
    }
}
