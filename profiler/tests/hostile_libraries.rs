//! Damaged and hostile ELF files under the inspection of libraries: it ends, soon, in bounded memory, and chooses no
//! site outside the file. In: a small library with a linked-in CUDA runtime, made here, then cut, flipped and lied
//! in. `PROPTEST_CASES` sets how long it goes on.

#![expect(clippy::unwrap_used, reason = "a test ends at its first surprise")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use profiler::attach::{Cost, Library, LibraryError, Role, inspect};
use profiler::probe::{Layer, api};
use proptest::prelude::*;

/// Counts what is held at once.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is left to the system's allocator; only sizes are added up.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, and it is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, and it is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Held by the test that measures.
static ALONE: Mutex<()> = Mutex::new(());
/// What an inspection may hold: the names (64 MiB) and functions (2 million, in a table that doubles) of one file.
const MOST_MEMORY: usize = 300 << 20;
/// How long the worst file may take on a loaded machine; ordinary ones take a millisecond.
const MOST_TIME: Duration = Duration::from_secs(20);

/// Inspects these bytes as a file of that length, with its limits checked.
fn look(bytes: &[u8], length: u64, layer: Option<Layer>) -> Result<Library, LibraryError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file.as_file().set_len(length).unwrap();
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let start = Instant::now();
    let looked = inspect(file.path(), layer);
    assert!(start.elapsed() < MOST_TIME, "{:?}", start.elapsed());
    let peak = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    assert!(peak < MOST_MEMORY, "{peak} bytes");
    if let Ok(library) = &looked {
        assert!(library.points.iter().all(|point| point.offset < length), "{library:?}");
    }
    looked
}

fn plain(bytes: &[u8], layer: Option<Layer>) -> Result<Library, LibraryError> {
    look(bytes, bytes.len() as u64, layer)
}

/// What is added to offsets to get addresses.
const BASE: u64 = 0x10000;

/// Sections in their order, as name, type (`SHT_*`), contents and the index of the section that they refer to.
type Sections = Vec<(&'static str, u32, Vec<u8>, u32)>;

const PROGBITS: u32 = 1;
const SYMTAB: u32 = 2;
const STRTAB: u32 = 3;
const DYNAMIC: u32 = 6;
const NOTE: u32 = 7;
const DYNSYM: u32 = 11;

/// The text: one function every 16 bytes, all of which begin with `push rbp`.
const FUNCTIONS: [&str; 6] = [
    "libcudart_static_0123456789abcdef",
    "cudaLaunchKernel",
    "libcudart_static_fedcba9876543210",
    "cudaMemcpyAsync",
    "main",
    "cudaMalloc",
];
const TEXT: u64 = 0x1000;

/// A library whose dynamic symbols are those of a runtime, and which has one linked in as well.
fn library() -> Vec<u8> {
    let (mut names, mut symbols) = (vec![0], vec![0; 24]);
    for (index, name) in FUNCTIONS.iter().enumerate() {
        symbols.extend((names.len() as u32).to_le_bytes());
        // A global function in section 1.
        symbols.extend([0x12, 0, 1, 0]);
        symbols.extend((BASE + TEXT + 16 * index as u64).to_le_bytes());
        symbols.extend(16u64.to_le_bytes());
        names.extend(name.as_bytes());
        names.push(0);
    }
    let text = [[0x55, 0x5d, 0xc3].as_slice(), &[0xcc; 13]].concat().repeat(FUNCTIONS.len());
    let note = [4u32, 20, 3].map(u32::to_le_bytes).concat();
    // DT_SONAME (14) is the second name.
    let dynamic = [14u64, 35, 0, 0].map(u64::to_le_bytes).concat();
    let sections: Sections = vec![
        ("", 0, Vec::new(), 0),
        (".text", PROGBITS, text, 0),
        (".symtab", SYMTAB, symbols.clone(), 3),
        (".strtab", STRTAB, names.clone(), 0),
        (".dynsym", DYNSYM, symbols, 5),
        (".dynstr", STRTAB, names, 0),
        (".dynamic", DYNAMIC, dynamic, 5),
        (".note.gnu.build-id", NOTE, [note, b"GNU\0".to_vec(), vec![7; 20]].concat(), 0),
        (".nv_fatbin", PROGBITS, vec![1; 64], 0),
    ];
    assemble(sections)
}

fn assemble(mut sections: Sections) -> Vec<u8> {
    let mut section_names = Vec::new();
    let mut starts = Vec::new();
    for name in sections.iter().map(|section| section.0).chain([".shstrtab"]) {
        starts.push(section_names.len() as u32);
        section_names.extend(name.as_bytes());
        section_names.push(0);
    }
    sections.push((".shstrtab", STRTAB, section_names, 0));
    let (count, table) = (sections.len() as u16, 0x200_u64);
    let mut bytes = header(count, table);
    // One loaded, executable segment holds the whole file.
    bytes.extend([1u32, 5].map(u32::to_le_bytes).concat());
    bytes.extend([0, BASE, BASE, 0x4000, 0x4000, 0x1000].map(u64::to_le_bytes).concat());
    bytes.resize(table as usize, 0);
    let mut contents = Vec::new();
    for ((_, kind, data, link), name) in sections.into_iter().zip(starts) {
        let offset = TEXT + contents.len() as u64;
        bytes.extend([name, kind].map(u32::to_le_bytes).concat());
        bytes.extend([0, BASE + offset, offset, data.len() as u64].map(u64::to_le_bytes).concat());
        bytes.extend([link, 0].map(u32::to_le_bytes).concat());
        bytes.extend([1u64, 24].map(u64::to_le_bytes).concat());
        contents.extend(data);
    }
    assert!(bytes.len() <= TEXT as usize);
    bytes.resize(TEXT as usize, 0);
    bytes.extend(contents);
    bytes.resize(0x4000, 0);
    bytes
}

/// A 64-bit little-endian shared object for x86-64 with one program header and `count` section headers at `table`.
fn header(count: u16, table: u64) -> Vec<u8> {
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend([3u16, 62].map(u16::to_le_bytes).concat());
    bytes.extend(1u32.to_le_bytes());
    bytes.extend([0, 64, table].map(u64::to_le_bytes).concat());
    bytes.extend(0u32.to_le_bytes());
    bytes.extend([64, 56, 1, 64, count, count - 1].map(u16::to_le_bytes).concat());
    bytes
}

fn symbols(library: &Library) -> Vec<&'static str> {
    library.points.iter().filter_map(|point| Some(api(point.api)?.symbol)).collect()
}

