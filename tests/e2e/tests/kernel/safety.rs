//! The target under load while the profiler comes and goes: it answers on, and its code is as it was.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use e2e::{Observation, Stage, code, or_skip, wait};
use workload::client::Range;
use workload::{ClientOptions, ClientRecord, load};

use crate::checks::{client, nothing_lost, options};

/// A load that goes on while `meddle` does something to the profiler, and a little longer.
fn under_load(stage: &Stage, meddle: impl FnOnce()) -> Vec<ClientRecord> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| {
            let mut records = Vec::new();
            for seed in 0.. {
                let last = over.load(Ordering::Acquire);
                records
                    .extend(load(&ClientOptions { url: stage.server.url(), seed, ..client(8, 64) }).unwrap());
                if last {
                    break;
                }
            }
            records
        });
        wait::until("the load", || Ok((stage.truth()?.requests.len() > 20).then_some(()))).unwrap();
        meddle();
        over.store(true, Ordering::Release);
        loading.join().unwrap()
    })
}

fn all_answered(records: &[ClientRecord]) {
    assert!(records.iter().all(ClientRecord::is_ok), "{:?}", records.iter().find(|record| !record.is_ok()));
}

#[test]
fn edge_39_killed_under_load_it_leaves_the_code_as_it_was() {
    or_skip!();
    let stage = Stage::start(&options()).unwrap();
    let pid = stage.server.pid();
    let observation = Observation::start(pid, &[]).unwrap();
    assert!(code::changed_bytes(pid).unwrap() > 0, "probes are bytes");
    let records = under_load(&stage, || {
        observation.kill().unwrap();
        let killed = Instant::now();
        wait::within(Duration::from_secs(1), "original bytes", || {
            Ok((code::changed_bytes(pid)? == 0).then_some(()))
        })
        .unwrap();
        println!("original bytes {:?} after SIGKILL", killed.elapsed());
    });
    all_answered(&records);
    // What it left behind does not disturb the next one.
    let observation = Observation::start(pid, &[]).unwrap();
    all_answered(&load(&ClientOptions { url: stage.server.url(), ..client(4, 16) }).unwrap());
    let report = observation.stop().unwrap();
    assert_eq!(report.summary.requests.by_outcome["completed"], 16);
    nothing_lost(&report.summary);
}

#[test]
fn interrupted_under_load_it_detaches_before_it_ends() {
    or_skip!();
    let stage = Stage::start(&options()).unwrap();
    let pid = stage.server.pid();
    let observation = Observation::start(pid, &[]).unwrap();
    let mut report = None;
    let records = under_load(&stage, || {
        report = Some(observation.stop().unwrap());
        assert_eq!(code::changed_bytes(pid).unwrap(), 0);
    });
    all_answered(&records);
    let report = report.unwrap();
    nothing_lost(&report.summary);
    assert!(report.summary.requests.total > 0 && report.summary.requests.partial == 0);
    println!("ended {:?} after SIGINT, detached in {} ms", report.ending, report.summary.own.detach_ms);
}

#[test]
fn terminated_it_ends_in_order_too() {
    or_skip!();
    let stage = Stage::start(&options()).unwrap();
    let mut observation = Observation::start(stage.server.pid(), &[]).unwrap();
    observation.signal(libc::SIGTERM).unwrap();
    nothing_lost(&observation.finish().unwrap().summary);
    assert_eq!(code::changed_bytes(stage.server.pid()).unwrap(), 0);
}

#[test]
fn answers_are_the_same_with_and_without_it() {
    or_skip!();
    let answers = |observed: bool| {
        let stage = Stage::start(&options()).unwrap();
        let observation = observed.then(|| Observation::start(stage.server.pid(), &[]).unwrap());
        let client = ClientOptions {
            url: stage.server.url(),
            max_tokens: Range { min: 1, max: 40 },
            seed: 7,
            ..client(4, 32)
        };
        let records = load(&client).unwrap();
        drop(observation);
        let answer = |record: ClientRecord| (record.status, record.usage, record.finish_reason);
        records.into_iter().map(answer).collect::<Vec<_>>()
    };
    assert_eq!(answers(true), answers(false));
}
