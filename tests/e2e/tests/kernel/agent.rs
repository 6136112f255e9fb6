//! `gpuspan agent`: servers that come and go are found, observed within a budget, and let go of when somebody says so.

#[cfg(test)]
mod idle;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::{Agent, Calls, Stage, calls, code, or_skip, stage, wait};
use profiler::target;
use simgpu::{Environment, Runtime};
use tempfile::TempDir;
use workload::options::Runtime as Served;
use workload::{ClientOptions, ClientRecord, ServerOptions, load};

use crate::checks::{client, options};

/// From the moment when a process is a server.
const FOUND: Duration = Duration::from_secs(2);

fn is_there(target: Option<&serde_json::Value>) -> bool {
    target.is_some_and(|target| target["processes"].as_array().is_some_and(|all| !all.is_empty()))
}

#[test]
fn servers_are_found_as_they_come_and_go() {
    or_skip!();
    let agent = Agent::start("budget: { target: 400%, node: 800% }\n").unwrap();
    assert_eq!(agent.page("/healthz").unwrap(), (200, "ok\n".to_owned()));
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        let mask = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(":\t")).unwrap();
        assert_eq!(u64::from_str_radix(mask, 16).unwrap().count_ones(), 4, "{set} {mask}");
    }
    // Maps the runtime and waits: no server.
    let log = TempDir::new().unwrap();
    let arguments = ["--wait-stdin", "--times", "1", "--api", "cudaLaunchKernel"];
    let idle = Calls::start(calls::command(Runtime::Cuda12, log.path()), &arguments).unwrap();
    let idle_pid = idle.waits_before("start").unwrap();

    // Ids of responses are made from the seed.
    let stages = [(Served::Cuda12, 1), (Served::Cuda13, 2)]
        .map(|(runtime, seed)| Stage::start(&ServerOptions { runtime, seed, ..options() }).unwrap());
    let came = Instant::now();
    for stage in &stages {
        agent.wait_for(FOUND, stage.server.pid(), is_there).unwrap();
    }
    println!("two servers found in {:?}", came.elapsed());
    assert_eq!(agent.page("/readyz").unwrap(), (200, "ready\n".to_owned()));
    let records: Vec<Vec<ClientRecord>> = std::thread::scope(|scope| {
        let loads = stages.each_ref().map(|stage| {
            scope.spawn(|| load(&ClientOptions { url: stage.server.url(), ..client(4, 24) }).unwrap())
        });
        loads.into_iter().map(|load| load.join().unwrap()).collect()
    });
    for stage in &stages {
        let pid = stage.server.pid();
        agent
            .wait_for(wait::PATIENCE, pid, |target| target.is_some_and(|target| target["requests"] == 24))
            .unwrap();
        let target = agent.target(pid).unwrap().unwrap();
        assert_eq!((&target["level"], &target["gpu_processes"]), (&"events".into(), &1.into()), "{target}");
    }
    let told = agent.targets().unwrap();
    assert_eq!(agent.target(idle_pid).unwrap(), None);
    let passed = told["passed"].as_array().unwrap().iter().find(|passed| passed["pid"] == idle_pid);
    assert!(passed.is_some(), "it is passed over, and that is said: {told}");
    assert_eq!(code::changed_bytes(idle_pid).unwrap(), 0);

    let [first, second] = stages;
    let first_pid = first.server.pid();
    drop(first);
    agent.wait_for(FOUND, first_pid, |target| target.is_none()).unwrap();
    assert!(is_there(agent.target(second.server.pid()).unwrap().as_ref()), "others stay");
    // What the metrics say of both, past and present.
    let metrics = agent.page("/metrics").unwrap().1;
    for name in [
        "agent_targets{gpuspan_detail_level=\"events\"",
        "agent_step_downs_total{",
        "agent_off{",
        "target_cost_ratio{",
    ] {
        assert!(metrics.contains(&format!("\ngpuspan_{name}")), "{name}: {metrics}");
    }
    let spans = agent.stop().unwrap();
    assert_eq!(code::changed_bytes(second.server.pid()).unwrap(), 0, "nothing is left attached");
    let ids: BTreeSet<_> = spans
        .iter()
        .filter(|span| span.is_server() && span.text("gpuspan.outcome") == Some("completed"))
        .filter_map(|span| span.text("gen_ai.response.id"))
        .collect();
    let asked: BTreeSet<_> = records.iter().flatten().filter_map(|record| record.id.as_deref()).collect();
    assert_eq!(asked.len(), 48);
    assert_eq!(ids, asked, "every request of both, once");
    idle.end().unwrap_or_default();
}

