//! Where the threads of a process publish the span that they have active (OTEP 4947): ELF file and memory → [`Variable`].
//!
//! In: files that export the thread-local pointer `otel_thread_ctx_v1`, and the places in the process that its dynamic
//! linker has filled in. Out: how each thread finds its own, or why that cannot be said. Nothing of the pointer or of
//! what it leads to is read here. The ways to thread-local storage are those of Ulrich Drepper's "ELF Handling For
//! Thread-Local Storage" and Alexandre Oliva's "Thread-Local Storage Descriptors".

use super::elf::{Elf, Kind, Relocation, ThreadLocal};
use super::site::Machine;
use super::{Attached, Attacher};
use crate::target::{self, FileId, Mapping, ProcessContext};
use profiler_common::event::{Variable, flag};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// The pointer's name.
const NAME: &[u8] = b"\0otel_thread_ctx_v1\0";
/// How far the names of a file are searched.
const SEARCHED: u64 = 64 << 20;
/// Publishers by the proposal's first text leave the byte of the flags empty.
const BEFORE_FLAGS: &str = "tlsdesc_v1_dev";
/// Offsets from the thread pointer are smaller, addresses are larger. Static blocks have a few megabytes at most.
const LARGEST_OFFSET: u64 = 1 << 24;
/// Modules with thread-local variables are counted from 1.
const MOST_MODULES: u64 = 1 << 16;

/// Why the spans of a process's threads are not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpublished {
    /// The dynamic linker is not done.
    NotYet,
    /// Nothing in the file leads to it.
    NoWay,
    /// Its vector of blocks lies who knows where.
    UnknownLibc,
    /// It belongs to another machine.
    OtherMachine,
    /// What is needed of the process cannot be read.
    Unreadable,
    /// The kernel does not say where it keeps thread pointers.
    NoThreadPointer,
    /// The table is full.
    NoRoom,
}

impl Unpublished {
    /// What is not seen, and why.
    #[must_use]
    pub fn blind(self) -> &'static str {
        match self {
            Self::NotYet => {
                "its threads publish their active spans, which are not read: its dynamic linker has not placed them yet"
            }
            Self::NoWay => {
                "its threads publish their active spans, which are not read: no relocation of the file that defines them leads there"
            }
            Self::UnknownLibc => {
                "its threads publish their active spans, which are not read: its C library is neither glibc nor musl"
            }
            Self::OtherMachine => {
                "its threads publish their active spans, which are not read: the file is not for this machine"
            }
            Self::Unreadable => {
                "its threads publish their active spans, which are not read: its memory cannot be read"
            }
            Self::NoThreadPointer => {
                "its threads publish their active spans, which are not read: the kernel does not tell its types (BTF)"
            }
            Self::NoRoom => {
                "its threads publish their active spans, which are not read: too many processes publish"
            }
        }
    }
}

/// How a file's code gets to the variable, as its linker left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The program itself: its distance from the thread pointer is known when it is linked.
    Fixed(u64),
    /// A word with that distance, at this address.
    Distance(u64),
    /// Two words, module and offset.
    Pair(u64),
    /// A word with the module; the offset is known.
    Module(u64, u64),
    /// A function and its argument: the distance, or where module and offset stand.
    Descriptor(u64),
}

/// A file that exports the variable.
#[derive(Clone, Debug)]
pub struct Publisher {
    way: Result<Way, Unpublished>,
    /// Code's offsets in the file, and what leads from there to the addresses it was linked for.
    shift: Vec<(u64, u64)>,
}

impl Publisher {
    /// What a file says; none if it does not export the variable.
    #[must_use]
    pub fn of(elf: &Elf) -> Option<Self> {
        let (table, names) = elf.dynamic_table()?;
        let thread_local = elf.thread_local()?;
        if !elf.contains(names, NAME, SEARCHED) {
            return None;
        }
        let names = elf.load(names, SEARCHED)?;
        let (mut index, mut found) = (0, None);
        elf.symbols(table, |symbol| {
            let is_it = symbol.kind == Kind::ThreadLocal
                && symbol.defined
                && super::elf::name(&names, symbol.name)
                    .is_some_and(|name| NAME.get(1..NAME.len() - 1) == Some(name.as_bytes()));
            if is_it {
                found = Some((index, symbol.address));
            }
            index += 1;
            !is_it
        });
        let (index, offset) = found?;
        Some(Self { way: way(elf, index, offset, thread_local), shift: elf.code_shifts() })
    }

