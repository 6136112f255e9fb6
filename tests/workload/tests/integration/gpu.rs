//! The server on the stand-ins: what the client counted, what the server logged and what truly ran are one.

use simgpu::{Environment, Truth, command_env};
use workload::client::{Range, StreamMode};
use workload::options::{Graphs, Runtime};
use workload::truth::{Copies, DeviceTotals};
use workload::{ClientOptions, ServerOptions, ServerProcess, ServerTruth, load};

use crate::support::{Scratch, check_client_against_truth};

/// Runs a load on the stand-ins and compares all three accounts.
fn check(name: &str, options: ServerOptions, concurrency: usize) -> ServerTruth {
    let scratch = Scratch::new(name);
    let settings = Environment { log_dir: Some(scratch.path().to_owned()), ..Environment::default() };
    let version =
        if options.runtime == Runtime::Cuda13 { simgpu::Runtime::Cuda13 } else { simgpu::Runtime::Cuda12 };
    let server = ServerProcess::start(&scratch.options(options), &command_env(version, &settings)).unwrap();
    let pid = server.pid();
    let client = ClientOptions {
        concurrency,
        requests: concurrency * 3,
        stream: StreamMode::Mix,
        prompt_words: Range { min: 1, max: 300 },
        max_tokens: Range { min: 1, max: 40 },
        ..ClientOptions::new(server.url())
    };
    let records = load(&client).unwrap();
    server.stop().unwrap();
    let truth = scratch.truth();
    check_client_against_truth(&records, &truth);
    let totals = truth.totals.as_ref().unwrap();
    let ran = Truth::read(scratch.path()).unwrap();
    check_device(&totals.device, &ran.process(pid).unwrap().totals);
    check_step_sums(&truth, &totals.device);
    truth
}

/// The server's account of its device is the stand-ins' account.
fn check_device(device: &DeviceTotals, ran: &simgpu::Totals) {
    assert_eq!(ran.unsupported(), Vec::<&str>::new());
    assert_eq!(device.launches, ran.launches());
    assert_eq!(device.captured, ran.fact("captured_launches"));
    assert_eq!(device.graph_launches, ran.fact("graph_launches"));
    assert_eq!(device.graph_nodes, ran.fact("graph_kernel_nodes"));
    for (direction, name) in [("HtoD", "htod"), ("DtoH", "dtoh")] {
        let copies = ran.copies(name);
        assert_eq!(
            device.copies[direction],
            Copies { count: copies.count, bytes: copies.bytes },
            "{direction}"
        );
    }
    let runs = |kernel: &simgpu::Kernel| kernel.launched + kernel.graph_runs;
    let ran_kernels: Vec<_> = ran.kernels.iter().map(|(name, kernel)| (name.clone(), runs(kernel))).collect();
    let kernels: Vec<_> = device.kernels.clone().into_iter().collect();
    let ran_kernels: Vec<_> = ran_kernels.into_iter().filter(|(_, runs)| *runs > 0).collect();
    assert_eq!(kernels, ran_kernels);
    // The runtime enters the driver by itself, so only its own functions can be compared call by call.
    for (name, count) in device.calls.iter().filter(|(name, _)| name.contains("cuda")) {
        assert_eq!(ran.call(name), *count, "{name}");
    }
    assert_eq!(ran.fact("allocated_bytes"), ran.fact("freed_bytes"), "memory is given back at the end");
}

/// The steps' counts add up to the device's.
fn check_step_sums(truth: &ServerTruth, device: &DeviceTotals) {
    let sum = |count: fn(&workload::truth::StepLine) -> u64| truth.steps.iter().map(count).sum::<u64>();
    assert_eq!(sum(|step| step.launches), device.launches);
    assert_eq!(sum(|step| u64::from(step.graph_launch)), device.graph_launches);
    assert_eq!(sum(|step| step.graph_nodes), device.graph_nodes);
    assert_eq!(sum(|step| step.copies), device.copies.values().map(|copies| copies.count).sum::<u64>());
    assert_eq!(sum(|step| step.copy_bytes), device.copies.values().map(|copies| copies.bytes).sum::<u64>());
    let eager = truth.steps.iter().filter(|step| !step.graph_launch);
    assert!(eager.clone().count() > 0 && eager.clone().all(|step| step.launches > 0));
}

fn options(runtime: Runtime) -> ServerOptions {
    ServerOptions { runtime, layers: 2, kernel_ns: 5_000, ..ServerOptions::default() }
}

#[test]
fn four_streams_on_each_runtime() {
    for (name, runtime, version) in [("cuda12", Runtime::Cuda12, 12), ("cuda13", Runtime::Cuda13, 13)] {
        let truth = check(name, options(runtime), 4);
        assert_eq!(truth.server.unwrap().cuda_runtime_version / 1000, version);
    }
}

#[test]
fn thirty_two_streams_on_each_runtime() {
    for (name, runtime) in [("many12", Runtime::Cuda12), ("many13", Runtime::Cuda13)] {
        let truth = check(name, options(runtime), 32);
        assert!(truth.steps.iter().any(|step| step.members.len() > 8), "requests never shared a step");
    }
}

#[test]
fn driver_launches_are_counted_once() {
    for (name, runtime) in [("driver12", Runtime::Cuda12), ("driver13", Runtime::Cuda13)] {
        let truth = check(name, ServerOptions { driver_launches: true, ..options(runtime) }, 4);
        let device = truth.totals.unwrap().device;
        // Of 2 * 7 + 3 kernels, each layer's three GEMMs and its activation go through the driver.
        assert_eq!(device.driver_launches * 17, device.launches * 8);
    }
}

#[test]
fn graphs_captured_at_start_up_are_replayed() {
    for (name, runtime) in [("graphs12", Runtime::Cuda12), ("graphs13", Runtime::Cuda13)] {
        let options = ServerOptions { graphs: Graphs::StartUp, max_batch: 8, ..options(runtime) };
        let truth = check(name, options, 4);
        let device = truth.totals.unwrap().device;
        assert_eq!((device.captured, device.calls["cudaGraphInstantiate"]), (8 * 17, 8));
        assert_eq!(device.graph_nodes, device.graph_launches * 17);
        assert!(device.graph_launches > 0);
    }
}

#[test]
fn graphs_captured_lazily_hold_driver_launches_too() {
    let options = ServerOptions { graphs: Graphs::Lazy, driver_launches: true, ..options(Runtime::Cuda13) };
    let truth = check("lazy", options, 32);
    let captured: u64 = truth.steps.iter().map(|step| step.captured).sum();
    let device = truth.totals.unwrap().device;
    assert_eq!(captured, device.captured);
    assert_eq!(captured, device.calls["cudaGraphInstantiate"] * 17);
}

#[test]
fn missing_libraries_end_the_server_with_an_error() {
    let environment = [("LD_LIBRARY_PATH".to_owned(), "/nonexistent".to_owned())];
    let error = ServerProcess::start(&options(Runtime::Cuda12), &environment).unwrap_err();
    assert!(format!("{error:#}").contains("ended before it listened"), "{error:#}");
}
