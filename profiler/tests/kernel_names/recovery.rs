//! Every way in which gcc and ld lay out registration code gives every kernel, and nothing that is not one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use profiler::symbol::image::Image;
use profiler::symbol::registration::{self, Registration};
use profiler::symbol::{Evidence, mangle, symtab, table::Table};

use crate::programs::{Build, Nvcc, device_name, host_symbol};

/// How code can be compiled and linked.
const WAYS: [&[&str]; 9] = [
    &["-O0"],
    &["-O2"],
    &["-O2", "-fno-plt"],
    &["-O2", "-fcf-protection=full", "-Wl,-z,ibtplt"],
    &["-O2", "-Wl,-z,now"],
    &["-O2", "-Wl,-z,pack-relative-relocs"],
    &["-Os"],
    &["-O3", "-fno-omit-frame-pointer"],
    &["-O2", "-no-pie", "-fno-pie"],
];

pub fn read(path: &Path) -> Registration {
    registration::read(&Image::open(path).unwrap())
}

#[test]
fn every_kernel_of_a_stripped_library_is_found() {
    let folder = tempfile::tempdir().unwrap();
    for nvcc in [Nvcc::Twelve, Nvcc::Thirteen] {
        for (index, way) in WAYS.into_iter().enumerate() {
            let build = Build::new(nvcc, way);
            let Some(path) = build.build(folder.path(), &format!("way{index}")) else { return };
            check(&build, &read(&path), &format!("{nvcc:?} {way:?}"));
        }
    }
}

fn check(build: &Build, found: &Registration, what: &str) {
    let names: BTreeSet<String> = found.kernels.values().cloned().collect();
    assert_eq!(names, build.names().into_iter().collect(), "{what}: {:?}", found.counts);
    assert_eq!(found.kernels.len(), build.kernels, "{what}");
    assert!(found.counts.complete(), "{what}: {:?}", found.counts);
    let handles = if build.nvcc == Nvcc::Thirteen { build.kernels } else { 0 };
    assert_eq!(found.handles.len(), handles, "{what}: {:?}", found.counts);
    let hosts: BTreeSet<u64> = found.handles.values().copied().collect();
    assert!(hosts.iter().all(|host| found.kernels.contains_key(host)), "{what}");
    assert_eq!(hosts.len(), handles, "{what}: each handle is of another kernel");
}

/// Ground truth: the linker's own table says which name stands where.
#[test]
fn code_and_symbols_agree() {
    let folder = tempfile::tempdir().unwrap();
    for nvcc in [Nvcc::Twelve, Nvcc::Thirteen] {
        let build = Build { stripped: false, ..Build::new(nvcc, &["-O2"]) };
        let Some(path) = build.build(folder.path(), "whole") else { return };
        let image = Image::open(&path).unwrap();
        let found = registration::read(&image);
        check(&build, &found, "whole");
        let addresses = found.kernels.keys().copied().collect();
        let symbols = symtab::names_at(&image, symtab::Table::Full, &addresses);
        for (host, name) in &found.kernels {
            assert!((0..build.kernels).any(|k| symbols[host] == [host_symbol(k)] && *name == device_name(k)));
            assert_eq!(mangle::device_name(&symbols[host][0]), *name);
        }
        let by_symbol: BTreeMap<u64, String> = symtab::handle_variables(&image);
        let by_code: BTreeMap<u64, String> =
            found.handles.iter().map(|(variable, host)| (*variable, found.kernels[host].clone())).collect();
        assert_eq!(by_code, by_symbol);
    }
}

/// The runtime is linked in and everything is stripped: only how it is called tells the function.
#[test]
fn a_runtime_of_its_own_is_found_by_how_it_is_called() {
    let folder = tempfile::tempdir().unwrap();
    for (index, way) in
        [&["-O2"][..], &["-O0"], &["-Os"], &["-O2", "-no-pie", "-fno-pie"]].into_iter().enumerate()
    {
        // Two kernels are enough: the constraints decide, not a majority.
        for kernels in [2, 40] {
            let build = Build { own_runtime: true, kernels, ..Build::new(Nvcc::Twelve, way) };
            let hidden =
                Build { flags: [&build.flags[..], &["-fvisibility=hidden"]].concat(), ..build.clone() };
            let Some(path) = hidden.build(folder.path(), &format!("own{index}_{kernels}")) else { return };
            check(&build, &read(&path), &format!("{way:?}"));
        }
    }
}

