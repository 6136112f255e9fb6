//! Kernel names of real libraries: registration code against symbol tables, stripped ones against what is known of them,
//! and what it costs.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use profiler::symbol::image::Image;
use profiler::symbol::registration::{self, Registration};
use profiler::symbol::short::{short, skeleton};
use profiler::symbol::{mangle, symtab, vendor};
use serde::Deserialize;
use xtask::server::{transformers, wheels};

/// Of the debug build on a loaded machine; the release build's figures are in docs/kernel-names.md.
const MOST_COLD_S: f64 = 15.0;
const MOST_WARM_MS: f64 = 500.0;
/// The goal itself: memory does not depend on how the program was built.
const MOST_RSS_KB: u64 = 150 << 10;

fn asked(what: &str) -> bool {
    let asked = std::env::var_os("GPUSPAN_SERVERS").is_some();
    if !asked {
        println!("skipped: {what}: real libraries are big; `cargo xtask test servers` fetches them");
    }
    asked
}

/// PyTorch 2.15 has 24,114 kernels, registered by CUDA 13's code, and keeps its symbols.
#[test]
fn names_of_libtorch_cuda() {
    if !asked("libtorch_cuda") {
        return;
    }
    let python = transformers::python().unwrap();
    let library = torch(&python);
    let image = Image::open(&library).unwrap();
    let found = registration::read(&image);
    assert!(found.kernels.len() > 20_000, "{:?}", found.counts);
    assert!(found.counts.complete(), "{:?}", found.counts);
    agrees_with_symbols(&image, &found);
    let variables = symtab::handle_variables(&image);
    assert!(variables.keys().eq(found.handles.keys()), "every handle's variable is found, and nothing else");
    short_names_differ(&found);
    costs_little(&library, found.kernels.len());
}

fn torch(python: &Path) -> PathBuf {
    let lib = python.parent().and_then(Path::parent).unwrap().join("lib");
    let versions = lib.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let mut found = versions.map(|version| version.join("site-packages/torch/lib/libtorch_cuda.so"));
    found.find(|library| library.exists()).expect("PyTorch is installed")
}

/// The linker's table is the truth about which name stands where; lambdas have other names on the host.
fn agrees_with_symbols(image: &Image, found: &Registration) {
    let hosts: HashSet<u64> = found.kernels.keys().copied().collect();
    let symbols = symtab::names_at(image, symtab::Table::Full, &hosts);
    assert_eq!(symbols.len(), hosts.len(), "every host function has a symbol");
    let (mut same, mut normalised, mut lambdas) = (0, 0, 0);
    for (host, name) in &found.kernels {
        let symbols = symbols.get(host).unwrap();
        if symbols.contains(name) {
            same += 1;
        } else if symbols.iter().any(|symbol| mangle::device_name(symbol) == *name) {
            normalised += 1;
        } else {
            let agrees = symbols.iter().any(|symbol| skeleton(symbol) == skeleton(name));
            assert!(agrees, "{host:#x}: {symbols:?} is registered as {name}");
            lambdas += 1;
        }
    }
    println!("{same} names are equal, {normalised} once normalised, {lambdas} but for their lambdas");
}

fn short_names_differ(found: &Registration) {
    let mut by_short: BTreeMap<String, HashSet<&str>> = BTreeMap::new();
    for name in found.kernels.values() {
        let short = short(name);
        assert!(short.chars().count() <= profiler::symbol::MOST_SHORT, "{short}");
        by_short.entry(short).or_default().insert(name);
    }
    let shared = by_short.values().filter(|names| names.len() > 1).count();
    println!("{} short names, {shared} of them for more than one kernel", by_short.len());
    // Those get their hash when they meet in one process.
    assert!(shared * 200 < by_short.len());
}

/// What the example `kernels` says of a file.
#[derive(Debug, Deserialize)]
struct Figures {
    kernels: usize,
    cold_s: f64,
    warm_ms: f64,
    equal: bool,
    rss_kb: u64,
    max_rss_kb: u64,
}

fn costs_little(library: &Path, kernels: usize) {
    let mut example = workload::cargo();
    example.args(["run", "-q", "-p", "profiler", "--example", "kernels", "--"]).arg(library);
    let output = example.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures: Figures = serde_json::from_slice(&output.stdout).unwrap();
    println!("{figures:?}");
    assert_eq!(figures.kernels, kernels);
    assert!(figures.equal, "what was kept is what was read");
    assert!(figures.cold_s < MOST_COLD_S && figures.warm_ms < MOST_WARM_MS, "{figures:?}");
    assert!(figures.rss_kb < MOST_RSS_KB && figures.max_rss_kb < MOST_RSS_KB, "{figures:?}");
}

/// sgl-kernel 0.3.21 is stripped; CUDA 12's code registers 2,556 and 4,709 kernels.
#[test]
fn names_of_a_stripped_wheel() {
    if !asked("sgl-kernel") {
        return;
    }
    let files = wheels::unpacked("sgl-kernel", "sgl-kernel==0.3.21", Some("manylinux2014_x86_64")).unwrap();
    for (library, registers) in
        [("sm90/common_ops.abi3.so", 2556), ("sm100/common_ops.abi3.so", 2556), ("flash_ops.abi3.so", 4709)]
    {
        let image = Image::open(&files.join("sgl_kernel").join(library)).unwrap();
        assert!(image.section(".symtab").is_none(), "{library} is stripped");
        assert!(!vendor::is_nvidias(&image, library));
        let found = registration::read(&image);
        println!("{library}: {:?}, {} host functions", found.counts, found.kernels.len());
        assert_eq!((found.counts.registers, found.counts.registered), (registers, registers), "{library}");
        // What the loader's table does name, it names alike.
        let hosts = found.kernels.keys().copied().collect();
        for (host, symbols) in symtab::names_at(&image, symtab::Table::Dynamic, &hosts) {
            assert!(
                symbols.iter().any(|s| mangle::device_name(s) == *found.kernels.get(&host).unwrap()),
                "{symbols:?}"
            );
        }
    }
}

/// bitsandbytes 0.50.2 comes for aarch64 and x86-64, for CUDA 12 and 13, with symbols: 202 kernels each.
#[test]
fn names_on_both_processors() {
    if !asked("bitsandbytes") {
        return;
    }
    for (folder, platform) in
        [("bitsandbytes-aarch64", "manylinux_2_24_aarch64"), ("bitsandbytes-x86_64", "manylinux_2_24_x86_64")]
    {
        let files = wheels::unpacked(folder, "bitsandbytes==0.50.2", Some(platform)).unwrap();
        for (version, handles) in [("126", 0), ("130", 202)] {
            let library = files.join(format!("bitsandbytes/libbitsandbytes_cuda{version}.so"));
            let image = Image::open(&library).unwrap();
            let found = registration::read(&image);
            println!("{}: {:?}", library.display(), found.counts);
            assert!(found.counts.complete(), "{:?}", found.counts);
            assert_eq!((found.kernels.len(), found.handles.len()), (202, handles));
            agrees_with_symbols(&image, &found);
        }
    }
}
