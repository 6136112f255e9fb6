//! An ELF file as its loader sees it, read a window at a time: nothing of its size is ever held in memory.
//!
//! In: a file, or bytes. Out: segments, sections, bytes by virtual address. Every size and offset in the file is
//! taken as a claim: what does not fit is absent, never a panic. Absent: mapping the file, because a file that
//! shrinks while it is mapped kills whoever reads it; 32-bit and big-endian files, for which CUDA does not exist.

use crate::target::open_regular;
use object::elf;
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Sections that are looked at; libtorch_cuda has 39.
const MOST_SECTIONS: u16 = 8192;
/// Program headers that are looked at; libtorch_cuda has 13.
const MOST_SEGMENTS: u16 = 256;
/// The longest section name that is kept.
const SECTION_NAME: usize = 64;
/// Sizes of an ELF64 file's headers.
const FILE_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const SECTION_HEADER: usize = 64;
/// What a window holds: names that stand close together are read together.
const WINDOW: usize = 256 << 10;

/// Where bytes come from.
pub trait ReadAt {
    /// Reads as many bytes as there are at `offset`, up to the length of `buffer`.
    ///
    /// # Errors
    /// When the system fails to read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Length in bytes.
    fn length(&self) -> u64;
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match FileExt::read_at(self, rest, offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn length(&self) -> u64 {
        self.metadata().map_or(0, |metadata| metadata.len())
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|start| self.get(start..)).unwrap_or(&[]);
        let length = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..length), rest.get(..length)) {
            to.copy_from_slice(from);
        }
        Ok(length)
    }

    fn length(&self) -> u64 {
        self.len() as u64
    }
}

/// Processors whose code can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// x86-64.
    X86,
    /// aarch64.
    Arm,
}

/// A part of the file that is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// As linked.
    pub address: u64,
    /// In memory.
    pub size: u64,
    /// In the file.
    pub offset: u64,
    /// Bytes in the file; the rest is zero.
    pub file_size: u64,
    /// Alignment in memory.
    pub align: u64,
    /// May be executed.
    pub executable: bool,
    /// May be written.
    pub writable: bool,
}

/// A section, as far as it is told by its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Name.
    pub name: String,
    /// `SHT_…`.
    pub kind: elf::SectionType,
    /// As linked.
    pub address: u64,
    /// In the file.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// Index of the section that this one refers to.
    pub link: usize,
}

/// Why a file is no image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The system did not let us read it.
    Unreadable,
    /// It is no ELF file of a known processor.
    NotElf,
}

/// An ELF file.
pub struct Image {
    source: Box<dyn ReadAt + Send>,
    length: u64,
    /// Whose code is in it.
    pub machine: Machine,
    /// What is loaded.
    pub segments: Vec<Segment>,
    /// What the headers name; empty where they are stripped.
    pub sections: Vec<Section>,
    /// Where the dynamic section is, as linked.
    dynamic: Option<(u64, u64)>,
    /// Where the index of unwind tables is, as linked.
    pub unwind_index: Option<(u64, u64)>,
    /// Notes, as offset and length in the file.
    notes: Vec<(u64, u64)>,
    /// The file's headers as they are: part of what tells it from another.
    headers: Vec<u8>,
    window: RefCell<Window>,
}

