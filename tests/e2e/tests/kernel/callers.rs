//! Who calls: the CPU stacks of launches, and the library behind a large piece of memory.

use e2e::summary::{Reserved, Summary};
use e2e::{Calls, Observation, calls, or_skip};
use simgpu::Runtime;
use tempfile::TempDir;

use crate::checks::nothing_lost;

const THREADS: u64 = 2;
const TIMES: u64 = 500;

/// What gpuspan with `flags` says of a program that makes `apis`.
fn observe(apis: &str, flags: &[&str]) -> Summary {
    let log = TempDir::new().unwrap();
    let (threads, times) = (THREADS.to_string(), TIMES.to_string());
    let arguments = ["--wait-stdin", "--threads", &threads, "--times", &times, "--api", apis];
    let mut program = Calls::start(calls::command(Runtime::Cuda13, log.path()), &arguments).unwrap();
    let pid = program.waits_before("start").unwrap();
    let observation = Observation::start(pid, flags).unwrap();
    program.make().unwrap();
    // Addresses have names as long as their process lives, and are looked up twice a second.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let report = observation.stop().unwrap();
    program.end().unwrap();
    nothing_lost(&report.summary);
    report.summary
}

/// Each launch crosses two layers; its stack is taken once, and knows both the function and who called it.
#[test]
fn every_launch_has_a_stack_when_all_are_asked_for() {
    or_skip!();
    let summary = observe("cudaLaunchKernel,cudaLaunchKernelExC", &["--stacks", "1/1"]);
    let each = THREADS * TIMES;
    assert_eq!(
        (summary.launches.total, summary.stacks.samples, summary.stacks.beyond),
        (2 * each, 2 * each, 0)
    );
    for (function, kernel) in
        [("cudaLaunchKernel", "calls_kernel"), ("cudaLaunchKernelExC", "calls_other_kernel")]
    {
        let caller = format!("make_{function}");
        let stacks = summary
            .stacks
            .top
            .iter()
            .filter(|stack| stack.frames.ends_with(&[caller.clone(), function.into()]));
        let counts: Vec<_> = stacks.map(|stack| (stack.kernel.as_str(), stack.count)).collect();
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), each, "{:#?}", summary.stacks.top);
        assert!(counts.iter().all(|(name, _)| *name == kernel), "{counts:?}");
    }
}

/// One in four, drawn by chance: of 2,000 between 380 and 620 (more than six standard deviations to each side).
#[test]
fn a_sample_of_stacks_is_a_sample() {
    or_skip!();
    let summary = observe("cudaLaunchKernel,cudaLaunchKernelExC", &["--stacks", "1/4"]);
    assert!((380..=620).contains(&summary.stacks.samples), "{}", summary.stacks.samples);
    assert_eq!(observe("cudaLaunchKernel", &[]).stacks.samples, 0, "nobody asked");
}

#[test]
fn large_memory_has_the_name_of_who_asked() {
    or_skip!();
    let [reserved] = &observe("cudaMalloc,cudaMalloc:large", &[]).reservations[..] else {
        panic!("only one asked")
    };
    let (count, largest_bytes) = (THREADS * TIMES, 64 << 20);
    let library = "calls".to_owned();
    let device = reserved.device;
    assert_eq!(*reserved, Reserved { library, device, count, bytes: count * largest_bytes, largest_bytes });
}
