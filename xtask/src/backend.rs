//! Real backends, which judge what gpuspan sends and what dashboards ask: VictoriaMetrics takes OTLP and answers
//! PromQL, Prometheus scrapes and keeps exemplars, promtool checks rules, Compose checks the stack's file.
//!
//! In: Debian's packages. Out: programs in the user's cache. Absent: anything installed, and starting them.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::debian::{Apt, unpack};
use crate::server::cache::Kept;

/// Where all of them are, and new enough: Prometheus 3 and Compose 2.40. They need no newer C library than Debian 12's.
const SUITE: &str = "forky";

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Which program.
    #[arg(value_enum)]
    name: Name,
}

/// Prints the program's path; the first time all of them are fetched.
pub fn run(args: &Args) -> Result<()> {
    println!("{}", path(args.name)?.display());
    Ok(())
}

/// A program of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Name {
    /// Takes OTLP over HTTP and answers PromQL; keeps no exemplars.
    VictoriaMetrics,
    /// Scrapes, keeps exemplars, evaluates rules. Debian's has no OTLP receiver.
    Prometheus,
    /// Checks Prometheus's configuration and rules.
    Promtool,
    /// Checks Compose files.
    DockerCompose,
}

impl Name {
    const ALL: [Self; 4] = [Self::VictoriaMetrics, Self::Prometheus, Self::Promtool, Self::DockerCompose];

    /// Its package and its program.
    fn text(self) -> &'static str {
        match self {
            Self::VictoriaMetrics => "victoria-metrics",
            Self::Prometheus => "prometheus",
            Self::Promtool => "promtool",
            Self::DockerCompose => "docker-compose",
        }
    }

    /// The variable that names one that the user has.
    fn variable(self) -> &'static str {
        match self {
            Self::VictoriaMetrics => "GPUSPAN_VICTORIA_METRICS",
            Self::Prometheus => "GPUSPAN_PROMETHEUS",
            Self::Promtool => "GPUSPAN_PROMTOOL",
            Self::DockerCompose => "GPUSPAN_DOCKER_COMPOSE",
        }
    }
}

/// The program's path: from the environment, or the cache, which is filled the first time (100 MB, seconds). The error
/// is `debian::Unavailable` when this machine has no way to the packages.
pub fn path(name: Name) -> Result<PathBuf> {
    if let Some(path) = env::var_os(name.variable()) {
        return Ok(path.into());
    }
    let kept = Kept::open("backends")?;
    let packages = Name::ALL.map(|name| format!("{}/{SUITE}", name.text()));
    kept.step("packages", &packages.join(" "), || {
        let work = kept.path("work");
        // What an attempt that was cut off has left may be incomplete.
        std::fs::remove_dir_all(&work).ok();
        let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
        Apt::new(&work, &[SUITE])?.download(&packages, &work.join("packages"))?;
        unpack(&work.join("packages"), &kept.path("root"))?;
        std::fs::remove_dir_all(&work).context("failed to clean up")
    })?;
    Ok(kept.path("root/usr/bin").join(name.text()))
}

/// Grafana's schema of dashboards as TypeScript types, of the release that `deploy/compose` starts.
const SCHEMA: &str = "@grafana/schema@12.4.11";
const TYPESCRIPT: &str = "typescript@5.9.3";

/// A folder where `node_modules` has Grafana's schema and a compiler for it, fetched by npm the first time.
pub fn grafana_schema() -> Result<PathBuf> {
    let kept = Kept::open("grafana-schema")?;
    kept.step("npm", &format!("{SCHEMA} {TYPESCRIPT}"), || {
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-fund", "--no-audit", "--prefix"]).arg(kept.path("."));
        kept.run("npm", npm.args([SCHEMA, TYPESCRIPT]))
    })?;
    Ok(kept.path("."))
}
