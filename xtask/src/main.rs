//! `cargo xtask`: everything one does with gpuspan's sources. One file per command.
#![expect(clippy::print_stdout, reason = "a developer's tool talks on its standard output")]

mod bench;
mod demo;
mod ebpf;
mod fuzz;
mod gpu;
mod scale;
mod test;
mod tidy;

use anyhow::Result;
use clap::Parser;
use xtask::{backend, collector, dashboards, server, ship};

/// gpuspan's build, test and measuring commands.
#[derive(Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
enum Command {
    /// Show the main job end to end on this machine, without a GPU: a model server, load, and gpuspan attached.
    Demo(demo::Args),
    /// Run the tests: `cargo xtask test` those that CI always runs, `cargo xtask test servers` those on real servers.
    Test(test::Args),
    /// Check what compilers and linters do not: module docs, sizes, and that pure modules stay pure.
    Tidy(tidy::Args),
    /// Measure what gpuspan costs the target and itself, and compare with the goals; minutes, on a quiet machine.
    Bench(bench::Args),
    /// Run the property tests of the profiler for a given time, with new random input each round.
    Fuzz(fuzz::Args),
    /// Pack one script that tries gpuspan on a machine with an NVIDIA GPU, and run it where there is one.
    Gpu(gpu::Args),
    /// Build the kernel side into `profiler-ebpf/prebuilt/`, or check that what is there is up to date.
    Ebpf(ebpf::Args),
    /// Start a real model server on loopback; the first time it is fetched and built.
    Server(server::Args),
    /// Build a real OpenTelemetry Collector from Debian packages, for tests.
    Collector(collector::Args),
    /// Fetch a real backend (VictoriaMetrics, Prometheus, promtool, Compose) from Debian and print its path, for tests.
    Backend(backend::Args),
    /// Write the dashboards, the rules and the page about them from the catalogue of metrics, or check them.
    Dashboards(dashboards::Args),
    /// Send what 200 agents would to a real collector with the shipped configuration, for five minutes, and count.
    Scale(scale::Args),
    /// Build the release binary, and say what it needs of a machine.
    Release(ship::release::Args),
    /// Make the Debian package in `target/ship`.
    Package(ship::Args),
    /// Make the OCI image in `target/ship`, without a registry; the same bytes each time.
    Image(ship::Args),
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Tidy(args) => tidy::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Gpu(args) => gpu::run(&args),
        Command::Ebpf(args) => ebpf::run(&args),
        Command::Server(args) => server::run(&args),
        Command::Collector(args) => collector::run(&args),
        Command::Backend(args) => backend::run(&args),
        Command::Dashboards(args) => dashboards::run(&args),
        Command::Scale(args) => scale::run(&args),
        Command::Release(args) => ship::release::run(&args),
        Command::Package(args) => ship::package::run(&args),
        Command::Image(args) => ship::image::run(&args),
    }
}
