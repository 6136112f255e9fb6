//! aarch64: the calls of code as gcc 13 writes it, assembled by hand so that no other compiler is needed.

use profiler::symbol::code::{self, Function, Imports, Surroundings, Target, Value, Wanted};
use profiler::symbol::image::Image;

const BASE: u64 = 0x1_0000;

/// An ELF file with this code as its one segment.
pub fn image(machine: u16, code: &[u8]) -> Image {
    let mut file = vec![0; 64 + 56];
    file[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
    file[18..20].copy_from_slice(&machine.to_le_bytes());
    file[32..40].copy_from_slice(&64_u64.to_le_bytes());
    file[56..58].copy_from_slice(&1_u16.to_le_bytes());
    let size = code.len() as u64;
    for (at, value) in [(8, 120), (16, BASE), (32, size), (40, size)] {
        file[64 + at..64 + at + 8].copy_from_slice(&value.to_le_bytes());
    }
    file[64..68].copy_from_slice(&1_u32.to_le_bytes());
    file[68..72].copy_from_slice(&5_u32.to_le_bytes());
    file.extend(code);
    Image::new(Box::new(file)).unwrap()
}

fn calls(words: &[u32]) -> Vec<code::Call> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let image = image(183, &bytes);
    let imports = Imports::of(&image);
    let wanted = Wanted { all: true, ..Wanted::default() };
    let around = Surroundings { image: &image, imports: &imports, wanted: &wanted };
    code::calls(Function { start: BASE, end: BASE + bytes.len() as u64 }, &around)
}

const fn adrp(register: u32, pages: u32) -> u32 {
    0x9000_0000 | (pages & 3) << 29 | (pages >> 2) << 5 | register
}

const fn add(to: u32, from: u32, number: u32) -> u32 {
    0x9100_0000 | number << 10 | from << 5 | to
}

const fn bl(words: i32) -> u32 {
    0x9400_0000 | words.cast_unsigned() & 0x03ff_ffff
}

const fn mov(to: u32, from: u32) -> u32 {
    0xaa00_03e0 | from << 16 | to
}

#[test]
fn a_registration_passes_constants() {
    let found = calls(&[
        0xa9bf_7bfd, // stp x29, x30, [sp, #-16]!
        0x9100_03fd, // mov x29, sp
        adrp(1, 2),
        add(1, 1, 0x120),
        adrp(2, 3),
        add(2, 2, 0x40),
        mov(3, 2),
        0x1280_0004, // mov w4, #-1
        0xd280_0005, // mov x5, #0
        0xd280_0006, // mov x6, #0
        0xd280_0007, // mov x7, #0
        0xd100_43ff, // sub sp, sp, #16
        0xa900_7fff, // stp xzr, xzr, [sp]
        bl(64),
        bl(64),
    ]);
    let [first, second] = &found[..] else { panic!("{found:?}") };
    let known = |number| Value::Known(number);
    assert_eq!(first.target, Target::Address(BASE + 13 * 4 + 64 * 4));
    let name = known(BASE + 0x3040);
    assert_eq!(
        first.registers,
        [Value::Unknown, known(BASE + 0x2120), name, name, known(u64::from(u32::MAX)), known(0)]
    );
    assert_eq!(first.further, [known(0); 4]);
    assert_eq!(second.registers, [Value::Unknown; 6], "a call may change its arguments");
}

#[test]
fn wide_numbers_spills_and_saved_registers_are_followed() {
    let found = calls(&[
        0xd282_4681, // mov x1, #0x1234
        0xf2aa_cf01, // movk x1, #0x5678, lsl #16
        mov(19, 1),
        0xf81f_0fe1, // str x1, [sp, #-16]!
        bl(16),
        mov(0, 19),
        0xf940_03e1, // ldr x1, [sp]
        0x9280_0002, // mov x2, #-1
        bl(16),
    ]);
    assert_eq!(
        found[1].registers[..3],
        [Value::Known(0x5678_1234), Value::Known(0x5678_1234), Value::Known(u64::MAX)]
    );
}

#[test]
fn ways_that_differ_leave_nothing_known() {
    let found = calls(&[
        adrp(0, 1),
        adrp(1, 1),
        0xb400_0042, // cbz x2, +8: over the next
        adrp(1, 2),
        bl(16),
        0xd65f_03c0, // ret
        bl(16),      // nothing leads here
    ]);
    assert_eq!(found[0].registers[..2], [Value::Known(BASE + 0x1000), Value::Unknown]);
    assert_eq!(found[1].registers[..2], [Value::Unknown; 2]);
    let looped = calls(&[
        adrp(0, 1),
        bl(16), // jumped to from below with another x0
        adrp(0, 2),
        0x17ff_fffe, // b -8
    ]);
    assert_eq!(looped[0].registers[0], Value::Unknown);
}