#[test]
fn what_does_not_match_is_no_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("odd.c");
    let odd = "typedef void *P; typedef const char *S;\n\
        extern void __cudaRegisterFunction(P *, S, char *, S, int, P, P, P, P, int *);\n\
        __attribute__((section(\".nv_fatbin\"))) const char fatbin[8] = \"x\";\n\
        void host_0(void) {} void host_1(void) {} int data; extern S from_elsewhere; extern int choice;\n\
        void __attribute__((constructor)) all(S given) {\n\
          __cudaRegisterFunction(0, (S)host_0, (char *)\"good\", \"good\", -1, 0, 0, 0, 0, 0);\n\
          __cudaRegisterFunction(0, (S)host_1, (char *)given, given, -1, 0, 0, 0, 0, 0);\n\
          __cudaRegisterFunction(0, (S)&data, (char *)\"no_code\", \"no_code\", -1, 0, 0, 0, 0, 0);\n\
          __cudaRegisterFunction(0, (S)host_1, (char *)\"one\", \"other\", -1, 0, 0, 0, 0, 0);\n\
          __cudaRegisterFunction(0, (S)host_1, (char *)\"not a name\", \"not a name\", -1, 0, 0, 0, 0, 0);\n\
          S either = choice ? \"either\" : \"or\";\n\
          __cudaRegisterFunction(0, (S)host_1, (char *)either, either, -1, 0, 0, 0, 0, 0);\n\
        }\n";
    std::fs::write(&source, odd).unwrap();
    let library = folder.path().join("libodd.so");
    let mut gcc = std::process::Command::new("gcc");
    let Ok(output) =
        gcc.args(["-w", "-O1", "-shared", "-fPIC", "-s", "-o"]).arg(&library).arg(&source).output()
    else {
        println!("skipped: no C compiler (gcc)");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = read(&library);
    assert_eq!(found.kernels.values().collect::<Vec<_>>(), ["good"]);
    assert_eq!((found.counts.registers, found.counts.registered), (6, 1));
    assert!(!found.counts.complete());
}

/// Two kernels whose host functions a linker has folded cannot be told apart by it.
#[test]
fn a_folded_host_function_names_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("folded.c");
    let text = "typedef void *P; typedef const char *S;\n\
        extern void __cudaRegisterFunction(P *, S, char *, S, int, P, P, P, P, int *);\n\
        __attribute__((section(\".nv_fatbin\"))) const char fatbin[8] = \"x\";\n\
        void host(void) {} void alone(void) { host(); }\n\
        void __attribute__((constructor)) all(void) {\n\
          __cudaRegisterFunction(0, (S)host, (char *)\"one\", \"one\", -1, 0, 0, 0, 0, 0);\n\
          __cudaRegisterFunction(0, (S)host, (char *)\"two\", \"two\", -1, 0, 0, 0, 0, 0);\n\
          __cudaRegisterFunction(0, (S)alone, (char *)\"three\", \"three\", -1, 0, 0, 0, 0, 0);\n\
        }\n";
    std::fs::write(&source, text).unwrap();
    let library = folder.path().join("libfolded.so");
    let mut gcc = std::process::Command::new("gcc");
    let Ok(output) =
        gcc.args(["-w", "-O2", "-shared", "-fPIC", "-s", "-o"]).arg(&library).arg(&source).output()
    else {
        println!("skipped: no C compiler (gcc)");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = read(&library);
    assert_eq!(found.kernels.values().collect::<Vec<_>>(), ["three"]);
    assert_eq!(found.ambiguous.len(), 1);
    let table = Table::of(&Image::open(&library).unwrap(), false);
    assert!(found.ambiguous.iter().all(|host| table.is_ambiguous(*host) && table.kernel(*host).is_none()));
}

/// The code of NVIDIA's own libraries is not read, whatever it looks like.
#[test]
fn nvidias_own_library_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let build = Build::new(Nvcc::Thirteen, &["-O2", "-Wl,-soname,libcublasLt.so.13"]);
    let Some(path) = build.build(folder.path(), "renamed") else { return };
    let image = Image::open(&path).unwrap();
    assert!(profiler::symbol::vendor::is_nvidias(&image, "librenamed.so"), "by its own name");
    let other = Build::new(Nvcc::Thirteen, &["-O2"]).build(folder.path(), "third").unwrap();
    let third = Image::open(&other).unwrap();
    assert!(!profiler::symbol::vendor::is_nvidias(&third, "libthird.so"));
    assert!(profiler::symbol::vendor::is_nvidias(&third, "libcudart-d0da41ae.so.12.9"), "by its file's name");
    assert_eq!(Table::of(&image, true).kernels().count(), 0);
    let table = Table::of(&third, false);
    assert_eq!(table.kernels().count(), 20);
    assert!(table.kernels().all(|(_, _, evidence)| evidence == Evidence::Registration));
}
