//! Ranks in processes of their own: what tensor-parallel workers of vLLM and SGLang are. The server's process answers
//! and schedules, and has no GPU work.

use e2e::{Agent, or_skip, wait};
use serde_json::Value;

use super::*;

fn ranks(count: usize) -> ServerOptions {
    ServerOptions { devices: count, rank_processes: true, ..options() }
}

/// Work of every process is in one iteration with that of the others, and goes to requests of the front.
fn are_one(count: usize) {
    // The processes, the server, its client and gpuspan share two CPUs here: shares are held to what those of threads are.
    // What is reached is in docs/steps.md.
    let what = format!("{count} rank processes");
    let (report, truth, ops) = reaches(&what, &GOAL, &ranks(count), &mixed(StreamMode::True));
    devices_hold(&report, &truth, &ops, count);
    let front = truth.server.as_ref().unwrap().pid;
    assert!(ops.iter().all(|op| op.pid != front), "the front has no GPU work");
    for step in Seen::of(&report).steps.iter().filter(|step| !step["gpu"].is_null()) {
        let ends: Vec<u64> =
            step["gpu"]["devices"].as_array().unwrap().iter().map(|device| time(device, "end_ns")).collect();
        let skew = ends.iter().max().unwrap() - ends.iter().min().unwrap();
        assert_eq!(time(&step["gpu"], "skew_ns"), skew, "{step}");
    }
}

#[test]
fn two_rank_processes() {
    or_skip!();
    are_one(2);
}

#[test]
fn four_rank_processes() {
    or_skip!();
    are_one(4);
}

#[test]
fn rank_processes_are_one_target() {
    or_skip!();
    let stage = Stage::start(&ranks(2)).unwrap();
    let front = stage.server.pid();
    let agent = Agent::start("budget: { target: 400%, node: 800% }\n").unwrap();
    let has_all = |target: Option<&Value>| target.is_some_and(|target| target["gpu_processes"] == 2);
    agent.wait_for(wait::PATIENCE, front, has_all).unwrap();
    load(&ClientOptions { url: stage.server.url(), ..client(4, 24) }).unwrap();
    let has_answered = |target: Option<&Value>| target.is_some_and(|target| target["requests"] == 24);
    agent.wait_for(wait::PATIENCE, front, has_answered).unwrap();
    let told = agent.targets().unwrap();
    let truth = stage.truth().unwrap();
    let own: BTreeSet<u32> = [front].into_iter().chain(engines(&truth)[0].iter().copied()).collect();
    let of_stage = |target: &&Value| {
        target["pid"].as_u64().is_some_and(|pid| own.contains(&u32::try_from(pid).unwrap_or(0)))
    };
    let targets = told["targets"].as_array().unwrap();
    assert_eq!(targets.iter().filter(of_stage).count(), 1, "{told}");
    agent.stop().unwrap();
}

/// A rank that dies takes its engine with it; the front goes on, and answers that there is none. What was done until then
/// is told once, and that a process is gone is said.
#[test]
fn a_rank_that_dies() {
    or_skip!();
    let stage = Stage::start(&ranks(2)).unwrap();
    let url = stage.server.url();
    let observation = Observation::start(stage.server.pid(), &["--output", "json"]).unwrap();
    load(&ClientOptions { url: url.clone(), ..client(8, 40) }).unwrap();
    let victim = engines(&stage.truth().unwrap())[0][1];
    let under_way = std::thread::spawn({
        let url = url.clone();
        move || load(&ClientOptions { url, ..client(8, 400) })
    });
    let steps = stage.truth().unwrap().steps.len();
    wait::until("steps of the second load", || Ok((stage.truth()?.steps.len() > steps + 20).then_some(())))
        .unwrap();
    // SAFETY: no pointers; the process is a child of a server of ours, which has not waited for it.
    assert_eq!(unsafe { libc::kill(victim.cast_signed(), libc::SIGKILL) }, 0);
    // Refusals are answers, and connections stay.
    under_way.join().unwrap().unwrap();
    let records = load(&ClientOptions { url, ..client(2, 4) }).unwrap();
    assert!(records.iter().all(|record| record.status == 503), "{records:?}");
    let report = observation.stop().unwrap();
    let truth = stage.truth().unwrap();
    sums_hold(&report);
    let seen = Seen::of(&report);
    let refused = seen.requests.iter().filter(|request| request["status"] == 503).count();
    assert_eq!(refused, truth.requests.iter().filter(|request| request.status == 503).count());
    // Of each thread every launch is told once, in whatever iteration; the last step may have been cut.
    for thread in &engines(&truth)[0] {
        let devices = seen.steps.iter().filter_map(|step| step["gpu"]["devices"].as_array()).flatten();
        let told: u64 =
            devices.filter(|device| device["thread"] == *thread).map(|device| time(device, "launches")).sum();
        // Each is the only one of its process that has anything to do with a GPU. What was sent when the engine ended did
        // not run to its end, and is not among the operations.
        let calls = e2e::stage::device(stage.folder(), *thread).unwrap().calls;
        let done = calls["cudaLaunchKernel"];
        println!("thread {thread}: {told} launches told of {done}");
        assert!(told <= done && told + 31 >= done, "{told} of {done}");
    }
    let said = format!("{} {}", report.stderr, report.summary_text);
    assert!(said.contains(&victim.to_string()), "{said}");
}
