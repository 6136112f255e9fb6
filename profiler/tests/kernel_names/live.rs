//! Names of a running process: this one, which loads libraries made for it; and what is learnt from probes.

use std::ffi::{CString, c_void};
use std::path::Path;

use profiler::symbol::cache::Cache;
use profiler::symbol::{Evidence, Name, Names, Reason};
use profiler::target;

use crate::programs::{Build, Nvcc, device_name};

/// What a test needs of a loaded library.
struct Loaded(*mut c_void);

impl Loaded {
    fn open(path: &Path) -> Self {
        let path = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the path is a C string, and what the library runs when loaded is our own.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        assert!(!handle.is_null());
        Self(handle)
    }

    fn symbol(&self, name: &str) -> *mut c_void {
        let name = CString::new(name).unwrap();
        // SAFETY: the library is loaded, the name a C string.
        unsafe { libc::dlsym(self.0, name.as_ptr()) }
    }

    /// Launches a kernel and says what was passed to the launch: the handle.
    fn launch(&self, kernel: usize) -> u64 {
        let host = self.symbol(&crate::programs::host_symbol(kernel));
        assert!(!host.is_null(), "{kernel}");
        // SAFETY: every host function of these libraries takes a pointer, which it does not follow.
        let host: extern "C" fn(*mut f32) = unsafe { std::mem::transmute(host) };
        host(std::ptr::null_mut());
        // SAFETY: the runtime's variable is a pointer-sized word that only this thread writes.
        unsafe { *self.symbol("last_launched").cast::<u64>() }
    }
}

fn known(name: &Name) -> (&str, Evidence) {
    match name {
        Name::Known(kernel) => (&kernel.symbol, kernel.evidence),
        Name::Unknown(reason) => panic!("{reason:?}"),
    }
}

/// Odd kernels are exported, so that the test can call them.
#[test]
fn handles_that_were_made_before_anybody_looked_have_names() {
    let folder = tempfile::tempdir().unwrap();
    let Some(path) = Build::new(Nvcc::Thirteen, &["-O2"]).build(folder.path(), "late13") else { return };
    let library = Loaded::open(&path);
    let handles: Vec<(usize, u64)> = [1, 3, 5].map(|kernel| (kernel, library.launch(kernel))).to_vec();
    let pid = std::process::id();
    let mappings = target::mappings(pid).unwrap();
    let cache = Cache::at(&folder.path().join("cache"));
    for run in ["cold", "kept"] {
        let mut names = Names::new(cache.clone());
        let mut functions: Vec<u64> = handles.iter().map(|(_, handle)| *handle).collect();
        functions.push(0x7fff_0000_1234);
        names.resolve(pid, &mappings, &functions);
        for (kernel, handle) in &handles {
            assert_eq!(
                known(&names.name(pid, *handle)),
                (device_name(*kernel).as_str(), Evidence::Registration),
                "{run}"
            );
        }
        assert_eq!(names.name(pid, 0x7fff_0000_1234), Name::Unknown(Reason::OpaqueHandle));
    }
    assert!(folder.path().join("cache").read_dir().unwrap().count() >= 1);
}

#[test]
fn host_functions_have_one_name_however_it_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let Some(path) = Build::new(Nvcc::Twelve, &["-O2"]).build(folder.path(), "late12") else { return };
    let library = Loaded::open(&path);
    let hosts: Vec<(usize, u64)> = [1, 3].map(|kernel| (kernel, library.launch(kernel))).to_vec();
    let pid = std::process::id();
    let mappings = target::mappings(pid).unwrap();
    let mut names = Names::new(Cache::none());
    for (kernel, host) in &hosts {
        names.resolve(pid, &mappings, &[*host]);
        assert_eq!(known(&names.name(pid, *host)), (device_name(*kernel).as_str(), Evidence::Registration));
    }
    // Within a function nothing starts.
    names.resolve(pid, &mappings, &[hosts[0].1 + 1]);
    assert_eq!(names.name(pid, hosts[0].1 + 1), Name::Unknown(Reason::NoSymbol));
}

