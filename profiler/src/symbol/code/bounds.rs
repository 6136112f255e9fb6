//! Where functions begin and end, told by the unwind tables, which stripped files keep.

use crate::symbol::image::Image;
use gimli::{BaseAddresses, EhFrame, EhFrameHdr, EndianSlice, LittleEndian, UnwindSection as _};

/// The most unwind data that is read: libtorch_cuda has 7 MB.
const MOST_UNWIND: u64 = 64 << 20;
/// The most code of all functions together that is decoded: libtorch_cuda's calls stand in 60 MB.
const MOST_CODE: u64 = 512 << 20;
/// The index's header (version, encodings, pointer to the tables, count) and one of its rows, bytes.
const INDEX_HEADER: u64 = 12;
const INDEX_ROW: u64 = 8;

/// A function, or the part of one that stands by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Function {
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
}

/// The functions of a file.
pub struct Bounds {
    /// In order of address.
    functions: Vec<Function>,
}

impl Bounds {
    /// Reads the tables of `image`, for the functions around `addresses`; none where there are no tables.
    #[must_use]
    pub fn of(image: &Image, addresses: &[u64]) -> Self {
        Self { functions: read(image, addresses).unwrap_or_default() }
    }

    /// The functions, in order of address.
    #[must_use]
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }
}

fn read(image: &Image, addresses: &[u64]) -> Option<Vec<Function>> {
    let (index_address, index_size) = image.unwind_index?;
    let index = image.bytes(index_address, index_size.min(MOST_UNWIND));
    // What every linker writes: version 1, a count of four bytes, entries of two four-byte offsets. gimli 0.34 multiplies
    // the count unchecked, so a count beyond the table is told here.
    let rows = (index.len() as u64).saturating_sub(INDEX_HEADER) / INDEX_ROW;
    let [1, _, 3, 0x3b, _, _, _, _, count @ ..] = index.first_chunk::<12>()? else { return None };
    if u64::from(u32::from_le_bytes(*count)) > rows {
        return None;
    }
    let bases = BaseAddresses::default().set_eh_frame_hdr(index_address);
    let parsed = EhFrameHdr::new(&index, LittleEndian).parse(&bases, 8).ok()?;
    let gimli::Pointer::Direct(frames_address) = parsed.eh_frame_ptr() else { return None };
    // Without its header the section is taken to reach to the end of what is loaded with it.
    let section = image.sections.iter().find(|section| section.address == frames_address);
    let frames =
        image.bytes(frames_address, section.map_or(MOST_UNWIND, |section| section.size.min(MOST_UNWIND)));
    let table = parsed.table()?;
    let bases = bases.set_eh_frame(frames_address);
    let frames = EhFrame::new(&frames, LittleEndian);
    let mut functions: Vec<Function> = Vec::new();
    let mut code = 0;
    let mut sorted = addresses.to_vec();
    sorted.sort_unstable();
    for address in sorted {
        let end = functions.last().map_or(0, |last| last.end);
        if address < end {
            continue;
        }
        // Functions that overlap are no functions, and would let a small file ask for endless work.
        let function =
            around(&table, &frames, &bases, frames_address, address).filter(|function| function.start >= end);
        functions.extend(function);
        if functions.last().is_some_and(|last| last.end > end) {
            code += functions.last().map_or(0, |last| (last.end - last.start).min(super::MOST_CODE));
            if code > MOST_CODE {
                break;
            }
        }
    }
    Some(functions)
}

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

fn around(
    table: &gimli::EhHdrTable<'_, Bytes<'_>>,
    frames: &EhFrame<Bytes<'_>>,
    bases: &BaseAddresses,
    frames_address: u64,
    address: u64,
) -> Option<Function> {
    let gimli::Pointer::Direct(pointer) = table.lookup(address, bases).ok()? else { return None };
    // gimli 0.34 subtracts these unchecked, where a broken table makes the difference negative.
    let offset = usize::try_from(pointer.checked_sub(frames_address)?).ok()?.into();
    let entry = frames.fde_from_offset(bases, offset, EhFrame::cie_from_offset).ok()?;
    // A table that lies about the order of its entries finds the wrong one; then there is no function.
    entry.contains(address).then(|| Function { start: entry.initial_address(), end: entry.end_address() })
}
