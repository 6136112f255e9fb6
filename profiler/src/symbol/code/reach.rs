//! Where code may refer to an address: a scan for candidates, which only decoding confirms.

use crate::symbol::image::{Image, Machine, word};
use std::collections::HashSet;

/// Bytes read at a time.
const WINDOW: u64 = 1 << 20;
/// The most code that is looked at; libtorch_cuda has 62 MB. A broken file may claim any number of segments.
const MOST_CODE: u64 = 4 << 30;
/// Stubs and slots that are looked for.
const MOST_TARGETS: usize = 64;
/// More candidates than any program has: libtorch_cuda has 69,000.
const MOST: usize = 1 << 22;

/// Addresses at which code may call, jump to or load from one of `targets`.
#[must_use]
pub fn mentions(image: &Image, targets: &HashSet<u64>) -> Vec<u64> {
    // A program calls two functions through a few stubs and slots: comparing with each is far cheaper than hashing every
    // byte of 62 MB. More targets than this come from a broken file.
    let targets: Vec<u64> = targets.iter().copied().take(MOST_TARGETS).collect();
    let mut found = Vec::new();
    windows(image, |address, bytes| {
        if found.len() < MOST {
            match image.machine {
                Machine::X86 => relative_words(address, bytes, &targets, &mut found),
                Machine::Arm => branches(address, bytes, &targets, &mut found),
            }
        }
    });
    found
}

/// The code of `image`, a window at a time; windows overlap by eight bytes.
pub fn windows(image: &Image, mut each: impl FnMut(u64, &[u8])) {
    let mut left = MOST_CODE;
    for segment in image.segments.iter().filter(|segment| segment.executable) {
        let mut done = 0;
        while done < segment.file_size && left > 0 {
            left = left.saturating_sub(WINDOW);
            let bytes = image.bytes(segment.address.wrapping_add(done), WINDOW + 8);
            if bytes.len() < 8 {
                break;
            }
            each(segment.address.wrapping_add(done), &bytes);
            done += WINDOW;
        }
    }
}

/// Every four bytes that reach a target when counted from their own end: x86-64's relative calls, jumps and operands.
fn relative_words(address: u64, bytes: &[u8], targets: &[u64], found: &mut Vec<u64>) {
    for (index, four) in bytes.windows(4).enumerate() {
        let Some(four) = four.first_chunk() else { return };
        let end = address.wrapping_add(index as u64 + 4);
        let reached = end.wrapping_add_signed(i64::from(i32::from_le_bytes(*four)));
        if targets.contains(&reached) {
            found.push(end.wrapping_sub(4));
        }
    }
}

/// aarch64's `b` and `bl` to a target.
fn branches(address: u64, bytes: &[u8], targets: &[u64], found: &mut Vec<u64>) {
    for (index, four) in bytes.chunks_exact(4).enumerate() {
        let instruction = word(four, 0);
        if instruction & 0x7c00_0000 == 0x1400_0000 {
            let at = address.wrapping_add(index as u64 * 4);
            let distance = i64::from((instruction << 6).cast_signed() >> 4);
            if targets.contains(&at.wrapping_add_signed(distance)) {
                found.push(at);
            }
        }
    }
}

/// The stubs through which code calls what `slots` hold, each with its slot.
#[must_use]
pub fn stubs(image: &Image, slots: &HashSet<u64>) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    windows(image, |address, bytes| match image.machine {
        Machine::X86 => x86_stubs(address, bytes, slots, &mut found),
        Machine::Arm => arm_stubs(address, bytes, slots, &mut found),
    });
    found
}

/// `[endbr64] [bnd] jmp *slot(%rip)`, as ld, gold and lld write them.
fn x86_stubs(address: u64, bytes: &[u8], slots: &HashSet<u64>, found: &mut Vec<(u64, u64)>) {
    const JUMP: [u8; 2] = [0xff, 0x25];
    for index in memchr::memmem::find_iter(bytes, &JUMP) {
        if bytes.len() < index + 6 {
            continue;
        }
        let at = address.wrapping_add(index as u64);
        let slot = at.wrapping_add(6).wrapping_add_signed(i64::from(word(bytes, index + 2).cast_signed()));
        if !slots.contains(&slot) {
            continue;
        }
        let before = |pattern: &[u8]| bytes.get(..index).is_some_and(|before| before.ends_with(pattern));
        let prefixes: [(&[u8], u64); 3] =
            [(&[0xf2], 1), (&[0xf3, 0x0f, 0x1e, 0xfa], 4), (&[0xf3, 0x0f, 0x1e, 0xfa, 0xf2], 5)];
        found.push((at, slot));
        found.extend(
            prefixes
                .into_iter()
                .filter(|(p, _)| before(p))
                .map(|(_, length)| (at.wrapping_sub(length), slot)),
        );
    }
}

/// `[bti c] adrp x16, page; ldr x17, [x16, #offset]` (the AArch64 ELF ABI reserves both registers for it).
fn arm_stubs(address: u64, bytes: &[u8], slots: &HashSet<u64>, found: &mut Vec<(u64, u64)>) {
    const BTI_C: u32 = 0xd503_245f;
    for index in (0..bytes.len().saturating_sub(7)).step_by(4) {
        let (page, load) = (word(bytes, index), word(bytes, index + 4));
        if page & 0x9f00_001f != 0x9000_0010 || load & 0xffc0_03ff != 0xf940_0211 {
            continue;
        }
        let at = address.wrapping_add(index as u64);
        let high = ((page << 8).cast_signed() >> 13) << 2 | ((page >> 29) & 3).cast_signed();
        let within = u64::from(load >> 10 & 0xfff) * 8;
        let slot = (at & !0xfff).wrapping_add_signed(i64::from(high) << 12).wrapping_add(within);
        if slots.contains(&slot) {
            found.push((at, slot));
            if index >= 4 && word(bytes, index - 4) == BTI_C {
                found.push((at.wrapping_sub(4), slot));
            }
        }
    }
}