    /// Where each thread of a process has it. `mapping` is code of the file, `mappings` are all of the process.
    ///
    /// # Errors
    /// Why that cannot be said, or not yet.
    pub fn locate(&self, pid: u32, mapping: &Mapping, mappings: &[Mapping]) -> Result<Variable, Unpublished> {
        let memory = File::open(format!("/proc/{pid}/mem")).map_err(|_| Unpublished::Unreadable)?;
        let shift = self.shift.iter().rev().find(|(offset, _)| *offset <= mapping.offset);
        let shift = shift.map_or(0, |(_, shift)| *shift);
        let bias = mapping.start.wrapping_sub(mapping.offset).wrapping_sub(shift);
        let words = |address: u64| {
            let mut bytes = [0; 16];
            memory.read_exact_at(&mut bytes, address).map_err(|_| Unpublished::Unreadable)?;
            let both = u128::from_le_bytes(bytes);
            Ok([both as u64, (both >> 64) as u64])
        };
        let at = |address: u64| words(bias.wrapping_add(address));
        match self.way? {
            Way::Fixed(distance) => Ok(fixed(distance)),
            Way::Distance(address) => distance(at(address)?[0]).ok_or(Unpublished::NotYet),
            Way::Pair(address) => pair(at(address)?, mappings),
            Way::Module(address, offset) => pair([at(address)?[0], offset], mappings),
            Way::Descriptor(address) => match at(address)? {
                [0, _] | [_, 0] => Err(Unpublished::NotYet),
                [_, argument] => match distance(argument) {
                    Some(found) => Ok(found),
                    None => pair(words(argument)?, mappings),
                },
            },
        }
    }
}

/// A variable that lies at one distance from every thread's pointer.
fn fixed(distance: u64) -> Variable {
    Variable { offset: distance, ..Variable::default() }
}

/// The same, if the word is a distance.
fn distance(word: u64) -> Option<Variable> {
    let size = word.cast_signed().unsigned_abs();
    (size != 0 && size < LARGEST_OFFSET).then(|| fixed(word))
}

/// A variable in a module's block.
fn pair([module, offset]: [u64; 2], mappings: &[Mapping]) -> Result<Variable, Unpublished> {
    if module == 0 || module > MOST_MODULES || offset >= LARGEST_OFFSET {
        return Err(Unpublished::NotYet);
    }
    let [vector, entry, length] = vector(mappings).ok_or(Unpublished::UnknownLibc)?;
    Ok(Variable { module, offset, vector, entry, length, flags: 0 })
}

/// Where a C library keeps the thread's vector of blocks, from the thread pointer; bytes of an entry; where its length
/// lies, from its address.
///
/// * glibc: `tcbhead_t.dtv` (sysdeps/x86_64/nptl/tls.h, sysdeps/aarch64/nptl/tls.h); entries are a `dtv_t`, and the one
///   before the first has the length (elf/dl-tls.c, `_dl_allocate_dtv`).
/// * musl: `struct pthread.dtv`, the second word, or the last one before the thread pointer where blocks lie above it
///   (src/internal/pthread_impl.h); entries are words, of which the first is the length.
fn vector(mappings: &[Mapping]) -> Option<[u64; 3]> {
    let is_one = |prefix: &str| mappings.iter().any(|mapping| mapping.name().starts_with(prefix));
    let above = cfg!(target_arch = "aarch64");
    if is_one("ld-musl-") || is_one("libc.musl-") {
        return Some([if above { 8u64.wrapping_neg() } else { 8 }, 8, 0]);
    }
    let glibc = is_one("libc.so.6") || is_one("libc-2.") || is_one("ld-linux");
    glibc.then(|| [if above { 0 } else { 8 }, 16, 16u64.wrapping_neg()])
}