#[test]
fn the_library_is_what_it_should_be_before_it_is_damaged() {
    let linked = plain(&library(), None).unwrap();
    assert_eq!(linked.roles, [Role::LinkedRuntime]);
    assert_eq!(symbols(&linked), ["cudaLaunchKernel", "cudaMemcpyAsync"], "the host's cudaMalloc is none");
    assert_eq!(linked.runtime_code, [(TEXT, TEXT + 4 * 16)]);
    assert_eq!(linked.soname.as_deref(), Some("cudaLaunchKernel"));
    assert_eq!(linked.build_id, Some("07".repeat(20)));
    let shared = plain(&library(), Some(Layer::Runtime)).unwrap();
    assert_eq!(shared.roles, [Role::Shared(Layer::Runtime)]);
    assert_eq!(shared.count(Cost::Emulated), 3);
}

#[test]
fn a_symbol_table_of_a_billion_billion_entries() {
    let mut bytes = library();
    // Sizes of .symtab and .dynsym, at 32 in their headers.
    for section in [2, 4] {
        let at = 0x200 + 64 * section + 32;
        bytes[at..at + 8].copy_from_slice(&(24u64 << 60).to_le_bytes());
    }
    // The file is as long as it says, and as empty.
    for layer in [None, Some(Layer::Runtime)] {
        look(&bytes, 1 << 40, layer).unwrap();
    }
    let mut names = library();
    for section in [3, 5] {
        let at = 0x200 + 64 * section + 32;
        names[at..at + 8].copy_from_slice(&(1u64 << 39).to_le_bytes());
    }
    for layer in [None, Some(Layer::Runtime)] {
        look(&names, 1 << 40, layer).unwrap();
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_read() {
    // The length is taken at the start; what has gone since is not there.
    let file = tempfile::NamedTempFile::new().unwrap();
    File::write_all_at(file.as_file(), &library(), 0).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for length in [0, 0x100, 0x1010, 0x4000] {
                    file.as_file().set_len(length).unwrap();
                }
                File::write_all_at(file.as_file(), &library(), 0).unwrap();
            }
        });
        for _ in 0..500 {
            let _ = inspect(file.path(), Layer::Runtime);
            let _ = inspect(file.path(), None);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

fn layer() -> impl Strategy<Value = Option<Layer>> {
    prop::sample::select(vec![None, Some(Layer::Runtime), Some(Layer::Driver), Some(Layer::Nccl)])
}

/// Values that break sums, products and comparisons.
fn nasty() -> impl Strategy<Value = u64> {
    let fixed = [
        0,
        1,
        23,
        24,
        25,
        0x3fff,
        0x4000,
        0x4001,
        1 << 31,
        1 << 32,
        1 << 60,
        1 << 63,
        u64::MAX - 1,
        u64::MAX,
    ];
    prop_oneof![prop::sample::select(fixed.to_vec()), any::<u64>(), 0u64..0x4000]
}

proptest! {
    #[test]
    fn cut_anywhere(length in 0usize..0x4000, layer in layer()) {
        let _ = plain(&library()[..length], layer);
    }

    #[test]
    fn bytes_changed_anywhere(changes in prop::collection::vec((0usize..0x2000, any::<u8>()), 1..24), layer in layer()) {
        let mut bytes = library();
        changes.into_iter().for_each(|(at, byte)| bytes[at] = byte);
        let _ = plain(&bytes, layer);
    }

    /// Lies in the headers and tables, where every word is a size, an offset or a count.
    #[test]
    fn words_that_lie(lies in prop::collection::vec((0usize..0x2000 / 4, nasty()), 1..12), layer in layer()) {
        let mut bytes = library();
        for (word, lie) in lies {
            bytes[4 * word..4 * word + 8].copy_from_slice(&lie.to_le_bytes());
        }
        // The beginning stays that of an ELF file, or nothing else would be read.
        bytes[..20].copy_from_slice(&library()[..20]);
        let _ = plain(&bytes, layer);
    }

    #[test]
    fn bytes_of_any_kind(bytes in prop::collection::vec(any::<u8>(), 0..4096), layer in layer()) {
        let _ = plain(&bytes, layer);
    }
}