#[test]
fn a_target_that_costs_too_much_is_observed_less() {
    or_skip!();
    let log = TempDir::new().unwrap();
    let arguments = ["--wait-stdin", "--threads", "1", "--times", "2000000000", "--api", "cudaLaunchKernel"];
    // A device that is never the limit: what a launch costs the program is all that its rate depends on.
    let settings = Environment {
        log_dir: Some(log.path().to_owned()),
        kernel_time: Some(Duration::from_nanos(100)),
        ..Environment::default()
    };
    let mut program = Calls::start(calls::command_on(Runtime::Cuda12, &settings), &arguments).unwrap();
    let pid = program.waits_before("start").unwrap();
    let rules = "discover:\n  rules:\n    - match: { command: '*--api cudaLaunchKernel*' }\n      action: include\n      name: launcher\n";
    let mut ratios = [0; ROUNDS].map(|_| {
        let agent = Agent::start(&format!("budget: {{ target: 3% }}\n{rules}")).unwrap();
        agent.wait_for(wait::PATIENCE, pid, is_there).unwrap();
        assert_eq!(agent.target(pid).unwrap().unwrap()["name"], "launcher");
        // It launches as fast as it can from here on, in later rounds it does already.
        program.go_on().unwrap();
        steps_down(&agent, pid);
        let watched = fastest(log.path(), pid);
        agent.stop().unwrap();
        let alone = fastest(log.path(), pid);
        println!("{watched:.0} launches/s beside the agent, {alone:.0} without: {:.3}", watched / alone);
        watched / alone
    });
    ratios.sort_by(f64::total_cmp);
    assert!(ratios[ROUNDS / 2] > 0.95, "{ratios:?}");
    drop(program);
}

/// A few seconds differ from the next by up to 5 % here: the middle one of so many rounds counts.
const ROUNDS: usize = 3;

/// A target that launches without a pause has no probe in a GPU library soon.
fn steps_down(agent: &Agent, pid: u32) {
    let start = Instant::now();
    // Counting costs a probe a launch, too: it ends where no GPU library is probed.
    let without_gpu = |target: Option<&serde_json::Value>| {
        target.is_some_and(|target| target["level"] == "requests" || target["level"] == "off")
    };
    agent.wait_for(Duration::from_secs(3), pid, without_gpu).unwrap();
    println!("stepped down to requests in {:?}", start.elapsed());
    wait::within(Duration::from_secs(2), "a cheap target", || {
        let target = agent.target(pid)?;
        Ok(target.and_then(|target| target["cost"].as_f64()).is_some_and(|cost| cost < 0.03).then_some(()))
    })
    .unwrap();
    assert_eq!(code::changed_bytes(pid).unwrap(), 0, "no GPU library is probed");
    let said = agent.log();
    assert!(said.contains("stepped down by its budget"), "{said}");
}

/// Launches a second of a program, the most of some half seconds: what else runs on this machine only takes from it.
fn fastest(log: &Path, pid: u32) -> f64 {
    let launches = || stage::device(log, pid).unwrap().fact("launches");
    let rate = |_| {
        let (before, start) = (launches(), Instant::now());
        std::thread::sleep(Duration::from_millis(500));
        (launches() - before) as f64 / start.elapsed().as_secs_f64()
    };
    (0..6).map(rate).fold(0.0, f64::max)
}