#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Image {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read or is no ELF file.
    pub fn open(path: &Path) -> Result<Self, Broken> {
        Self::new(Box::new(open_regular(path).map_err(|_| Broken::Unreadable)?))
    }

    /// Reads the headers of what `source` holds.
    ///
    /// # Errors
    /// When it cannot be read or is no ELF file.
    pub fn new(source: Box<dyn ReadAt + Send>) -> Result<Self, Broken> {
        let mut header = [0; FILE_HEADER];
        source.read_at(&mut header, 0).map_err(|_| Broken::Unreadable)?;
        // 64 bits, least significant byte first.
        let is_elf = header.starts_with(&[0x7f, b'E', b'L', b'F', 2, 1]);
        let machine = match half(&header, 18) {
            machine if is_elf && machine == elf::EM_X86_64.0 => Machine::X86,
            machine if is_elf && machine == elf::EM_AARCH64.0 => Machine::Arm,
            _ => return Err(Broken::NotElf),
        };
        let mut image = Self {
            length: source.length(),
            source,
            machine,
            segments: Vec::new(),
            sections: Vec::new(),
            dynamic: None,
            unwind_index: None,
            notes: Vec::new(),
            headers: header.to_vec(),
            window: RefCell::default(),
        };
        image.read_segments(&header);
        image.read_sections(&header);
        Ok(image)
    }

    fn read_segments(&mut self, header: &[u8]) {
        let count = half(header, 56).min(MOST_SEGMENTS);
        let bytes = self.at_offset(long(header, 32), u64::from(count) * PROGRAM_HEADER as u64);
        for header in bytes.chunks_exact(PROGRAM_HEADER) {
            let flags = elf::ProgramFlags(word(header, 4));
            let (offset, address) = (long(header, 8), long(header, 16));
            let (file_size, size) = (long(header, 32), long(header, 40));
            match elf::ProgramType(word(header, 0)) {
                elf::PT_LOAD => self.segments.push(Segment {
                    address,
                    size,
                    offset,
                    file_size,
                    align: long(header, 48),
                    executable: flags.contains(elf::PF_X),
                    writable: flags.contains(elf::PF_W),
                }),
                elf::PT_DYNAMIC => self.dynamic = Some((address, file_size)),
                elf::PT_GNU_EH_FRAME => self.unwind_index = Some((address, file_size)),
                elf::PT_NOTE => self.notes.push((offset, file_size)),
                _ => {}
            }
        }
        self.headers.extend(bytes);
    }

    fn read_sections(&mut self, header: &[u8]) {
        let count = half(header, 60).min(MOST_SECTIONS);
        let bytes = self.at_offset(long(header, 40), u64::from(count) * SECTION_HEADER as u64);
        let headers = || bytes.chunks_exact(SECTION_HEADER);
        let names = headers().nth(usize::from(half(header, 62))).map(|names| long(names, 24));
        for header in headers() {
            let kind = elf::SectionType(word(header, 4));
            let (offset, size) = (long(header, 24), long(header, 32));
            if kind == elf::SHT_NOTE {
                self.notes.push((offset, size));
            }
            let at = names.and_then(|names| names.checked_add(u64::from(word(header, 0))));
            let name = at.and_then(|at| self.text_at_offset(at, SECTION_NAME)).unwrap_or_default();
            let link = word(header, 40) as usize;
            self.sections.push(Section { name, kind, address: long(header, 16), offset, size, link });
        }
        self.headers.extend(bytes);
    }

    /// Length of the file.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The headers' bytes.
    #[must_use]
    pub fn headers(&self) -> &[u8] {
        &self.headers
    }

    /// The section of this name.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// Up to `length` bytes from `offset` of the file, as many as there are.
    #[must_use]
    pub fn at_offset(&self, offset: u64, length: u64) -> Vec<u8> {
        // A claimed length is never believed beyond the file's end.
        let length = length.min(self.length.saturating_sub(offset));
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let read = self.source.read_at(&mut bytes, offset).unwrap_or(0);
        bytes.truncate(read);
        bytes
    }

    /// The segment whose bytes in the file include `address`.
    #[must_use]
    pub fn segment(&self, address: u64) -> Option<&Segment> {
        self.segments.iter().find(|segment| {
            address.checked_sub(segment.address).is_some_and(|distance| distance < segment.file_size)
        })
    }

    /// Where the byte at `address` stands in the file.
    #[must_use]
    pub fn offset(&self, address: u64) -> Option<u64> {
        self.segment(address)?.offset.checked_add(address - self.segment(address)?.address)
    }

    /// The address of the byte at `offset` of the file.
    #[must_use]
    pub fn address(&self, offset: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let distance = offset.checked_sub(segment.offset)?;
            (distance < segment.file_size).then(|| segment.address.wrapping_add(distance))
        })
    }

    /// Up to `length` bytes from `address`, as many as its segment has in the file.
    #[must_use]
    pub fn bytes(&self, address: u64, length: u64) -> Vec<u8> {
        let Some((segment, offset)) = self.segment(address).zip(self.offset(address)) else {
            return Vec::new();
        };
        let left = segment.file_size - (address - segment.address);
        self.at_offset(offset, length.min(left))
    }

    /// Whether code can stand at `address`.
    #[must_use]
    pub fn is_code(&self, address: u64) -> bool {
        self.segment(address).is_some_and(|segment| segment.executable)
    }

    /// Whether a variable can stand at `address`.
    #[must_use]
    pub fn is_variable(&self, address: u64) -> bool {
        self.segments.iter().any(|segment| {
            segment.writable && address.checked_sub(segment.address).is_some_and(|d| d < segment.size)
        })
    }

    /// The word at `address`.
    #[must_use]
    pub fn long(&self, address: u64) -> Option<u64> {
        self.windowed(self.offset(address)?, 8, |bytes| (bytes.len() >= 8).then(|| long(bytes, 0)))?
    }

    /// The text that ends with a zero within `most` bytes from `address`.
    #[must_use]
    pub fn text(&self, address: u64, most: usize) -> Option<String> {
        self.text_at_offset(self.offset(address)?, most)
    }

    /// The text that ends with a zero within `most` bytes from `offset` of the file.
    #[must_use]
    pub fn text_at_offset(&self, offset: u64, most: usize) -> Option<String> {
        self.windowed(offset, most, |bytes| {
            let end = memchr::memchr(0, bytes)?;
            Some(std::str::from_utf8(bytes.get(..end)?).ok()?.to_owned())
        })?
    }

    /// Gives `read` the bytes from `offset`, up to `length` of them, out of a window that moves only when it must.
    fn windowed<T>(&self, offset: u64, length: usize, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let mut window = self.window.borrow_mut();
        let within = offset.checked_sub(window.start).and_then(|start| usize::try_from(start).ok());
        let held = within.is_some_and(|start| start.saturating_add(length) <= window.bytes.len());
        if !held {
            *window = Window { start: offset, bytes: self.at_offset(offset, length.max(WINDOW) as u64) };
        }
        let start = usize::try_from(offset - window.start).ok()?;
        let rest = window.bytes.get(start..).filter(|rest| !rest.is_empty())?;
        Some(read(rest.get(..length).unwrap_or(rest)))
    }

    /// The entries of `N` bytes of a table of `size` bytes at `offset` of the file, a window at a time.
    pub fn entries<const N: usize>(&self, offset: u64, size: u64, mut each: impl FnMut(u64, &[u8; N])) {
        let step = ((1 << 20) / N.max(1) * N) as u64;
        let mut index = 0;
        let mut done = 0;
        while done < size {
            let bytes = self.at_offset(offset.saturating_add(done), step.min(size - done));
            for entry in bytes.chunks_exact(N).filter_map(|chunk| chunk.first_chunk()) {
                each(index, entry);
                index += 1;
            }
            if (bytes.len() as u64) < step {
                return;
            }
            done += step;
        }
    }

    /// The dynamic section's entries as tag and value, up to its end mark.
    #[must_use]
    pub fn dynamic(&self) -> Vec<(u64, u64)> {
        let Some((address, size)) = self.dynamic else { return Vec::new() };
        let bytes = self.bytes(address, size.min(64 << 10));
        let entries = bytes.chunks_exact(16).map(|entry| (long(entry, 0), long(entry, 8)));
        entries.take_while(|(tag, _)| *tag != 0).collect()
    }

    /// GNU build id.
    #[must_use]
    pub fn build_id(&self) -> Option<Vec<u8>> {
        self.notes
            .iter()
            .find_map(|(offset, size)| gnu_build_id(&self.at_offset(*offset, (*size).min(64 << 10))))
    }
}

/// The 16 bits at `at`, zero where there are none.
#[must_use]
pub fn half(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u16::from_le_bytes(*chunk))
}

/// The 32 bits at `at`, zero where there are none.
#[must_use]
pub fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

/// The 64 bits at `at`, zero where there are none.
#[must_use]
pub fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

/// In a series of notes (gabi 5.7: name size, descriptor size, type; name and descriptor padded to four bytes).
fn gnu_build_id(mut notes: &[u8]) -> Option<Vec<u8>> {
    while notes.len() >= 12 {
        let (name, descriptor, kind) = (word(notes, 0) as usize, word(notes, 4) as usize, word(notes, 8));
        let body = 12_usize.checked_add(name.checked_next_multiple_of(4)?)?;
        if kind == elf::NT_GNU_BUILD_ID.0 && notes.get(12..16) == Some(b"GNU\0") {
            // The linkers write 8 to 20 bytes; more than 64 is nobody's digest.
            let id = notes.get(body..body.checked_add(descriptor)?)?;
            return (4..=64).contains(&id.len()).then(|| id.to_vec());
        }
        notes = notes.get(body.checked_add(descriptor.checked_next_multiple_of(4)?)?..)?;
    }
    None
}
