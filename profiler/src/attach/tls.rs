//! TLS inside a file that is no libssl: linked in with symbols, which can be probed, or in a form that cannot.
//!
//! In: an ELF file. Out: functions of OpenSSL's interface that it defines, or why what it enciphers stays unread.

use super::elf::{self, Elf, Kind};
use super::library::{self, Found, MOST_FOUND};
use crate::probe::Layer;
use std::path::Path;

/// How far the names of a file are searched. Programs with OpenSSL linked in have a few megabytes of them.
const SEARCHED: u64 = 64 << 20;

/// The functions without which a file is no TLS library: others merely call it, or define one of its names.
const EVIDENCE: [&str; 3] = ["SSL_new", "SSL_read", "SSL_write"];
/// The same for a file that uses the newer interface alone, as programs in Rust do.
const NEWER_EVIDENCE: [&str; 3] = ["SSL_new", "SSL_read_ex", "SSL_write_ex"];

/// The functions of OpenSSL's interface that the file defines; none when it is no TLS library.
pub fn linked(elf: &Elf) -> Vec<Found> {
    let apis = library::apis(Layer::Tls, None);
    let mut found = Vec::new();
    for (table, strings) in [elf.symbol_table(), elf.dynamic_table()].into_iter().flatten() {
        if !elf.contains(strings, b"\0SSL_new\0", SEARCHED) {
            continue;
        }
        let Some(names) = elf.load(strings, SEARCHED) else { continue };
        elf.symbols(table, |symbol| {
            let api = elf::name(&names, symbol.name).and_then(|name| apis.get(name));
            if let (true, Kind::Function, Some(api)) = (symbol.defined, symbol.kind, api) {
                found.push(Found { api: *api, address: symbol.address, kind: symbol.kind });
            }
            found.len() < MOST_FOUND
        });
    }
    let defines = |name: &str| apis.get(name).is_some_and(|api| found.iter().any(|found| found.api == *api));
    if EVIDENCE.into_iter().all(defines) || NEWER_EVIDENCE.into_iter().all(defines) {
        found
    } else {
        Vec::new()
    }
}

/// Why TLS of this file cannot be read, if it brings one that cannot.
#[must_use]
pub fn unreadable(path: &Path) -> Option<&'static str> {
    let elf = Elf::open(path).ok()?;
    let names = [elf.symbol_table(), elf.dynamic_table()].into_iter().flatten().map(|(_, names)| names);
    if elf.section(".go.buildinfo").is_some() {
        return Some("a Go program: what crypto/tls enciphers is not read");
    }
    if names.into_iter().any(|names| elf.contains(names, b"6rustls", SEARCHED)) {
        return Some("rustls is linked in: what it enciphers is not read");
    }
    // The name of a source file, which error messages carry: OpenSSL has ssl_lib.c, BoringSSL ssl_lib.cc.
    let text = elf.section(".rodata")?;
    let is_hidden = elf.contains(text, b"ssl/ssl_lib.c", SEARCHED) && linked(&elf).is_empty();
    is_hidden.then_some("a TLS library is linked in without symbols: what it enciphers is not read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_has_rustls_and_no_openssl() {
        let own = std::env::current_exe().unwrap();
        assert!(linked(&Elf::open(&own).unwrap()).is_empty());
        let why = unreadable(&own).unwrap();
        assert!(why.starts_with("rustls"), "{why}");
    }

    #[test]
    fn what_is_no_program_brings_no_tls() {
        assert_eq!(unreadable(Path::new("/proc/self/status")), None);
        assert_eq!(unreadable(Path::new("/nonexistent")), None);
    }
}
