//! Libraries inside files of another name: linked in with symbols, which can be probed, or TLS in a form that cannot.
//!
//! In: an ELF file. Out: functions of the library that it defines, or why what it enciphers stays unread.

use super::elf::{self, Elf, Kind};
use super::library::{self, Found, MOST_FOUND};
use crate::probe::Layer;
use std::path::Path;

/// How far the names of a file are searched. Programs with OpenSSL linked in have a few megabytes of them.
const SEARCHED: u64 = 64 << 20;

/// A library that is linked into others.
struct Linked {
    layer: Layer,
    /// The name that is searched for.
    name: &'static str,
    /// The functions, one set or another, without which a file does not have it: others merely call it, or define one of
    /// its names.
    evidence: &'static [&'static [&'static str]],
    /// Only programs have it, no libraries: those need not be searched.
    programs: bool,
}

const LINKED: &[Linked] = &[
    Linked {
        layer: Layer::Tls,
        name: "SSL_new",
        // Programs in Rust use the newer interface alone.
        evidence: &[&["SSL_read", "SSL_write"], &["SSL_read_ex", "SSL_write_ex"]],
        programs: false,
    },
    Linked {
        layer: Layer::Llama,
        name: "llama_decode",
        evidence: &[&["llama_batch_init", "llama_synchronize"]],
        programs: true,
    },
    Linked {
        layer: Layer::LlamaServer,
        name: crate::probe::LLAMA_NEW_ID,
        evidence: &[&[crate::probe::LLAMA_LAUNCH]],
        programs: true,
    },
    Linked {
        layer: Layer::Zmq,
        name: "zmq_msg_recv",
        evidence: &[&["zmq_msg_send", "zmq_msg_data"]],
        programs: true,
    },
];

/// What the file defines of libraries that were linked into it; each library once.
pub fn find(elf: &Elf) -> Vec<(Layer, Vec<Found>)> {
    let is_program = elf.section(".interp").is_some();
    let mut all: Vec<(Layer, Vec<Found>)> = Vec::new();
    for linked in LINKED.iter().filter(|linked| is_program || !linked.programs) {
        let found = defined(elf, linked);
        if !found.is_empty() {
            all.push((linked.layer, found));
        }
    }
    all
}

/// The functions that the file defines; none when the evidence is not complete.
fn defined(elf: &Elf, Linked { layer, name, evidence, .. }: &Linked) -> Vec<Found> {
    let apis = library::apis(*layer, None);
    let needle = [b"\0", name.as_bytes(), b"\0"].concat();
    let mut found = Vec::new();
    for (table, strings) in [elf.symbol_table(), elf.dynamic_table()].into_iter().flatten() {
        if !elf.contains(strings, &needle, SEARCHED) {
            continue;
        }
        let Some(names) = elf.load(strings, SEARCHED) else { continue };
        let mut evident = vec![0; evidence.len()];
        elf.symbols(table, |symbol| {
            let name =
                elf::name(&names, symbol.name).filter(|_| symbol.defined && symbol.kind == Kind::Function);
            for (count, set) in evident.iter_mut().zip(*evidence) {
                *count += usize::from(name.is_some_and(|name| set.contains(&name)));
            }
            if let Some(api) = name.and_then(|name| apis.get(name)) {
                found.push(Found { api: *api, address: symbol.address, kind: symbol.kind });
            }
            found.len() < MOST_FOUND
        });
        if !evident.iter().zip(*evidence).any(|(count, set)| *count >= set.len()) {
            found.clear();
        }
    }
    found
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
    let is_hidden = elf.contains(text, b"ssl/ssl_lib.c", SEARCHED)
        && !find(&elf).iter().any(|(layer, _)| *layer == Layer::Tls);
    is_hidden.then_some("a TLS library is linked in without symbols: what it enciphers is not read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_has_rustls_and_no_openssl() {
        let own = std::env::current_exe().unwrap();
        assert!(find(&Elf::open(&own).unwrap()).is_empty());
        let why = unreadable(&own).unwrap();
        assert!(why.starts_with("rustls"), "{why}");
    }

    #[test]
    fn what_is_no_program_brings_no_tls() {
        assert_eq!(unreadable(Path::new("/proc/self/status")), None);
        assert_eq!(unreadable(Path::new("/nonexistent")), None);
    }
}