/// What leads to the variable in the file that defines it.
fn way(elf: &Elf, index: u32, offset: u64, block: ThreadLocal) -> Result<Way, Unpublished> {
    let machine = elf.machine();
    if machine != HERE {
        return Err(Unpublished::OtherMachine);
    }
    let kinds = Kinds::of(machine);
    let (mut best, mut module) = (None, None);
    elf.relocations(|Relocation { address, kind, symbol, addend }| {
        // Where a symbol cannot be replaced by another file's, the linker names none and adds its place.
        let is_own = symbol == index || symbol == 0 && addend == offset;
        match kind {
            _ if kind == kinds.distance && is_own => best = Some(Way::Distance(address)),
            _ if kind == kinds.descriptor && is_own => best = Some(Way::Descriptor(address)),
            _ if kind == kinds.module && symbol == index => best = Some(Way::Pair(address)),
            _ if kind == kinds.module && symbol == 0 => module = Some(Way::Module(address, offset)),
            _ => {}
        }
        best.is_none()
    });
    let program = elf.section(".interp").is_some() || !elf.is_movable();
    let own = program.then(|| Way::Fixed(of_program(machine, offset, block)));
    best.or(own).or(module).ok_or(Unpublished::NoWay)
}

/// How far a variable of the program lies from the thread pointer. On x86-64 the program's block ends there, rounded up;
/// on aarch64 it begins behind two words.
fn of_program(machine: Machine, offset: u64, block: ThreadLocal) -> u64 {
    match machine {
        Machine::X86_64 => offset.wrapping_sub(block.size.checked_next_multiple_of(block.align).unwrap_or(0)),
        Machine::Aarch64 => 16u64.next_multiple_of(block.align.min(LARGEST_OFFSET)).wrapping_add(offset),
    }
}

#[cfg(target_arch = "x86_64")]
const HERE: Machine = Machine::X86_64;
#[cfg(target_arch = "aarch64")]
const HERE: Machine = Machine::Aarch64;

/// Kinds of relocations.
struct Kinds {
    module: u32,
    distance: u32,
    descriptor: u32,
}

impl Kinds {
    /// `R_X86_64_DTPMOD64`, `_TPOFF64`, `_TLSDESC`, and `R_AARCH64_TLS_DTPMOD`, `_TPREL`, `_TLSDESC`.
    fn of(machine: Machine) -> Self {
        match machine {
            Machine::X86_64 => Self { module: 16, distance: 18, descriptor: 36 },
            Machine::Aarch64 => Self { module: 1028, distance: 1030, descriptor: 1031 },
        }
    }
}

impl Attacher {
    /// What a process published before it ran another program is gone.
    pub fn runs_another_program(&mut self, pid: u32) {
        if let Some(process) = self.processes.get_mut(&pid)
            && process.published.take().is_some()
        {
            self.kernel().publishes_nothing(pid);
        }
    }

    /// Why what the threads of a process publish is not read, where they do publish; unless it may be read in a moment.
    #[must_use]
    pub fn unpublished(&self, pid: u32) -> Option<Unpublished> {
        let published = self.processes.get(&pid)?.published?;
        published.err().filter(|why| *why != Unpublished::NotYet)
    }

    /// Looks again where a library that publishes was mapped and its dynamic linker was not done.
    pub fn look_at_unpublished(&mut self) {
        let waits = |process: &Attached| process.published == Some(Err(Unpublished::NotYet));
        let waiting: Vec<u32> =
            self.processes.iter().filter(|(_, process)| waits(process)).map(|(pid, _)| *pid).collect();
        waiting.into_iter().for_each(|pid| self.look_at_publisher(pid));
    }

