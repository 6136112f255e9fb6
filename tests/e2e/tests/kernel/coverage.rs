//! What `gpuspan check` says of processes: golden files, and the JSON form with every function. `UPDATE=1` renews them.

use std::path::Path;
use std::process::Command;

use e2e::nvcc::{self, Build, Cudart, Nvcc};
use e2e::{Calls, Observation, calls, code, or_skip};
use profiler::attach::{Cost, Group, Machine, inspect};
use profiler::probe::{CATALOG, Layer};
use serde_json::Value;
use simgpu::{Environment, Runtime, command_env, library_dir};
use tempfile::TempDir;

use crate::attach::{compile_as, with_library};
use crate::checks::nothing_lost;
use crate::cli::{golden, ran};
use crate::nvcc::{on_stand_ins, or_skip_without_nvcc};

/// What it says of the waiting `program`, as text and as JSON.
fn check(program: &Calls, name: &str) -> Value {
    let pid = program.waits_before("start").unwrap().to_string();
    let ended = ran(&["check", "--pid", &pid], 0);
    let (machine, process) = ended.stdout.split_at(ended.stdout.find("\nprocess ").unwrap() + 1);
    assert!(machine.starts_with("machine\n"), "{machine}");
    golden(name, &normalised(process));
    let json = ran(&["check", "--json", "--pid", &pid], 0).stdout;
    let sections: Value = serde_json::from_str(&json).unwrap();
    let [machine, _devices, process, _inside] = &sections.as_array().unwrap()[..] else { panic!("{json}") };
    let cost = &machine["probe_cost_ns"];
    let (emulated, stepped) = (cost["emulated"].as_f64(), cost["single_stepped"].as_f64());
    assert!(
        emulated.is_some_and(|ns| ns > 0.0) && (cfg!(target_arch = "aarch64") || stepped > emulated),
        "{cost}"
    );
    process.clone()
}

