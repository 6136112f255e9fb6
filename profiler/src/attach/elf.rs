//! A look into an ELF file that costs no more than what is asked for: file → headers, strings, symbols in a stream.
//!
//! Libraries of half a gigabyte are looked at while a server runs, and files may be damaged or hostile, so nothing is
//! read because a header claims that it is there: every read is bounded by a limit of its own and by the file's
//! length, and symbols pass by in small pieces. 64-bit little-endian files of x86-64 and aarch64 only.

use super::site::Machine;
use crate::target::open_regular;
use object::LittleEndian as LE;
use object::elf;
use object::pod::{Pod, from_bytes};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

type FileHeader = elf::FileHeader64<LE>;
type ProgramHeader = elf::ProgramHeader64<LE>;
type SectionHeader = elf::SectionHeader64<LE>;
type Sym = elf::Sym64<LE>;
type Dyn = elf::Dyn64<LE>;
type Rela = elf::Rela64<LE>;

/// The most program and section headers that are looked at. Real files have tens.
const MOST_HEADERS: usize = 4096;
/// The most symbols: libtorch_cpu, one of the largest, has half a million.
const MOST_SYMBOLS: u64 = 1 << 23;
/// Bytes read at once in a stream.
const PIECE: usize = 1 << 16;
/// The most bytes of small things: section names, notes, the dynamic section.
const SMALL: u64 = 1 << 20;
/// Code is mapped by pages of this size at least.
const PAGE: u64 = 4095;

/// Why a file is not one that can be read.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// The system said no.
    #[error("it could not be read")]
    Read(#[from] io::Error),
    /// Something else.
    #[error("{0}")]
    Format(&'static str),
}

/// A part of the file that is loaded.
#[derive(Clone, Copy, Debug)]
struct Segment {
    address: u64,
    offset: u64,
    size: u64,
    executable: bool,
}

/// The part of the file that each thread has a copy of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadLocal {
    /// Bytes of it.
    pub size: u64,
    /// What its copies are aligned to, a power of two.
    pub align: u64,
}

/// A place that the dynamic linker fills in.
#[derive(Clone, Copy, Debug)]
pub struct Relocation {
    /// Virtual address of the place.
    pub address: u64,
    /// How it is filled in; the machine gives the number its meaning.
    pub kind: u32,
    /// Index of the symbol whose value goes there; 0 for none.
    pub symbol: u32,
    /// What is added to it.
    pub addend: u64,
}

/// A section's place.
#[derive(Clone, Debug)]
pub struct Section {
    name: String,
    kind: elf::SectionType,
    offset: u64,
    size: u64,
    link: usize,
}

impl Section {
    /// Bytes that it claims to have.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// What a symbol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A function.
    Function,
    /// A function that chooses another when it is bound.
    Indirect,
    /// A variable that each thread has.
    ThreadLocal,
    /// Anything else.
    Other,
}

/// A symbol as it passes by.
#[derive(Clone, Copy, Debug)]
pub struct Symbol {
    /// Where its name starts in the table's strings.
    pub name: u32,
    /// What it is.
    pub kind: Kind,
    /// Whether it is defined in this file.
    pub defined: bool,
    /// Virtual address.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

/// An open ELF file with its headers.
#[derive(Debug)]
pub struct Elf {
    file: File,
    length: u64,
    machine: Machine,
    segments: Vec<Segment>,
    sections: Vec<Section>,
    thread_local: Option<ThreadLocal>,
    movable: bool,
}

impl Elf {
    /// Reads the headers of the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read or is not such a file.
    pub fn open(path: &Path) -> Result<Self, ElfError> {
        // Processes map devices too, and merely opening one can have effects.
        if !std::fs::metadata(path)?.is_file() {
            return Err(ElfError::Format("it is no regular file"));
        }
        let file = open_regular(path)?;
        let length = file.metadata()?.len();
        let header: FileHeader = one(&file, 0).ok_or(ElfError::Format("it is too short for an ELF file"))?;
        let machine = machine(&header)?;
        let (segments, sections) = (Vec::new(), Vec::new());
        let movable = header.e_type.get(LE) == elf::ET_DYN;
        let mut this = Self { file, length, machine, segments, sections, thread_local: None, movable };
        let headers = this.read_headers(&header);
        this.segments = headers.iter().filter_map(Segment::of).collect();
        this.thread_local = headers.iter().find_map(ThreadLocal::of);
        this.sections = this.read_sections(&header);
        Ok(this)
    }

