//! What a GPU library offers to probe: ELF file → [`Library`]. Reads the file; attaches nothing.

use super::site::{self, Site};
use crate::probe::{self, Layer};
use object::read::ReadCache;
use object::{Object as _, ObjectSegment as _, ObjectSymbol as _};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// A symbol that can be probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Index into the probe catalogue.
    pub api: u16,
    /// Offset in the file.
    pub offset: u64,
    /// Why it is dear, if it is.
    pub expensive: Option<&'static str>,
}

/// A symbol that cannot be probed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Missing {
    /// Its name.
    pub symbol: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// What one library file offers.
#[derive(Clone, Debug)]
pub struct Library {
    /// Runtime or driver.
    pub layer: Layer,
    /// GNU build id, hex.
    pub build_id: Option<String>,
    /// What can be probed, in the order of the catalogue.
    pub points: Vec<Point>,
    /// What cannot.
    pub missing: Vec<Missing>,
}

/// Why a library could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// It could not be opened or read.
    #[error("failed to read {path}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is no ELF file that makes sense.
    #[error("{path} is not a readable ELF file")]
    Elf {
        /// The file.
        path: String,
        /// What the reader said.
        #[source]
        source: object::Error,
    },
}

/// Reads the exported functions of the library at `path` and chooses a probe site for each catalogue entry.
///
/// # Errors
/// When the file cannot be read or is no ELF file.
pub fn inspect(path: &Path, layer: Layer) -> Result<Library, LibraryError> {
    let name = || path.display().to_string();
    let file = File::open(path).map_err(|source| LibraryError::Read { path: name(), source })?;
    let cache = ReadCache::new(&file);
    let elf = object::File::parse(&cache).map_err(|source| LibraryError::Elf { path: name(), source })?;
    let exports = exports(&elf);
    let mut library = Library { layer, build_id: build_id(&elf), points: Vec::new(), missing: Vec::new() };
    for (api, entry) in probe::of_library(layer, None) {
        let symbol = entry.symbol;
        let found = exports.get(symbol).ok_or("not exported by this library").and_then(|address| {
            let offset = file_offset(&elf, *address).ok_or("its code is not in the file")?;
            choose(&file, offset)
        });
        match found {
            Ok((offset, expensive)) => library.points.push(Point { api, offset, expensive }),
            Err(reason) => library.missing.push(Missing { symbol, reason }),
        }
    }
    Ok(library)
}

/// Defined functions of the dynamic symbol table that the catalogue knows, by name.
fn exports<'a>(elf: &object::File<'a, &'a ReadCache<&'a File>>) -> HashMap<&'a str, u64> {
    elf.dynamic_symbols()
        .filter(|symbol| symbol.is_definition() && symbol.address() != 0)
        .filter_map(|symbol| Some((symbol.name().ok()?, symbol.address())))
        .filter(|(name, _)| ["cu", "__cuda", "nccl"].iter().any(|start| name.starts_with(start)))
        .collect()
}

fn choose(file: &File, offset: u64) -> Result<(u64, Option<&'static str>), &'static str> {
    let mut code = [0; site::WINDOW];
    let read = file.read_at(&mut code, offset).map_err(|_| "its code could not be read")?;
    match site::choose(code.get(..read).unwrap_or(&[])) {
        Site::Cheap(distance) => Ok((offset + distance, None)),
        Site::Expensive(why) => Ok((offset, Some(why))),
        Site::Refused(why) => Err(why),
    }
}

/// Where the code at virtual address `address` lies in the file.
fn file_offset<'a>(elf: &object::File<'a, &'a ReadCache<&'a File>>, address: u64) -> Option<u64> {
    elf.segments().find_map(|segment| {
        let distance = address.checked_sub(segment.address())?;
        let (start, size) = segment.file_range();
        (distance < size).then_some(start + distance)
    })
}

fn build_id<'a>(elf: &object::File<'a, &'a ReadCache<&'a File>>) -> Option<String> {
    let id = elf.build_id().ok()??;
    Some(id.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_library_is_refused_by_name() {
        let missing = inspect(Path::new("/nonexistent/libcudart.so"), Layer::Runtime).unwrap_err();
        assert_eq!(missing.to_string(), "failed to read /nonexistent/libcudart.so");
        let text = std::env::temp_dir().join(format!("gpuspan-no-elf-{}", std::process::id()));
        std::fs::write(&text, "no elf").unwrap();
        let garbage = inspect(&text, Layer::Driver).unwrap_err();
        assert!(matches!(garbage, LibraryError::Elf { .. }), "{garbage}");
        std::fs::remove_file(text).unwrap();
    }

    #[test]
    fn a_library_without_the_symbols_lacks_them_all() {
        let own = std::env::current_exe().unwrap();
        let library = inspect(&own, Layer::Runtime).unwrap();
        assert!(library.points.is_empty());
        assert_eq!(library.missing.len(), probe::of_library(Layer::Runtime, None).count());
        assert_eq!(library.missing.first().unwrap().reason, "not exported by this library");
    }
}
