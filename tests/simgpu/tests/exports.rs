//! The libraries look like the real ones to a loader and to a uprobe. In: the built files. Out: names, versions and
//! first instructions compared with the lists in `names/`. Absent: running any code of them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, as tests do"
)]

use std::path::Path;

use object::read::elf::Sym as _;
use object::{Object, ObjectSymbol};
use simgpu::{Runtime, library_dir};

const LIBRARIES: &[(&str, &str)] = &[
    ("libcudart.so", "libcudart.so.13.txt"),
    ("libcuda.so.1", "libcuda.so.1.txt"),
    ("libnvidia-ml.so.1", "libnvidia-ml.so.1.txt"),
    ("libnccl.so.2", "libnccl.so.2.txt"),
    ("libcublas.so", "libcublas.so.txt"),
    ("libcublasLt.so", "libcublasLt.so.txt"),
];

/// `(name, first bytes)` of every exported function.
fn exports(path: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = std::fs::read(path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let symbols = file.dynamic_symbols().filter(|symbol| symbol.is_definition() && symbol.address() != 0);
    symbols
        .filter(|symbol| symbol.kind() == object::SymbolKind::Text)
        .map(|symbol| {
            let at = usize::try_from(symbol.address()).unwrap();
            (symbol.name().unwrap().to_owned(), bytes[at..at + 4].to_vec())
        })
        .collect()
}

fn libraries() -> Vec<(std::path::PathBuf, String)> {
    let mut all = Vec::new();
    for (runtime, major) in [(Runtime::Cuda12, "12"), (Runtime::Cuda13, "13")] {
        for (name, list) in LIBRARIES {
            let name = if name.ends_with(".so") { format!("{name}.{major}") } else { (*name).to_owned() };
            let list = list.replace("libcudart.so.13", &format!("libcudart.so.{major}"));
            all.push((library_dir(runtime).join(name), list));
        }
    }
    all
}

#[test]
fn every_name_of_the_real_library_is_exported_and_no_other() {
    for (path, list) in libraries() {
        let listed = std::fs::read_to_string(Path::new("names").join(&list)).unwrap();
        let listed: std::collections::BTreeSet<_> =
            listed.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
        let found: std::collections::BTreeSet<_> = exports(&path)
            .into_iter()
            .map(|(name, _)| name)
            .filter(|name| !name.starts_with("simgpu_"))
            .collect();
        let missing: Vec<_> = listed.difference(&found).collect();
        let added: Vec<_> = found.difference(&listed).collect();
        assert!(
            missing.is_empty() && added.is_empty(),
            "{}: missing {missing:?}, added {added:?}",
            path.display()
        );
    }
}

/// `push %rbp`: what the kernel emulates, as in the real libcudart. Anything else makes a probe cost ten times as much.
#[test]
#[cfg(target_arch = "x86_64")]
fn every_function_begins_with_push() {
    for (path, _) in libraries() {
        for (name, bytes) in exports(&path) {
            assert_eq!(bytes[0], 0x55, "{name} in {} begins with {bytes:x?}", path.display());
        }
    }
}

#[test]
fn runtime_symbols_carry_the_real_version() {
    for (runtime, name) in [(Runtime::Cuda12, "libcudart.so.12"), (Runtime::Cuda13, "libcudart.so.13")] {
        let bytes = std::fs::read(library_dir(runtime).join(name)).unwrap();
        let elf = object::read::elf::ElfFile64::<object::Endianness>::parse(&*bytes).unwrap();
        let (endian, sections) = (elf.endian(), elf.elf_section_table());
        let versions = sections.versions(endian, &*bytes).unwrap().expect("no symbol versions");
        let symbols = sections.symbols(endian, &*bytes, object::elf::SHT_DYNSYM).unwrap();
        let index = symbols
            .enumerate()
            .find(|(_, s)| s.name(endian, symbols.strings()).unwrap() == b"cudaMalloc")
            .unwrap()
            .0;
        let version =
            versions.version(versions.version_index(endian, index).into()).unwrap().expect("no version");
        assert_eq!(version.name(), name.as_bytes());
    }
}