    /// Whose code it holds.
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// The section of this name.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// The table of all symbols and its strings, absent from stripped files.
    pub fn symbol_table(&self) -> Option<(&Section, &Section)> {
        self.table(elf::SHT_SYMTAB)
    }

    /// The table of symbols that the dynamic linker sees, and its strings.
    pub fn dynamic_table(&self) -> Option<(&Section, &Section)> {
        self.table(elf::SHT_DYNSYM)
    }

    /// GNU build id, hex.
    pub fn build_id(&self) -> Option<String> {
        let note = self.load(self.section(".note.gnu.build-id")?, 4096)?;
        // namesz, descsz, type, "GNU\0", then the id (elf(5), notes).
        let length = u32::from_le_bytes(note.get(4..8)?.try_into().ok()?);
        let id = note.get(16..)?.get(..usize::try_from(length).ok()?)?;
        Some(id.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// What it is called (`DT_SONAME`), and which libraries it asks for (`DT_NEEDED`).
    pub fn linkage(&self) -> (Option<String>, Vec<String>) {
        let Some(dynamic) = self.sections.iter().find(|section| section.kind == elf::SHT_DYNAMIC) else {
            return (None, Vec::new());
        };
        let strings = self.sections.get(dynamic.link);
        let (Some(dynamic), Some(strings)) = (self.load(dynamic, SMALL), strings) else {
            return (None, Vec::new());
        };
        let (mut name, mut needed) = (None, Vec::new());
        for entry in entries::<Dyn>(&dynamic) {
            let value = || self.string(strings, entry.d_val.get(LE));
            match entry.d_tag.get(LE) {
                elf::DT_SONAME => name = value(),
                elf::DT_NEEDED => needed.extend(value()),
                _ => {}
            }
        }
        (name, needed)
    }

    /// Bytes of a section, unless it claims more than `limit` or more than the file has.
    pub fn load(&self, section: &Section, limit: u64) -> Option<Vec<u8>> {
        if section.size > limit || section.offset.checked_add(section.size)? > self.length {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(section.size).ok()?];
        self.file.read_exact_at(&mut bytes, section.offset).ok()?;
        Some(bytes)
    }

    /// Whether `needle` occurs in the first `limit` bytes of a section; reads in pieces, up to the first hit.
    pub fn contains(&self, section: &Section, needle: &[u8], limit: u64) -> bool {
        let finder = memchr::memmem::Finder::new(needle);
        let end = section.offset.saturating_add(section.size.min(limit)).min(self.length);
        let mut piece = vec![0; PIECE * 16];
        let mut at = section.offset;
        while at < end {
            let wanted = piece.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let Some(Ok(read)) = piece.get_mut(..wanted).map(|piece| self.file.read_at(piece, at)) else {
                return false;
            };
            if piece.get(..read).is_some_and(|piece| finder.find(piece).is_some()) {
                return true;
            }
            // Pieces overlap, so that no needle is cut in two.
            match read.saturating_sub(needle.len() - 1) {
                0 => return false,
                step => at += step as u64,
            }
        }
        false
    }

    /// Shows `each` symbol of a table, at most [`MOST_SYMBOLS`], until it has seen enough and says so.
    pub fn symbols(&self, table: &Section, mut each: impl FnMut(Symbol) -> bool) {
        self.stream::<Sym>(table, |symbol| each(Symbol::of(symbol)));
    }

    /// Entries of a table, at most [`MOST_SYMBOLS`]; false once `each` has seen enough.
    fn stream<T: Pod>(&self, table: &Section, mut each: impl FnMut(&T) -> bool) -> bool {
        let size = size_of::<T>() as u64;
        let end = table.offset.saturating_add(table.size).min(self.length);
        let count = (end.saturating_sub(table.offset) / size).min(MOST_SYMBOLS);
        let end = table.offset + count * size;
        let whole = PIECE - PIECE % size_of::<T>();
        let mut piece = vec![0; whole];
        let mut at = table.offset;
        while at < end {
            let wanted = whole.min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let Some(bytes) = piece.get_mut(..wanted) else { return true };
            if self.file.read_exact_at(bytes, at).is_err() {
                return true;
            }
            if !entries::<T>(bytes).all(&mut each) {
                return false;
            }
            at += wanted as u64;
        }
        true
    }

    /// Where the code at a virtual address lies in the file; none when it is not executable code of the file.
    pub fn code_offset(&self, address: u64) -> Option<u64> {
        self.segments.iter().filter(|segment| segment.executable).find_map(|segment| {
            let distance = address.checked_sub(segment.address)?;
            (distance < segment.size).then(|| segment.offset.checked_add(distance))?
        })
    }

    /// Of each piece of code, from which offset in the file on it is mapped, and what is to be added to such offsets for the
    /// addresses that it was linked for; wraps.
    pub fn code_shifts(&self) -> Vec<(u64, u64)> {
        let code = self.segments.iter().filter(|segment| segment.executable);
        code.map(|segment| (segment.offset & !PAGE, segment.address.wrapping_sub(segment.offset))).collect()
    }

    /// Whether it can be loaded anywhere: a library, or a program that is linked like one.
    pub fn is_movable(&self) -> bool {
        self.movable
    }

    /// The variables that each thread has of it.
    pub fn thread_local(&self) -> Option<ThreadLocal> {
        self.thread_local
    }

    /// Shows `each` place that the dynamic linker fills in, until it has seen enough and says so.
    pub fn relocations(&self, mut each: impl FnMut(Relocation) -> bool) {
        for table in self.sections.iter().filter(|section| section.kind == elf::SHT_RELA) {
            if !self.stream::<Rela>(table, |entry| each(Relocation::of(entry))) {
                return;
            }
        }
    }

    /// Fills `code` from the file and says how much there was.
    pub fn read_code(&self, offset: u64, code: &mut [u8]) -> usize {
        self.file.read_at(code, offset).unwrap_or(0)
    }

    fn table(&self, kind: elf::SectionType) -> Option<(&Section, &Section)> {
        let table = self.sections.iter().find(|section| section.kind == kind)?;
        Some((table, self.sections.get(table.link)?))
    }

    fn string(&self, strings: &Section, offset: u64) -> Option<String> {
        const LONGEST: usize = 4096;
        if offset >= strings.size {
            return None;
        }
        let mut bytes = vec![0; LONGEST];
        let read = self.file.read_at(&mut bytes, strings.offset.checked_add(offset)?).ok()?;
        let end = memchr::memchr(0, bytes.get(..read)?)?;
        String::from_utf8(bytes.get(..end)?.to_vec()).ok()
    }

    fn read_headers(&self, header: &FileHeader) -> Vec<ProgramHeader> {
        let count = usize::from(header.e_phnum.get(LE)).min(MOST_HEADERS);
        self.table_of(header.e_phoff.get(LE), count)
    }

    fn read_sections(&self, header: &FileHeader) -> Vec<Section> {
        let count = usize::from(header.e_shnum.get(LE)).min(MOST_HEADERS);
        let headers = self.table_of::<SectionHeader>(header.e_shoff.get(LE), count);
        let names = headers.get(usize::from(header.e_shstrndx.get(LE).0));
        let names = names.map(|names| Section::of(names, String::new()));
        let names = names.and_then(|names| self.load(&names, SMALL)).unwrap_or_default();
        let named = headers.iter().map(|section| {
            let start = usize::try_from(section.sh_name.get(LE)).unwrap_or(usize::MAX);
            let name = names.get(start..).and_then(|rest| rest.get(..memchr::memchr(0, rest)?));
            Section::of(section, String::from_utf8_lossy(name.unwrap_or_default()).into_owned())
        });
        named.collect()
    }

    fn table_of<T: Pod>(&self, offset: u64, count: usize) -> Vec<T> {
        let mut bytes = vec![0; count * size_of::<T>()];
        let read = self.file.read_at(&mut bytes, offset).unwrap_or(0);
        entries(bytes.get(..read).unwrap_or(&[])).copied().collect()
    }
}

impl Segment {
    fn of(header: &ProgramHeader) -> Option<Self> {
        (header.p_type.get(LE) == elf::PT_LOAD).then(|| Self {
            address: header.p_vaddr.get(LE),
            offset: header.p_offset.get(LE),
            size: header.p_filesz.get(LE),
            executable: header.p_flags.get(LE).contains(elf::PF_X),
        })
    }
}

impl ThreadLocal {
    /// An alignment that is none is that of a byte.
    fn of(header: &ProgramHeader) -> Option<Self> {
        let align = Some(header.p_align.get(LE)).filter(|align| align.is_power_of_two()).unwrap_or(1);
        (header.p_type.get(LE) == elf::PT_TLS).then(|| Self { size: header.p_memsz.get(LE), align })
    }
}

impl Section {
    fn of(header: &SectionHeader, name: String) -> Self {
        let kind = header.sh_type.get(LE);
        // Sections without bytes in the file have a size all the same.
        let size = if kind == elf::SHT_NOBITS { 0 } else { header.sh_size.get(LE) };
        let link = usize::try_from(header.sh_link.get(LE)).unwrap_or(usize::MAX);
        Self { name, kind, offset: header.sh_offset.get(LE), size, link }
    }
}

impl Relocation {
    fn of(entry: &Rela) -> Self {
        let info = entry.r_info.get(LE);
        Self {
            address: entry.r_offset.get(LE),
            kind: info as u32,
            symbol: (info >> 32) as u32,
            addend: entry.r_addend.get(LE).cast_unsigned(),
        }
    }
}

impl Symbol {
    fn of(symbol: &Sym) -> Self {
        let kind = match symbol.st_type() {
            elf::STT_FUNC => Kind::Function,
            elf::STT_GNU_IFUNC => Kind::Indirect,
            elf::STT_TLS => Kind::ThreadLocal,
            _ => Kind::Other,
        };
        let address = symbol.st_value.get(LE);
        // The first variable of a thread stands at 0.
        let has_place = address != 0 || kind == Kind::ThreadLocal;
        let defined = symbol.st_shndx.get(LE) != elf::SHN_UNDEF && has_place;
        Self { name: symbol.st_name.get(LE), kind, defined, address, size: symbol.st_size.get(LE) }
    }
}

/// The name that starts at `offset` in a table of strings, up to its zero byte.
pub fn name(strings: &[u8], offset: u32) -> Option<&str> {
    let rest = strings.get(usize::try_from(offset).ok()?..)?;
    std::str::from_utf8(rest.get(..memchr::memchr(0, rest)?)?).ok()
}

/// The whole entries of a table.
fn entries<T: Pod>(bytes: &[u8]) -> impl Iterator<Item = &T> {
    bytes.chunks_exact(size_of::<T>()).filter_map(|bytes| Some(from_bytes::<T>(bytes).ok()?.0))
}

fn one<T: Pod>(file: &File, offset: u64) -> Option<T> {
    let mut bytes = vec![0; size_of::<T>()];
    file.read_exact_at(&mut bytes, offset).ok()?;
    from_bytes::<T>(&bytes).ok().map(|(value, _)| *value)
}

fn machine(header: &FileHeader) -> Result<Machine, ElfError> {
    let ident = &header.e_ident;
    if ident.magic != elf::ELFMAG {
        return Err(ElfError::Format("it is no ELF file"));
    }
    if ident.class != elf::ELFCLASS64 || ident.data != elf::ELFDATA2LSB {
        return Err(ElfError::Format("it is no 64-bit little-endian ELF file"));
    }
    match header.e_machine.get(LE) {
        elf::EM_X86_64 => Ok(Machine::X86_64),
        elf::EM_AARCH64 => Ok(Machine::Aarch64),
        _ => Err(ElfError::Format("it is neither for x86-64 nor for aarch64")),
    }
}