/// Pids and build ids are others in each run; counts of functions are not.
fn normalised(text: &str) -> String {
    let word = |word: &str| {
        let digits = word.trim_start_matches('#');
        let is_id = digits.len() == 40 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_id { "BUILD-ID".to_owned() } else { word.to_owned() }
    };
    let line = |line: &str| match line.strip_prefix("process ").and_then(|rest| rest.split_once(' ')) {
        Some((_, rest)) => format!("process PID {rest}"),
        None => line.split(' ').map(word).collect::<Vec<_>>().join(" "),
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

#[test]
fn of_a_program_on_each_runtime() {
    or_skip!();
    let log = TempDir::new().unwrap();
    for (runtime, name) in [(Runtime::Cuda12, "check-cuda12.txt"), (Runtime::Cuda13, "check-cuda13.txt")] {
        let program = Calls::start(calls::command(runtime, log.path()), &["--wait-stdin"]).unwrap();
        let process = check(&program, name);
        for library in process["libraries"].as_array().unwrap() {
            every_function_is_accounted_for(library);
        }
    }
}

/// Each function of the catalogue's layer is probed, counted under another name, or missing with a reason, once.
fn every_function_is_accounted_for(library: &Value) {
    let names = |list: &str| -> Vec<String> {
        let list = library[list].as_array().unwrap();
        list.iter().map(|entry| entry["symbol"].as_str().unwrap().to_owned()).collect()
    };
    let mut all = [names("symbols"), names("missing"), names("aliases")].concat();
    all.sort_unstable();
    let layer = CATALOG.iter().find(|api| api.symbol == all[0]).unwrap().layer;
    let mut expected: Vec<_> =
        CATALOG.iter().filter(|api| api.layer == layer).map(|api| api.symbol).collect();
    expected.sort_unstable();
    // Some rows hold for one version of CUDA only, and another of the same name for the next.
    expected.dedup();
    assert_eq!(all, expected);
    let counts: u64 =
        library["probed"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(counts, names("symbols").len() as u64);
    for symbol in library["symbols"].as_array().unwrap() {
        let code = symbol["code"].as_str().unwrap();
        assert!(!code.is_empty() && code.len() as u64 > 2 * symbol["distance"].as_u64().unwrap(), "{symbol}");
    }
}

#[test]
fn of_a_program_with_a_linked_in_runtime() {
    or_skip!();
    for (stripped, name) in [(false, "check-static.txt"), (true, "check-static-stripped.txt")] {
        let build = Build { cudart: Cudart::Static, stripped, legacy_launch: false };
        let program = or_skip_without_nvcc!(build);
        let log = TempDir::new().unwrap();
        let program = Calls::start(on_stand_ins(&program, log.path()), &["--driver"]).unwrap();
        let process = check(&program, name);
        let host = &process["libraries"][0];
        assert_eq!(host["runtime_code"].is_array(), !stripped, "{host}");
    }
}

#[test]
fn symbols_are_listed_on_demand() {
    or_skip!();
    let log = TempDir::new().unwrap();
    let program = Calls::start(calls::command(Runtime::Cuda12, log.path()), &["--wait-stdin"]).unwrap();
    let pid = program.waits_before("start").unwrap().to_string();
    let text = ran(&["check", "--symbols", "--pid", &pid], 0).stdout;
    let line = text.lines().find(|line| line.trim_start().starts_with("cudaLaunchKernel ")).unwrap();
    assert!(line.contains("+0 ") && line.contains("emulated") && line.ends_with("[55]"), "{line}");
}

/// NVIDIA's own libraries as they are: on aarch64 nearly every function of the runtime begins with `stp`, which the
/// kernel would single-step, and is left alone; on x86-64 every one begins with `push`.
#[test]
fn of_the_true_runtime_only_safe_places_are_probed() {
    let (aarch64, nvcc) = match nvcc::aarch64_runtime().and_then(|runtime| Ok((runtime, Nvcc::provide()?))) {
        Ok(both) => both,
        Err(reason) => {
            println!("skipped: libcudart for aarch64 cannot be had: {reason:#}");
            return;
        }
    };
    let arm = inspect(&aarch64, Layer::Runtime).unwrap();
    assert_eq!((arm.machine, arm.count(Cost::SingleStepped)), (Machine::Aarch64, 0));
    let refused = arm.missing.iter().filter(|missing| missing.reason.contains("unsafe on aarch64")).count();
    println!("aarch64: {} functions can be probed, {refused} are refused", arm.points.len());
    assert!(refused > 100 && refused > 10 * arm.points.len(), "{refused} of {}", refused + arm.points.len());
    let x86 = inspect(&nvcc.library_dir().join("libcudart.so.13"), Layer::Runtime).unwrap();
    assert_eq!(x86.machine, Machine::X86_64);
    assert_eq!(x86.count(Cost::Emulated), x86.points.len());
    assert!(x86.points.len() >= refused, "{}", x86.points.len());
    assert!(x86.missing.iter().all(|missing| missing.group == Group::NotInThisVersion), "{:?}", x86.missing);
}

/// A program that launches through each of several runtimes, which it loads from `paths`.
fn several(paths: &[String], log: &Path) -> Calls {
    let settings = Environment { log_dir: Some(log.to_owned()), ..Environment::default() };
    let mut command = Command::new(simgpu::calls_program().with_file_name("several"));
    command.envs(command_env(Runtime::Cuda12, &settings));
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    Calls::start(command, &paths).unwrap()
}

fn runtime(version: Runtime, name: &str) -> String {
    library_dir(version).join(name).to_str().unwrap().to_owned()
}

#[test]
fn two_runtimes_in_one_process_are_probed_each() {
    or_skip!();
    let (log, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    // Wheels carry copies with a hash in the name; a copy may also have any other name, but not another soname.
    let renamed = folder.path().join("libcudart-d0da41ae.so.12");
    let disguised = folder.path().join("runtime.so");
    for copy in [&renamed, &disguised] {
        std::fs::copy(runtime(Runtime::Cuda12, "libcudart.so.12"), copy).unwrap();
    }
    let paths = [
        runtime(Runtime::Cuda12, "libcudart.so.12"),
        runtime(Runtime::Cuda13, "libcudart.so.13"),
        renamed.to_str().unwrap().to_owned(),
        disguised.to_str().unwrap().to_owned(),
    ];
    let two = several(&paths[..2], log.path());
    check(&two, "check-two-runtimes.txt");
    drop(two);
    all_launches_are_counted_once(several(&paths, log.path()), 4, 5);
}

/// One function with three names (a second symbol, and one that only jumps), one whose code is chosen when it is bound,
/// and data that is named like a function.
const ODD: &str = "
    int the_launch(const void *f) __attribute__((alias(\"cudaLaunchKernel\"), visibility(\"hidden\")));
    int cudaLaunchKernel(const void *f) { __asm__ volatile(\"\"); return 0; }
    int cudaLaunchKernel_ptsz(const void *f) __attribute__((alias(\"cudaLaunchKernel\")));
    __asm__(\".globl cudaLaunchCooperativeKernel\\n.type cudaLaunchCooperativeKernel, @function\\n\"
            \"cudaLaunchCooperativeKernel: jmp the_launch\\n\");
    static int copy(void *to, const void *from, unsigned long bytes) { return 0; }
    static void *choose(void) { return (void *)copy; }
    int cudaMemcpyAsync(void *to, const void *from, unsigned long bytes) __attribute__((ifunc(\"choose\")));
    char cudaMallocPitch[64] = {0x55};
    int cudaStreamSynchronize(void *stream) { __asm__ volatile(\"nop\"); return 0; }";

#[test]
fn a_function_with_several_names_counts_once_and_odd_symbols_are_left_alone() {
    or_skip!();
    let folder = TempDir::new().unwrap();
    let library = compile_as(folder.path(), "libcudart.so.12", ODD, &[]);
    let apis = "cudaLaunchKernel,cudaLaunchKernel_ptsz,cudaLaunchCooperativeKernel,cudaMemcpyAsync";
    let mut program = with_library(&library, &["--wait-stdin", "--times", "100", "--api", apis]);
    let pid = program.waits_before("start").unwrap();
    let observation = Observation::start(pid, &[]).unwrap();
    let made = program.make().unwrap().after.calls;
    let report = observation.stop().unwrap();
    let names =
        ["cudaLaunchKernel", "cudaLaunchKernel_ptsz", "cudaLaunchCooperativeKernel", "cudaMemcpyAsync"];
    assert!(names.iter().all(|name| made[*name] == 100), "{made:?}");
    let summary = &report.summary;
    let [coverage] = &summary.coverage[..] else { panic!("{:?}", summary.coverage) };
    let mut aliases: Vec<_> =
        coverage.aliases.iter().map(|alias| (&*alias.symbol, &*alias.counted_as)).collect();
    aliases.sort_unstable();
    let one = "cudaLaunchKernel";
    assert_eq!(aliases, [("cudaLaunchCooperativeKernel", one), ("cudaLaunchKernel_ptsz", one)]);
    let refused = |name: &str| {
        let mut missing = coverage.missing.iter().filter(|missing| missing.symbol == name);
        missing.next().filter(|missing| missing.group == "refused").map(|missing| missing.reason.clone())
    };
    assert!(refused("cudaMemcpyAsync").unwrap().contains("indirect function"));
    assert!(refused("cudaMallocPitch").unwrap().contains("no function"));
    assert_eq!((summary.call("cudaLaunchKernel"), summary.launches.total), (300, 300));
    program.end().unwrap();
}

/// A driver, and a runtime on it, that can be loaded any number of times.
const DRIVER: &str = "int cuLaunchKernel(void *f) { __asm__ volatile(\"\"); return 0; }";
const ON_DRIVER: &str = "
    int cuLaunchKernel(void *f);
    int cudaLaunchKernel(void *f) { return cuLaunchKernel(f) + 1; }";

#[test]
fn a_runtime_that_is_loaded_twice_is_probed_in_both_places() {
    or_skip!();
    let (log, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let driver = compile_as(folder.path(), "libcuda.so.1", DRIVER, &[]);
    let beside = format!("-Wl,-rpath,{}", folder.path().display());
    let linked = [driver.to_str().unwrap(), &beside];
    let runtime = compile_as(folder.path(), "libcudart.so.12", ON_DRIVER, &linked);
    let path = runtime.to_str().unwrap().to_owned();
    let again = format!("new:{path}");
    // Two files, each mapped twice: what the second runtime asks of the second driver is its own half, too.
    all_launches_are_counted_once(several(&[path, again], log.path()), 2, 2);
}

fn all_launches_are_counted_once(mut program: Calls, runtimes: u64, files: usize) {
    let pid = program.waits_before("start").unwrap();
    let observation = Observation::start(pid, &[]).unwrap();
    assert!(code::is_probed(pid, files).unwrap());
    let made = program.make().unwrap();
    let report = observation.stop().unwrap();
    let summary = &report.summary;
    assert_eq!(made.calls["cudaLaunchKernel"], 300 * runtimes);
    assert_eq!(summary.call("cudaLaunchKernel"), 300 * runtimes);
    assert_eq!(summary.call("cuLaunchKernel"), 300 * runtimes, "each goes on to the driver");
    assert_eq!(summary.launches.total, 300 * runtimes);
    assert_eq!(summary.coverage.len(), files);
    nothing_lost(summary);
    program.end().unwrap();
}