#[test]
fn whoever_says_so_switches_it_off() {
    or_skip!();
    let stage = Stage::start(&options()).unwrap();
    let pid = stage.server.pid();
    let folder = Arc::new(TempDir::new().unwrap());
    let yaml = "budget: { target: 400%, node: 800%, off_file: OFF_FILE }\n";
    let agent = Agent::start_in(&folder, "old", yaml).unwrap();
    agent.wait_for(FOUND, pid, is_there).unwrap();
    code::wait_until_probed(pid, 1).unwrap();
    let clean = |limit| {
        wait::within(limit, "original bytes", || Ok((code::changed_bytes(pid)? == 0).then_some(()))).unwrap();
    };

    std::fs::write(agent.off_file(), "").unwrap();
    let start = Instant::now();
    clean(Duration::from_secs(1));
    println!("the file let go of it in {:?}", start.elapsed());
    wait::until("the reason", || Ok(agent.targets()?["off"].is_string().then_some(()))).unwrap();
    std::fs::remove_file(agent.off_file()).unwrap();
    code::wait_until_probed(pid, 1).unwrap();

    agent.signal(libc::SIGUSR2).unwrap();
    clean(Duration::from_secs(1));
    agent.signal(libc::SIGUSR2).unwrap();
    code::wait_until_probed(pid, 1).unwrap();

    // A newer one takes over, and the older comes back when that is gone.
    let newer = Agent::start_in(&folder, "new", yaml).unwrap();
    newer.wait_for(FOUND, pid, is_there).unwrap();
    agent.wait_for(FOUND, pid, |target| target.is_none()).unwrap();
    assert!(agent.targets().unwrap()["off"].as_str().unwrap().contains("newer agent"));
    newer.stop().unwrap();
    agent.wait_for(FOUND, pid, is_there).unwrap();
    let records = load(&ClientOptions { url: stage.server.url(), ..client(2, 8) }).unwrap();
    assert!(records.iter().all(ClientRecord::is_ok));
    agent.stop().unwrap();
    clean(Duration::from_secs(1));
}

#[test]
fn a_changed_configuration_is_taken_without_losing_a_target() {
    or_skip!();
    let stage = Stage::start(&options()).unwrap();
    let pid = stage.server.pid();
    let agent = Agent::start("budget: { target: 400%, node: 800% }\n").unwrap();
    agent.wait_for(FOUND, pid, is_there).unwrap();
    load(&ClientOptions { url: stage.server.url(), ..client(2, 8) }).unwrap();
    let whole = std::fs::read_to_string(agent.config()).unwrap();
    let replace = |text: &str| {
        std::fs::write(agent.config(), text).unwrap();
        agent.signal(libc::SIGHUP).unwrap();
    };
    // One that is wrong changes nothing.
    replace("budget: { traget: 3% }\n");
    wait::until("the complaint", || Ok(agent.log().contains("traget").then_some(()))).unwrap();
    assert!(is_there(agent.target(pid).unwrap().as_ref()));
    // The same with another limit: the target stays, with what it has counted.
    replace(&whole.replace("800%", "900%"));
    wait::until("the change", || Ok(agent.log().contains("budget.node").then_some(()))).unwrap();
    agent
        .wait_for(wait::PATIENCE, pid, |target| target.is_some_and(|target| target["requests"] == 8))
        .unwrap();
    // A rule that excludes it.
    replace(&format!("{whole}discover:\n  rules:\n    - match: {{ command: '*' }}\n      action: exclude\n"));
    agent.wait_for(wait::PATIENCE, pid, |target| target.is_none()).unwrap();
    assert_eq!(code::changed_bytes(pid).unwrap(), 0);
    agent.stop().unwrap();
}

