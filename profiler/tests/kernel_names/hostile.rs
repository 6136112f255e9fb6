//! Broken and hostile files: whatever is in them, reading ends, soon, in bounded memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use profiler::symbol::code::{self, Function, Imports, Surroundings, Wanted};
use profiler::symbol::image::Image;
use profiler::symbol::table::{self, Table};
use profiler::symbol::{symtab, vendor};
use proptest::prelude::*;

use crate::programs::{Build, Nvcc};

/// Counts what is allocated, so that a file that makes a reader hold too much is seen.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MOST.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract that the system's allocator has.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract that the system's allocator has.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What all tests of this program may hold at a time; the files have 20 KB.
const MOST_MEMORY: usize = 256 << 20;
/// One file of 20 KB; a loaded machine is slow.
const MOST_TIME: Duration = Duration::from_secs(20);

/// Whole files to start from: none where there is no compiler.
fn seeds() -> &'static [Vec<u8>] {
    static SEEDS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let builds = [
            Build::new(Nvcc::Thirteen, &["-O2"]),
            Build { stripped: false, ..Build::new(Nvcc::Thirteen, &["-O0"]) },
            Build { own_runtime: true, ..Build::new(Nvcc::Twelve, &["-O2", "-fvisibility=hidden"]) },
        ];
        let built =
            builds.iter().enumerate().filter_map(|(i, b)| b.build(folder.path(), &format!("seed{i}")));
        built.map(|path| std::fs::read(path).unwrap()).collect()
    })
}

/// Everything that is ever read of a file.
fn read_all(bytes: Vec<u8>) {
    let started = Instant::now();
    if let Ok(image) = Image::new(Box::new(bytes)) {
        let _ = vendor::is_nvidias(&image, "libx.so");
        let table = Table::of(&image, false);
        let identity = table::identity(&image);
        assert_eq!(Table::from_bytes(&table.to_bytes(&identity), &identity), Some(table));
        let addresses = (0..64).map(|i| 0x1000 + i * 16).collect();
        for kind in [symtab::Table::Full, symtab::Table::Dynamic] {
            let _ = symtab::names_at(&image, kind, &addresses);
        }
        let _ = symtab::handle_variables(&image);
    }
    assert!(started.elapsed() < MOST_TIME, "{:?}", started.elapsed());
    assert!(MOST.load(Relaxed) < MOST_MEMORY, "{} bytes", MOST.load(Relaxed));
}

/// A number that hurts where a size or an offset is expected.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(u64::MAX),
        Just(u64::MAX - 7),
        Just(1 << 63),
        Just(1 << 40),
        Just(u64::from(u32::MAX)),
        any::<u64>(),
        0..0x8000_u64,
    ]
}

fn config() -> ProptestConfig {
    // What was found is fixed; a file of seeds would not fit programs that each machine's compiler builds anew.
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn hostile_files_end(
        seed in any::<prop::sample::Index>(),
        cut in prop::option::weighted(0.3, any::<prop::sample::Index>()),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
        headers in prop::collection::vec((0_usize..600, number()), 0..4),
        words in prop::collection::vec((any::<prop::sample::Index>(), number()), 0..6),
    ) {
        let seeds = seeds();
        prop_assume!(!seeds.is_empty());
        let mut bytes = seeds[seed.index(seeds.len())].clone();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
        }
        // The file's and the segments' headers stand at its start, the sections' at its end.
        for (at, number) in headers {
            let at = if at % 2 == 0 { at / 8 * 8 } else { bytes.len() - 8 - at / 8 * 8 };
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        for (at, number) in words {
            let at = at.index(bytes.len() / 8) * 8;
            let end = bytes.len().min(at + 8);
            bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
        }
        bytes[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        read_all(bytes);
    }

    /// Unwind tables decide what is decoded.
    #[test]
    fn hostile_unwind_tables_end(
        words in prop::collection::vec((any::<prop::sample::Index>(), any::<u32>()), 1..40),
    ) {
        let seeds = seeds();
        prop_assume!(!seeds.is_empty());
        let mut bytes = seeds[0].clone();
        let image = Image::new(Box::new(bytes.clone())).unwrap();
        let names = [".eh_frame", ".eh_frame_hdr", ".rela.dyn", ".rela.plt", ".dynamic", ".init_array"];
        let sections: Vec<_> = names.iter().filter_map(|name| image.section(name)).collect();
        for (at, word) in words {
            let section = sections[word as usize % sections.len()];
            let at = section.offset as usize + at.index(section.size as usize / 4) * 4;
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        read_all(bytes);
    }

    #[test]
    fn any_bytes_are_decoded(code in prop::collection::vec(any::<u8>(), 0..4096), arm in any::<bool>()) {
        let image = crate::arm::image(if arm { 183 } else { 62 }, &code);
        let imports = Imports::of(&image);
        let wanted = Wanted { all: true, ..Wanted::default() };
        let around = Surroundings { image: &image, imports: &imports, wanted: &wanted };
        for (start, end) in [(0x1_0000, 0x1_0000 + code.len() as u64), (0, u64::MAX), (0x1_0003, 0x1_0001)] {
            let _ = code::calls(Function { start, end }, &around);
        }
    }
}
