//! What the loader writes into the file's variables: relocations → value or symbol by slot.

use crate::symbol::image::{Image, Machine, half, long, word};
use object::elf;
use std::collections::HashMap;

/// Relocations that are kept. libtorch_cuda has 106,000; a file with more than this is left alone.
const MOST: usize = 1 << 21;
/// The longest symbol that is of interest.
const SYMBOL: usize = 256;
const RELOCATION: u64 = 24;

/// What will stand in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Import {
    /// An address of this file.
    Address(u64),
    /// The address of a symbol: its index, and what is added.
    Symbol(u32, u64),
}

/// Slots and what will stand in them.
pub struct Imports {
    /// In order of slot.
    slots: Vec<(u64, Import)>,
    /// Where the dynamic symbols and their names are, as linked.
    symbols: Option<(u64, u64)>,
    /// Relative relocations are packed: their addends stand in the slots.
    packed: bool,
}

impl Imports {
    /// Reads the relocations of `image`; nothing where it has none, or more than make sense.
    #[must_use]
    pub fn of(image: &Image) -> Self {
        let dynamic: HashMap<u64, u64> = image.dynamic().into_iter().collect();
        let value = |tag: elf::DynamicTag| dynamic.get(&tag.0.cast_unsigned()).copied();
        let mut slots = Vec::new();
        for (table, size) in
            [(value(elf::DT_RELA), value(elf::DT_RELASZ)), (value(elf::DT_JMPREL), value(elf::DT_PLTRELSZ))]
        {
            let Some((offset, size)) = table.and_then(|table| image.offset(table)).zip(size) else {
                continue;
            };
            if size / RELOCATION > MOST as u64 {
                continue;
            }
            image.entries::<24>(offset, size, |_, entry| slots.extend(import(image.machine, entry)));
        }
        slots.sort_by_key(|(slot, _)| *slot);
        Self {
            slots,
            symbols: value(elf::DT_SYMTAB).zip(value(elf::DT_STRTAB)),
            packed: value(elf::DT_RELR).is_some(),
        }
    }

    /// The slots that will hold the address of the undefined symbol `name`.
    #[must_use]
    pub fn slots_of(&self, image: &Image, names: &[&str]) -> Vec<(u64, String)> {
        let mut known: HashMap<u32, Option<String>> = HashMap::new();
        let mut found = Vec::new();
        for (slot, import) in &self.slots {
            let Import::Symbol(index, 0) = import else { continue };
            let name = known.entry(*index).or_insert_with(|| {
                self.symbol(image, *index).filter(|(_, defined, _)| !defined).map(|(name, ..)| name)
            });
            if let Some(name) = name.as_ref().filter(|name| names.contains(&name.as_str())) {
                found.push((*slot, name.clone()));
            }
        }
        found
    }

    /// The address of this file that will stand in `slot`.
    #[must_use]
    pub fn address_in(&self, image: &Image, slot: u64) -> Option<u64> {
        match self.at(slot) {
            Some(Import::Address(address)) => Some(address),
            Some(Import::Symbol(index, addend)) => {
                let (_, defined, address) = self.symbol(image, index)?;
                defined.then(|| address.wrapping_add(addend))
            }
            None => self.packed.then(|| image.long(slot)).flatten().filter(|address| *address != 0),
        }
    }

    fn at(&self, slot: u64) -> Option<Import> {
        let index = self.slots.binary_search_by_key(&slot, |(slot, _)| *slot).ok()?;
        self.slots.get(index).map(|(_, import)| *import)
    }

    /// Name of a dynamic symbol, whether it is defined here, and its address.
    fn symbol(&self, image: &Image, index: u32) -> Option<(String, bool, u64)> {
        let (symbols, names) = self.symbols?;
        let entry = image.bytes(symbols.checked_add(u64::from(index) * 24)?, 24);
        let defined = half(&entry, 6) != elf::SHN_UNDEF.0;
        let name = match defined {
            true => String::new(),
            false => image.text(names.checked_add(u64::from(word(&entry, 0)))?, SYMBOL)?,
        };
        Some((name, defined, long(&entry, 8)))
    }
}

fn import(machine: Machine, entry: &[u8; 24]) -> Option<(u64, Import)> {
    let (slot, info, addend) = (long(entry, 0), long(entry, 8), long(entry, 16));
    let (symbol, kind) = ((info >> 32) as u32, elf::RelocationType(info as u32));
    let (absolute, slots, relative) = match machine {
        Machine::X86 => {
            (elf::R_X86_64_64, [elf::R_X86_64_GLOB_DAT, elf::R_X86_64_JUMP_SLOT], elf::R_X86_64_RELATIVE)
        }
        Machine::Arm => (
            elf::R_AARCH64_ABS64,
            [elf::R_AARCH64_GLOB_DAT, elf::R_AARCH64_JUMP_SLOT],
            elf::R_AARCH64_RELATIVE,
        ),
    };
    if kind == relative {
        return Some((slot, Import::Address(addend)));
    }
    // The addend of a slot is not used on x86-64 and is zero on aarch64 (psABI of each).
    let addend = if slots.contains(&kind) { 0 } else { addend };
    (slots.contains(&kind) || kind == absolute).then_some((slot, Import::Symbol(symbol, addend)))
}