/// `GPUSPAN_SOAK_S=600` makes it ten minutes with fifty at a time.
#[test]
fn targets_that_come_and_go_leave_nothing_behind() {
    or_skip!();
    let asked_s = std::env::var("GPUSPAN_SOAK_S").ok().and_then(|seconds| seconds.parse().ok());
    let (lasts, at_once) = asked_s.map_or((15, 3), |seconds: u64| (seconds, 50));
    let agent = Agent::start("budget: { target: 400%, node: 800% }\n").unwrap();
    // Without the sizes of processes, which are held open: others come and go on this machine.
    let open = || {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap();
        let files = entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        files.filter(|file| !file.starts_with("/proc")).count()
    };
    let resident = || target::usage(agent.pid()).unwrap().resident_bytes >> 20;
    // Programs are loaded with the first library that needs them, and stay.
    let first = Stage::start(&ServerOptions { seed: u64::MAX, ..options() }).unwrap();
    agent.wait_for(wait::PATIENCE, first.server.pid(), is_there).unwrap();
    let pid = first.server.pid();
    drop(first);
    agent.wait_for(wait::PATIENCE, pid, |target| target.is_none()).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let (fds, start) = (open(), Instant::now());
    let warm = resident();
    let sizes = Mutex::new(Vec::new());
    let records = Mutex::new(Vec::new());
    let lives = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while start.elapsed() < Duration::from_secs(lasts) {
                sizes.lock().unwrap().push(resident());
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        for _ in 0..at_once {
            scope.spawn(|| {
                while start.elapsed() < Duration::from_secs(lasts) {
                    let life = lives.fetch_add(1, Ordering::Relaxed);
                    // Another command line: else it would be one that crashes again and again, and be left alone.
                    let stage = Stage::start(&ServerOptions { seed: life, ..options() }).unwrap();
                    if life % 4 == 3 {
                        // Gone before it has been found, or while it is attached to.
                        std::thread::sleep(Duration::from_millis(life * 37 % 1000));
                        continue;
                    }
                    agent.wait_for(wait::PATIENCE, stage.server.pid(), is_there).unwrap();
                    let client = ClientOptions { url: stage.server.url(), seed: life, ..client(2, 4) };
                    records.lock().unwrap().extend(load(&client).unwrap());
                    // The last records are read before its end is seen.
                    std::thread::sleep(Duration::from_millis(life * 53 % 400));
                }
            });
        }
    });
    let none = || Ok(agent.targets()?["targets"].as_array().is_some_and(Vec::is_empty).then_some(()));
    wait::until("the end of all targets", none).unwrap();
    let back = || Ok((open() <= fds).then_some(()));
    wait::within(Duration::from_secs(10), "the end of all links", back)
        .unwrap_or_else(|_| panic!("{fds} descriptors before, {} after", open()));
    let records = records.into_inner().unwrap();
    let lives = lives.into_inner();
    let sizes = sizes.into_inner().unwrap();
    let peaks: Vec<_> = sizes.chunks(sizes.len().div_ceil(4)).filter_map(|part| part.iter().max()).collect();
    println!(
        "{lives} lives, {} requests, {warm} MiB when warm, at most {peaks:?} MiB by quarters, {} MiB at the end",
        records.len(),
        resident()
    );
    let spans = agent.stop().unwrap();
    let told =
        spans.iter().filter(|span| span.is_server() && span.text("gpuspan.outcome") == Some("completed"));
    let told: Vec<_> = told.filter_map(|span| span.text("gen_ai.response.id")).collect();
    let asked: Vec<_> = records.iter().filter_map(|record| record.id.as_deref()).collect();
    assert_eq!(told.len(), told.iter().collect::<BTreeSet<_>>().len(), "no request is told twice");
    let lost: Vec<_> = asked.iter().filter(|id| !told.contains(id)).collect();
    assert!(lost.is_empty(), "of {} requests {} have no span: {lost:?}", asked.len(), lost.len());
    // A megabyte for each that is there at once; nothing for those that were.
    let most = warm + 40 + at_once;
    assert!(peaks.iter().all(|peak| **peak < most), "{warm} MiB, then {peaks:?} MiB");
    if let (Some(_), [_, second, .., last]) = (asked_s, peaks.as_slice()) {
        assert!(**last < **second + 10, "it grows with lives: {peaks:?} MiB");
    }
}