    /// Finds out where the threads of a process publish what they work for, among the files that were looked at.
    pub(super) fn look_at_publisher(&mut self, pid: u32) {
        let publishes = |file: &FileId| {
            self.libraries.get(file).is_some_and(|library| {
                library.as_ref().as_ref().is_ok_and(|library| library.publisher.is_some())
            })
        };
        let known = self.processes.get(&pid).and_then(|process| process.published);
        // Nearly no file publishes, and reading mappings costs a thousand lines.
        if known.is_none() && !self.libraries.keys().any(publishes) {
            return;
        }
        let mappings = target::mappings(pid).unwrap_or_default();
        let found = find(pid, &mappings, |mapping| {
            self.libraries.get(&mapping.file)?.as_ref().as_ref().ok()?.publisher.as_ref()
        });
        if found == known {
            return;
        }
        let mut kernel = self.kernel();
        let published = match found {
            Some(Ok(variable)) => Some(kernel.publishes(pid, self.scope.group, variable).map(|()| variable)),
            other => {
                kernel.publishes_nothing(pid);
                other
            }
        };
        drop(kernel);
        tracing::info!(pid, ?published, "what its threads work for");
        if let Some(process) = self.processes.get_mut(&pid) {
            process.published = published;
        }
    }
}

/// The variable of a process, in the first of its files that leads to it; none where no file publishes.
pub fn find<'a>(
    pid: u32,
    mappings: &[Mapping],
    publisher: impl Fn(&Mapping) -> Option<&'a Publisher>,
) -> Option<Result<Variable, Unpublished>> {
    let mut found = None;
    for mapping in mappings {
        let Some(publisher) = publisher(mapping) else { continue };
        let located = publisher.locate(pid, mapping, mappings);
        if let Ok(variable) = located {
            return Some(Ok(with_schema(variable, target::process_context(pid).as_ref())));
        }
        found.get_or_insert(located);
    }
    found
}

/// What the publisher's own word changes: whether the flags count.
fn with_schema(variable: Variable, context: Option<&ProcessContext>) -> Variable {
    let schema = context.and_then(|context| context.thread_schema.as_deref());
    let flags = if schema == Some(BEFORE_FLAGS) { u64::from(flag::UNSAID) } else { 0 };
    Variable { flags, ..variable }
}

