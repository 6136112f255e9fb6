//! What a program asks of the machine that it runs on. In: an ELF file. Out: its loader, libraries and the versions of their
//! symbols. Absent: everything that is loaded by name at run time, such as NVML.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use object::elf::{FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{Endianness, elf};

/// What one file needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The loader that the kernel starts, of a program.
    pub loader: Option<String>,
    /// Names of libraries, in the order of the file.
    pub libraries: Vec<String>,
    /// Versions of symbols, such as `GLIBC_2.34`, and the symbols that ask for them.
    pub versions: BTreeMap<String, BTreeSet<String>>,
}

impl Needs {
    /// Of the file at this path.
    ///
    /// # Errors
    /// When it is no ELF file of 64 bits.
    pub fn of(path: &Path) -> Result<Self> {
        let data = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::read(&data).with_context(|| format!("{} is no ELF file that can be read", path.display()))
    }

    fn read(data: &[u8]) -> Result<Self> {
        let header = FileHeader64::<Endianness>::parse(data)?;
        let endian = header.endian()?;
        let mut needs = Self::default();
        for segment in header.program_headers(endian, data)? {
            if segment.p_type(endian) == PT_INTERP {
                let bytes = segment.data(endian, data).map_err(|()| anyhow::anyhow!("a broken PT_INTERP"))?;
                let path = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
                needs.loader = Some(String::from_utf8(path.to_vec())?);
            }
        }
        let sections = header.sections(endian, data)?;
        let dynamic = sections.dynamic_table(endian, data)?;
        for entry in dynamic.iter().filter(|entry| entry.tag == elf::DT_NEEDED) {
            needs.libraries.push(String::from_utf8(dynamic.string(entry)?.to_vec())?);
        }
        needs.versions = versions(&sections, endian, data)?;
        Ok(needs)
    }

    /// The newest version of `family`, such as `GLIBC`, that something asks for.
    #[must_use]
    pub fn newest(&self, family: &str) -> Option<Vec<u32>> {
        let numbers = |version: &String| {
            let numbers = version.strip_prefix(family)?.strip_prefix('_')?;
            numbers.split('.').map(|number| number.parse().ok()).collect::<Option<Vec<u32>>>()
        };
        self.versions.keys().filter_map(numbers).max()
    }
}

fn versions(
    sections: &object::read::elf::SectionTable<'_, FileHeader64<Endianness>>,
    endian: Endianness,
    data: &[u8],
) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut needed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let symbols = sections.symbols(endian, data, elf::SHT_DYNSYM)?;
    let Some(table) = sections.versions(endian, data)? else { return Ok(needed) };
    for (index, symbol) in symbols.enumerate() {
        let version = table.version(table.version_index(endian, index).index())?;
        // Only what is looked for elsewhere.
        let Some(version) = version.filter(|_| symbol.st_shndx.get(endian) == elf::SHN_UNDEF) else {
            continue;
        };
        let name = symbols.symbol_name(endian, symbol)?;
        let names = needed.entry(String::from_utf8(version.name().to_vec())?).or_default();
        names.insert(String::from_utf8_lossy(name).into_owned());
    }
    Ok(needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_this_machine_needs_its_c_library() {
        let needs = Needs::of(&std::env::current_exe().unwrap()).unwrap();
        assert!(needs.loader.is_some_and(|loader| loader.contains("/ld-linux")));
        assert!(needs.libraries.iter().any(|name| name == "libc.so.6"), "{:?}", needs.libraries);
        let all: BTreeSet<_> = needs.versions.values().flatten().collect();
        assert!(all.iter().any(|name| name.as_str() == "malloc"), "{all:?}");
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let versions = ["GLIBC_2.9", "GLIBC_2.34", "GLIBC_2.2.5", "GCC_4.2.0", "GLIBC_PRIVATE"];
        let versions = versions.map(|version| (version.to_owned(), BTreeSet::new())).into();
        let needs = Needs { versions, ..Needs::default() };
        assert_eq!(needs.newest("GLIBC"), Some(vec![2, 34]));
        assert_eq!(needs.newest("GCC"), Some(vec![4, 2, 0]));
        assert_eq!(needs.newest("CXXABI"), None);
    }
}
