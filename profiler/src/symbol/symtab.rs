//! Symbol tables, read a window at a time: what is called how, and what stands where.

use super::image::{Image, Section, half, long, word};
use super::registration::MOST_NAME;
use object::elf;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Bytes of an entry.
const ENTRY: usize = 24;
/// The most of a table that is read; libtorch_cuda's has 6 MB.
const MOST_BYTES: u64 = 512 << 20;
/// The most symbols of interest.
const MOST_ENTRIES: usize = 1 << 20;
/// What names may hold together.
const MOST_TEXT: usize = 64 << 20;
/// Bytes of names read at a time.
const WINDOW: u64 = 1 << 20;

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// `.symtab`, which stripping removes.
    Full,
    /// `.dynsym`, which the loader needs.
    Dynamic,
}

/// A symbol that is defined in the file.
#[derive(Clone, Copy)]
struct Entry {
    name: u64,
    kind: elf::SymbolType,
    address: u64,
    size: u64,
}

/// The names at each of `addresses`: those of functions where there are any, else all.
#[must_use]
pub fn names_at(image: &Image, table: Table, addresses: &HashSet<u64>) -> HashMap<u64, Vec<String>> {
    let mut entries = Vec::new();
    each(image, table, |entry| {
        if addresses.contains(&entry.address) && entries.len() < MOST_ENTRIES {
            entries.push(entry);
        }
    });
    let mut found: HashMap<u64, Vec<(bool, String)>> = HashMap::new();
    named(image, entries, |entry, name| {
        let is_function = matches!(entry.kind, elf::STT_FUNC | elf::STT_GNU_IFUNC);
        found.entry(entry.address).or_default().push((is_function, name));
    });
    let best = |names: Vec<(bool, String)>| {
        let any = names.iter().any(|(is_function, _)| *is_function);
        names.into_iter().filter(|(is_function, _)| *is_function == any).map(|(_, name)| name).collect()
    };
    found.into_iter().map(|(address, names)| (address, best(names))).collect()
}

/// Where the functions of these names are.
#[must_use]
pub fn addresses_of(image: &Image, names: &[&str]) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for table in [Table::Full, Table::Dynamic] {
        // Looking for the text is one pass over the names; reading every symbol's name would be one read each.
        let Some((_, texts)) = sections(image, table) else { continue };
        let mut at: HashMap<u64, &str> = HashMap::new();
        for name in names {
            at.extend(positions(image, texts, name).into_iter().map(|position| (position, *name)));
        }
        if !at.is_empty() {
            each(image, table, |entry| {
                if let Some(name) = at.get(&entry.name).filter(|_| entry.kind == elf::STT_FUNC) {
                    found.push(((*name).to_owned(), entry.address));
                }
            });
        }
    }
    found
}

/// Where in the file a string table has `name`, also as the end of a longer one.
fn positions(image: &Image, texts: &Section, name: &str) -> Vec<u64> {
    let pattern = [name.as_bytes(), &[0]].concat();
    let mut found = Vec::new();
    let mut done = 0;
    while done < texts.size && found.len() < 64 {
        let bytes = image.at_offset(texts.offset.saturating_add(done), WINDOW + pattern.len() as u64);
        let hits = memchr::memmem::find_iter(&bytes, &pattern)
            .map(|at| texts.offset.saturating_add(done + at as u64));
        found.extend(hits.take(64));
        if (bytes.len() as u64) < WINDOW {
            break;
        }
        done += WINDOW;
    }
    found
}

/// The variables that keep kernels' handles, each with the kernel's name as the variable's name has it.
#[must_use]
pub fn handle_variables(image: &Image) -> BTreeMap<u64, String> {
    let mut entries = Vec::new();
    each(image, Table::Full, |entry| {
        if entry.kind == elf::STT_OBJECT && entry.size == 8 && entries.len() < MOST_ENTRIES {
            entries.push(entry);
        }
    });
    let mut found = BTreeMap::new();
    let mut text = 0;
    named(image, entries, |entry, name| {
        if let Some(kernel) = kernel_of_variable(&name).filter(|kernel| text + kernel.len() <= MOST_TEXT) {
            text += kernel.len();
            found.insert(entry.address, kernel.to_owned());
        }
    });
    found
}

/// Reads the names of `entries` in the order in which they stand in the file.
fn named(image: &Image, mut entries: Vec<Entry>, mut take: impl FnMut(Entry, String)) {
    entries.sort_unstable_by_key(|entry| entry.name);
    for entry in entries {
        if let Some(name) = image.text_at_offset(entry.name, MOST_NAME).filter(|name| !name.is_empty()) {
            take(entry, name);
        }
    }
}

/// The kernel whose handle the variable `symbol` keeps, if it keeps one: `_ZZ[L]<length><stub>…E8__handle`, a local of
/// `__device_stub_` + the kernel's mangled name (nvcc 13.0 and 13.5).
fn kernel_of_variable(symbol: &str) -> Option<&str> {
    let local = symbol.strip_prefix("_ZZ")?.strip_suffix("E8__handle")?;
    let local = local.strip_prefix('L').unwrap_or(local);
    let digits = local.find(|c: char| !c.is_ascii_digit())?;
    let (length, rest) = local.split_at_checked(digits)?;
    rest.get(..length.parse().ok()?)?.strip_prefix("__device_stub_")
}

/// A table, and the names of its symbols.
fn sections(image: &Image, table: Table) -> Option<(&Section, &Section)> {
    let kind = if table == Table::Full { elf::SHT_SYMTAB } else { elf::SHT_DYNSYM };
    let symbols = image.sections.iter().find(|section| section.kind == kind)?;
    Some((symbols, image.sections.get(symbols.link)?))
}

fn each(image: &Image, table: Table, mut take: impl FnMut(Entry)) {
    let Some((symbols, names)) = sections(image, table) else { return };
    image.entries::<ENTRY>(symbols.offset, symbols.size.min(MOST_BYTES), |_, bytes| {
        if let Some(entry) = entry(bytes, names) {
            take(entry);
        }
    });
}

fn entry(bytes: &[u8; ENTRY], names: &Section) -> Option<Entry> {
    let name = names.offset.checked_add(u64::from(word(bytes, 0)))?;
    let [_, _, _, _, info, ..] = *bytes;
    let address = long(bytes, 8);
    (half(bytes, 6) != elf::SHN_UNDEF.0 && address != 0).then(|| Entry {
        name,
        kind: elf::SymbolType(info & 0xf),
        address,
        size: long(bytes, 16),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_says_which_kernel() {
        let quantize = "_ZZL48__device_stub__Z13quantize_q8_1PKfPvlllllj5uint3PKfPvllllljRK5uint3E8__handle";
        assert_eq!(kernel_of_variable(quantize), Some("_Z13quantize_q8_1PKfPvlllllj5uint3"));
        let exported = "_ZZ24__device_stub__Z4spinPfiPfiE8__handle";
        assert_eq!(kernel_of_variable(exported), Some("_Z4spinPfi"));
        for other in [
            "_ZGVZL48__device_stub__Z13quantize_q8_1PKfPvlllllj5uint3PKfPvllllljRK5uint3E5__tmp",
            "_ZZL48__device_stub__Z13quantize_q8_1PKfPvlllllj5uint3PKfPvllllljRK5uint3E5__tmp",
            "_ZZL99999999999999999999__device_stub__Z1aE8__handle",
            "_ZZL99__device_stub__Z1aE8__handle",
            "_ZZL3fooE8__handle",
            "_ZZE8__handle",
            "",
        ] {
            assert_eq!(kernel_of_variable(other), None, "{other}");
        }
    }
}