/// What a look at a process without its kernel side says: the file that publishes, and how it goes.
#[must_use]
pub fn published(pid: u32, mappings: &[Mapping]) -> Option<(String, Result<(), Unpublished>)> {
    let files = mappings.iter().filter_map(|mapping| {
        let elf = Elf::open(&mapping.openable(pid)).ok()?;
        Some((mapping, Publisher::of(&elf)?))
    });
    let files: Vec<_> = files.collect();
    let of = |mapping: &Mapping| {
        files.iter().find(|(known, _)| known.start == mapping.start).map(|(_, publisher)| publisher)
    };
    let found = find(pid, mappings, of)?;
    let known = super::btf::thread_pointer().is_some();
    let found = found.and(if known { Ok(()) } else { Err(Unpublished::NoThreadPointer) });
    let (mapping, _) = files.first()?;
    Some((mapping.path.clone(), found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    const SOURCE: &str = "__thread char padding[40]; __attribute__((visibility(\"default\"))) __thread void *otel_thread_ctx_v1;\n\
        void **own(void) { return &otel_thread_ctx_v1; }\n\
        #ifdef PROGRAM\nint main(void) { return own() == 0; }\n#endif\n";

    /// What a compiler makes of a publisher.
    fn built(folder: &Path, name: &str, arguments: &[&str]) -> (PathBuf, Option<Publisher>) {
        let (source, out) = (folder.join("publisher.c"), folder.join(name));
        std::fs::write(&source, SOURCE).unwrap();
        let status = Command::new("cc").arg("-o").arg(&out).arg(&source).args(arguments).status().unwrap();
        assert!(status.success());
        let publisher = Publisher::of(&Elf::open(&out).unwrap());
        (out, publisher)
    }

    #[test]
    fn the_linkers_ways_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let way = |name: &str, arguments: &[&str]| {
            built(folder.path(), name, arguments).1.map(|publisher| publisher.way)
        };
        let library = ["-shared", "-fPIC"];
        let with = |more: &'static str| [&library[..], &[more]].concat();
        assert!(matches!(way("static", &with("-ftls-model=initial-exec")), Some(Ok(Way::Distance(_)))));
        let program = way("program", &["-DPROGRAM", "-rdynamic"]);
        assert!(matches!(program, Some(Ok(Way::Fixed(_)))), "{program:?}");
        assert_eq!(way("hidden", &["-DPROGRAM"]), None, "it exports nothing");
        if cfg!(target_arch = "x86_64") {
            assert!(matches!(way("pair", &with("-mtls-dialect=gnu")), Some(Ok(Way::Pair(_)))));
            assert!(matches!(way("descriptor", &with("-mtls-dialect=gnu2")), Some(Ok(Way::Descriptor(_)))));
            let own = way("own", &with("-Wl,-Bsymbolic"));
            assert!(matches!(own, Some(Ok(Way::Module(_, 40) | Way::Pair(_)))), "{own:?}");
        }
    }

    /// A library is loaded into this process, which knows where its own variable is.
    #[test]
    fn a_variable_of_this_process_lies_where_it_is_said_to_lie() {
        let folder = tempfile::tempdir().unwrap();
        for (name, flags) in [("one.so", "-O1"), ("two.so", "-O2")] {
            let (path, publisher) = built(folder.path(), name, &["-shared", "-fPIC", flags]);
            let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
            // SAFETY: the library has no constructors, and its function takes nothing and returns an address.
            let own = unsafe {
                let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
                let function = libc::dlsym(library, c"own".as_ptr());
                assert!(!function.is_null());
                std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> u64>(function)()
            };
            let mappings = target::mappings(std::process::id()).unwrap();
            let mapping = mappings.iter().find(|mapping| mapping.name() == name).unwrap();
            let variable = publisher.unwrap().locate(std::process::id(), mapping, &mappings).unwrap();
            assert_eq!(address(&variable), own, "{variable:?}");
        }
    }

    /// Where this thread has a variable, as the kernel side finds it.
    fn address(variable: &Variable) -> u64 {
        let thread: u64;
        // SAFETY: both read a register, or the word that it points to and that is the register's own value.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            std::arch::asm!("mov {}, fs:0", out(reg) thread);
            #[cfg(target_arch = "aarch64")]
            std::arch::asm!("mrs {}, tpidr_el0", out(reg) thread);
        }
        // SAFETY: the places are those of this thread's own vector.
        let word = |address: u64| unsafe { *(address as *const u64) };
        if variable.module == 0 {
            return thread.wrapping_add(variable.offset);
        }
        let vector = word(thread.wrapping_add(variable.vector));
        assert!(word(vector.wrapping_add(variable.length)) >= variable.module);
        word(vector + variable.module * variable.entry) + variable.offset
    }

    #[test]
    fn words_that_are_not_filled_in_say_nothing() {
        assert_eq!(distance(0), None);
        assert_eq!(distance(0x7f12_3456_7890), None, "an address");
        assert_eq!(distance(24u64.wrapping_neg()).map(|found| found.offset), Some(24u64.wrapping_neg()));
        for words in [[0, 0], [1 << 40, 8], [3, 1 << 40]] {
            assert_eq!(pair(words, &[]), Err(Unpublished::NotYet), "{words:?}");
        }
        assert_eq!(pair([3, 8], &[]), Err(Unpublished::UnknownLibc));
    }

    #[test]
    fn a_programs_block_lies_as_its_machine_has_it() {
        let block = |size, align| ThreadLocal { size, align };
        for (machine, offset, block, distance) in [
            (Machine::X86_64, 8, block(20, 16), 24u64.wrapping_neg()),
            (Machine::X86_64, 0, block(64, 64), 64u64.wrapping_neg()),
            (Machine::Aarch64, 8, block(20, 8), 24),
            (Machine::Aarch64, 8, block(20, 64), 72),
        ] {
            assert_eq!(of_program(machine, offset, block), distance);
        }
    }

    #[test]
    fn flags_count_unless_the_publisher_leaves_them_empty() {
        let schema = |schema: &str| ProcessContext {
            thread_schema: Some(schema.to_owned()),
            ..ProcessContext::default()
        };
        let flags =
            |context: Option<ProcessContext>| with_schema(Variable::default(), context.as_ref()).flags;
        assert_eq!((flags(None), flags(Some(schema("tls_v1")))), (0, 0));
        assert_eq!(flags(Some(schema("tlsdesc_v1_dev"))), u64::from(flag::UNSAID));
    }
}
