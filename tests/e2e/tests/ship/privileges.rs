//! What deploy/ grants is enough: as nobody, with the four capabilities of the manifest and the unit, everything is counted
//! that root counts.

use std::process::Command;

use e2e::{Observation, Stage, program};
use workload::client::Range;
use workload::{ClientOptions, ServerOptions, load};

use crate::scale::batch::Recorded;

/// As `setpriv` writes what deploy/systemd/gpuspan-agent.service has.
const CAPABILITIES: &str = "-all,+bpf,+perfmon,+sys_ptrace,+dac_read_search";

#[test]
fn four_capabilities_are_enough() {
    e2e::or_skip!();
    if Command::new("setpriv").arg("--version").output().is_err() {
        println!("skipped: no setpriv (Debian package util-linux)");
        return;
    }
    let stage = Stage::start(&ServerOptions { kernel_ns: 5_000, ..ServerOptions::default() }).unwrap();
    let observation = Observation::start_by(as_nobody(), stage.server.pid(), &[]).unwrap();
    let client = ClientOptions {
        requests: 40,
        concurrency: 8,
        prompt_words: Range { min: 16, max: 400 },
        max_tokens: Range { min: 50, max: 200 },
        ..ClientOptions::new(stage.server.url())
    };
    let before = stage.device().unwrap();
    let records = load(&client).unwrap();
    let after = stage.device().unwrap();
    let report = observation.stop().unwrap();
    let launched = after.launches() - before.launches();
    assert!(launched > 0);
    assert_eq!(report.summary.launches.total, launched);
    assert_eq!(report.summary.requests.total, records.len() as u64);
    // The shares of a batch of eight, some 125 tokens each: a figure for docs/scale.md.
    println!("workload, live: {}", Recorded::read(&report.otlp).figures());
}

/// gpuspan as systemd and kubelet start it; tracefs is where a host has it, in a mount namespace of the test's own.
fn as_nobody() -> Command {
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "sh",
        "-c",
        "mount -t tracefs tracefs /sys/kernel/tracing && exec \"$@\"",
        "sh",
    ]);
    command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
    for set in ["inh-caps", "ambient-caps", "bounding-set"] {
        command.arg(format!("--{set}={CAPABILITIES}"));
    }
    command.arg(program::gpuspan().unwrap());
    program::clean(&mut command);
    command
}