#[test]
fn what_probes_saw_names_at_once_and_later() {
    let (pid, mut names) = (1, Names::new(Cache::none()));
    names.learn_host(pid, 0x1000, "_Z4spinPfi");
    names.learn_handle(pid, 0x2000, "triton_poi_fused_add_0", false);
    names.learn_alias(pid, 0x3000, 0x1000);
    names.learn_alias(pid, 0x3001, 0x3000);
    names.resolve(pid, &[], &[0x1000, 0x2000, 0x3001, 0x4000, 0x5000]);
    for (function, symbol, evidence) in [
        (0x1000, "_Z4spinPfi", Evidence::Registered),
        (0x2000, "triton_poi_fused_add_0", Evidence::Driver),
        (0x3001, "_Z4spinPfi", Evidence::Registered),
    ] {
        assert_eq!(known(&names.name(pid, function)), (symbol, evidence));
    }
    assert_eq!(names.name(pid, 0x4000), Name::Unknown(Reason::ProcessGone));
    // Learnt only after the launch was asked for.
    names.learn_handle(pid, 0x4000, "late", false);
    names.learn_alias(pid, 0x5000, 0x4000);
    names.resolve(pid, &[], &[]);
    assert_eq!(known(&names.name(pid, 0x4000)).0, "late");
    assert_eq!(known(&names.name(pid, 0x5000)).0, "late");
    // A name that was cut short names its handle only.
    for handle in [0x6000, 0x6001] {
        names.learn_handle(pid, handle, "_ZN7cutlass7Kernel2I4lo", true);
    }
    names.resolve(pid, &[], &[0x6000, 0x6001]);
    let cut = [0x6000, 0x6001].map(|handle| known(&names.name(pid, handle)).0.to_owned());
    assert_eq!(cut, ["_ZN7cutlass7Kernel2I4lo…0x6000", "_ZN7cutlass7Kernel2I4lo…0x6001"]);
    // Another process's handle of the same value is another handle.
    names.resolve(2, &[], &[0x2000]);
    assert_eq!(names.name(2, 0x2000), Name::Unknown(Reason::ProcessGone));
    // The account outlives the process.
    names.forget(pid);
    assert_eq!(known(&names.name(pid, 0x2000)).0, "triton_poi_fused_add_0");
    assert_eq!(names.counts().learnt, 0);
}

#[test]
fn a_handle_that_stood_for_two_kernels_names_neither() {
    let (pid, mut names) = (1, Names::new(Cache::none()));
    names.learn_handle(pid, 0x2000, "unloaded_before_any_launch", false);
    names.learn_handle(pid, 0x2000, "first", false);
    names.resolve(pid, &[], &[0x2000]);
    assert_eq!(known(&names.name(pid, 0x2000)).0, "first");
    names.learn_handle(pid, 0x2000, "second", false);
    names.resolve(pid, &[], &[]);
    assert_eq!(names.name(pid, 0x2000), Name::Unknown(Reason::HandleReused));
    assert_eq!(names.counts().reused, 1);
    names.learn_handle(pid, 0x2000, "first", false);
    names.resolve(pid, &[], &[]);
    assert_eq!(names.name(pid, 0x2000), Name::Unknown(Reason::HandleReused), "for good");
}

#[test]
fn short_names_are_told_apart_and_loops_of_aliases_end() {
    let (pid, mut names) = (1, Names::new(Cache::none()));
    names.learn_host(pid, 1, "_Z4gemmPf");
    names.learn_host(pid, 2, "_Z4gemmPd");
    names.learn_alias(pid, 3, 4);
    names.learn_alias(pid, 4, 3);
    names.resolve(pid, &[], &[1, 2, 3]);
    let short = |function| match names.name(pid, function) {
        Name::Known(kernel) => kernel.short.to_string(),
        Name::Unknown(reason) => reason.name().to_owned(),
    };
    let shorts = [short(1), short(2)];
    assert!(shorts.iter().any(|name| name == "gemm"), "{shorts:?}");
    assert!(shorts.iter().any(|name| name.starts_with("gemm~")), "{shorts:?}");
    assert_eq!(short(3), "process_gone");
}

/// What a registration probe passes on is where the name stands.
#[test]
fn names_are_read_where_they_stand() {
    let (pid, mut names) = (std::process::id(), Names::new(Cache::none()));
    let (name, long) = (c"_Z4spinPfi", CString::new("k".repeat(10_000)).unwrap());
    names.learn_host_at(pid, 1, name.as_ptr() as u64);
    names.learn_host_at(pid, 2, long.as_ptr() as u64);
    names.learn_host_at(pid, 3, 8);
    names.resolve(pid, &[], &[1, 2, 3]);
    assert_eq!(known(&names.name(pid, 1)), ("_Z4spinPfi", Evidence::Registered));
    assert_eq!(known(&names.name(pid, 2)).0.len(), 10_000);
    assert_eq!(names.name(pid, 3), Name::Unknown(Reason::ProcessGone));
}

/// Whoever names without end is cut off, and it shows.
#[test]
fn tables_are_bounded() {
    let mut names = Names::new(Cache::none());
    for index in 0..300_000 {
        names.learn_host(1, index, "k");
    }
    let counts = names.counts();
    assert_eq!(counts.learnt + counts.dropped, 300_000);
    assert!(counts.dropped > 0 && counts.learnt <= 1 << 18, "{counts:?}");
    names.learn_handle(2, 1, &"x".repeat(1 << 20), false);
    assert_eq!(names.counts().dropped, counts.dropped + 1, "a name is taken whole or not at all");
    names.forget(1);
    names.learn_host(3, 1, "room again");
    assert_eq!(names.counts().learnt, 1);
}
