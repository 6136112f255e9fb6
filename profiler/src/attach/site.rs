//! Where in a function a probe costs least and does no harm: machine code → [`Site`], or why there is none.
//!
//! A uprobe costs what the instruction under it costs. The kernel emulates some instructions and single-steps the
//! rest out of line, which is 3 times dearer on bare metal and 14 times in a nested VM. On aarch64 the single-step
//! path has resumed GPU processes at the wrong place, so there such a site is refused. So is an instruction that the
//! kernel would not take: one refused place would take all other probes of its library with it. Pure: bytes in,
//! choice out.

use iced_x86::{Code as X86, Decoder, DecoderOptions, Mnemonic, OpKind, Register};
use serde::{Serialize, Serializer};
use yaxpeax_arch::{Decoder as _, U8Reader};
use yaxpeax_arm::armv8::a64::{InstDecoder, Opcode};

/// Whose machine code it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Machine {
    /// x86-64.
    X86_64,
    /// aarch64, little endian.
    Aarch64,
}

/// What a probe at a site costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cost {
    /// The kernel emulates the first instruction.
    Emulated,
    /// It emulates a later one, before which nothing happened that a probe could miss.
    EmulatedLater,
    /// It single-steps the first instruction.
    SingleStepped,
}

impl Cost {
    /// All classes, the cheapest first.
    pub const ALL: [Self; 3] = [Self::Emulated, Self::EmulatedLater, Self::SingleStepped];

    /// The class in words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Emulated => "emulated",
            Self::EmulatedLater => "emulated later",
            Self::SingleStepped => "single-stepped",
        }
    }
}

/// The place chosen in a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Bytes from the function's start.
    pub distance: u64,
    /// What a probe there costs.
    pub cost: Cost,
    /// Why there.
    pub why: &'static str,
    /// What the choice is made from.
    pub code: Code,
}

/// The first bytes of a function, up to the end of the probed instruction. Serialised as hex.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Code {
    bytes: [u8; WINDOW],
    length: usize,
}

impl Code {
    fn of(code: &[u8], length: usize) -> Self {
        let mut bytes = [0; WINDOW];
        let length = length.min(code.len()).min(WINDOW);
        bytes.iter_mut().zip(code).take(length).for_each(|(to, from)| *to = *from);
        Self { bytes, length }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.bytes.iter().take(self.length).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Bytes of machine code that are looked at: two x86-64 instructions, at most 15 bytes each.
pub const WINDOW: usize = 32;

/// No place for a probe, and why.
pub type Refused = &'static str;

const NO_INSTRUCTION: Refused = "its first bytes are no instruction";

/// The place for a probe in the function that starts with `code`.
///
/// # Errors
/// When no probe may stand there.
pub fn choose(machine: Machine, code: &[u8]) -> Result<Site, Refused> {
    let code = code.get(..WINDOW).unwrap_or(code);
    match machine {
        Machine::X86_64 => x86_64(code),
        Machine::Aarch64 => aarch64(code),
    }
}

/// Where a function that does nothing but jump jumps to, counted from its start: it is the other function under a
/// second name, and a probe on each would count its calls twice.
#[must_use]
pub fn jump_target(machine: Machine, code: &[u8]) -> Option<i64> {
    match machine {
        Machine::X86_64 => {
            let first = Decoder::with_ip(64, code, 0, DecoderOptions::NONE).decode();
            let direct = matches!(first.code(), X86::Jmp_rel8_64 | X86::Jmp_rel32_64);
            direct.then(|| first.near_branch64().cast_signed())
        }
        Machine::Aarch64 => {
            let word = u32::from_le_bytes(*code.first_chunk()?);
            // 26 bits of distance in words, signed.
            (opcode(word)? == Opcode::B).then(|| i64::from((word << 6).cast_signed() >> 6) * 4)
        }
    }
}

/// x86-64: the first instruction when emulated, else a later one that is known to be safe.
///
/// `endbr64` and `nop` change nothing, so the instruction after them serves. NVIDIA's driver opens its functions with
/// `cmp dword [rip+x], imm32` and a conditional jump (seen in 535 and 550, every export): the comparison sets flags
/// and leaves stack and argument registers alone, so a probe on the jump sees what entry would.
fn x86_64(code: &[u8]) -> Result<Site, Refused> {
    let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    let first = decoder.decode();
    let second_at = first.len();
    let second = decoder.decode();
    let end = decoder.position();
    if first.is_invalid() {
        return Err(NO_INSTRUCTION);
    }
    let bytes = code.get(..second_at).unwrap_or(code);
    let later = || {
        let bytes = code.get(second_at..end)?;
        is_emulated(&second, bytes).then_some(second.is_jcc_short_or_near())
    };
    let site = |distance: usize, length: usize, cost, why| {
        Ok(Site { distance: distance as u64, cost, why, code: Code::of(code, length) })
    };
    if is_emulated(&first, bytes) {
        return site(0, second_at, Cost::Emulated, "the kernel emulates the first instruction");
    }
    if is_untaken(&first, bytes) {
        return Err("the kernel takes no probe on its first instruction");
    }
    match (first.code(), later()) {
        (X86::Endbr64, Some(_)) => {
            site(second_at, end, Cost::EmulatedLater, "the kernel emulates the instruction after endbr64")
        }
        (X86::Cmp_rm32_imm32, Some(true)) if first.memory_base() == Register::RIP => {
            site(second_at, end, Cost::EmulatedLater, "the kernel emulates the jump after the comparison")
        }
        (X86::Endbr64, None) => {
            site(0, end, Cost::SingleStepped, "the kernel emulates neither endbr64 nor what follows")
        }
        _ => site(0, second_at, Cost::SingleStepped, "the kernel does not emulate the first instruction"),
    }
}

/// What arch/x86/kernel/uprobes.c emulates (`branch_setup_xol_ops`, `push_setup_xol_ops`; push since Linux 5.0): a
/// push of a whole register in its short form, `nop` (those of several bytes since 6.18, before that single-stepped),
/// relative jumps and calls without an operand-size prefix.
fn is_emulated(instruction: &iced_x86::Instruction, bytes: &[u8]) -> bool {
    match instruction.mnemonic() {
        Mnemonic::Nop => true,
        Mnemonic::Push => {
            let whole = instruction.op0_kind() == OpKind::Register && instruction.op0_register().is_gpr64();
            whole && matches!(bytes, [0x50..=0x57] | [0x41, 0x50..=0x57])
        }
        _ => {
            let relative = instruction.is_jcc_short_or_near()
                || instruction.is_jmp_short_or_near()
                || instruction.is_call_near();
            relative && bytes.first() != Some(&0x66)
        }
    }
}

/// What the kernel refuses to probe: bad prefixes and opcodes of arch/x86/kernel/uprobes.c (`is_prefix_bad`,
/// `good_insns_64`, `good_2byte_insns`), EVEX, and the legacy three-byte opcodes, which its table does not have. And
/// what it would get wrong: it takes every opcode 0x90 for `nop`, which `xchg r8, rax` is not.
fn is_untaken(instruction: &iced_x86::Instruction, bytes: &[u8]) -> bool {
    let is_prefix = |byte: &u8| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
    let prefixes = bytes.iter().take_while(|byte| is_prefix(byte)).count();
    let (prefixes, rest) = bytes.split_at(prefixes);
    if prefixes.iter().any(|byte| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0xf0)) {
        return true;
    }
    let rest = match rest {
        [0x40..=0x4f, rest @ ..] => rest,
        _ => rest,
    };
    match rest {
        [0x0f, second, ..] => {
            matches!(second, 0x00..=0x0d | 0x24..=0x27 | 0x30 | 0x34..=0x3f | 0x78..=0x7d | 0xa6 | 0xa7 | 0xff)
        }
        [0x90, ..] => instruction.mnemonic() == Mnemonic::Xchg,
        [first, ..] => {
            matches!(
                first,
                0x62 | 0x6c..=0x6f | 0xcc..=0xcf | 0xe4..=0xe7 | 0xec..=0xef | 0xf1 | 0xf4 | 0xfa | 0xfb
            )
        }
        [] => true,
    }
}

/// aarch64: only what arch/arm64/kernel/probes/decode-insn.c simulates; never a single step.
///
/// `bti` and `nop` change nothing, so the instruction after them serves.
fn aarch64(code: &[u8]) -> Result<Site, Refused> {
    let word = |index: usize| {
        let bytes = code.get(index * 4..index * 4 + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let first = word(0).ok_or(NO_INSTRUCTION)?;
    if is_simulated(first) {
        let why = "the kernel simulates the first instruction";
        return Ok(Site { distance: 0, cost: Cost::Emulated, why, code: Code::of(code, 4) });
    }
    let passive = first == NOP || first & BTI_MASK == BTI;
    if passive && word(1).is_some_and(is_simulated) {
        let why = "the kernel simulates the instruction after the landing pad";
        return Ok(Site { distance: 4, cost: Cost::EmulatedLater, why, code: Code::of(code, 8) });
    }
    match opcode(first) {
        None => Err(NO_INSTRUCTION),
        Some(_) => Err("the kernel would single-step its first instruction, which is unsafe on aarch64"),
    }
}

const NOP: u32 = 0xd503_201f;
const BTI: u32 = 0xd503_241f;
const BTI_MASK: u32 = 0xffff_ff3f;

/// What the kernel simulates for uprobes: `adr`, `adrp` and branches. Absent on purpose: `nop`, which kernels before
/// 6.13 single-step, and `ldr` of a literal, which newer kernels refuse and older ones read from user memory unsafely.
fn is_simulated(word: u32) -> bool {
    match opcode(word) {
        // `bc.cond` (FEAT_HBC) has bit 4 set and is not simulated.
        Some(Opcode::Bcc(_)) => word & 0x10 == 0,
        Some(
            Opcode::ADR
            | Opcode::ADRP
            | Opcode::B
            | Opcode::BL
            | Opcode::BR
            | Opcode::BLR
            | Opcode::RET
            | Opcode::CBZ
            | Opcode::CBNZ
            | Opcode::TBZ
            | Opcode::TBNZ,
        ) => true,
        _ => false,
    }
}

fn opcode(word: u32) -> Option<Opcode> {
    let bytes = word.to_le_bytes();
    let decoded = InstDecoder::default().decode(&mut U8Reader::new(&bytes)).ok()?;
    (decoded.opcode != Opcode::Invalid).then_some(decoded.opcode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn x86(code: &[u8]) -> Result<(u64, Cost), Refused> {
        choose(Machine::X86_64, code).map(|site| (site.distance, site.cost))
    }

    fn arm(words: &[u32]) -> Result<(u64, Cost), Refused> {
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        choose(Machine::Aarch64, &code).map(|site| (site.distance, site.cost))
    }

    #[test]
    fn x86_64_sites() {
        let cmp_je = [0x81, 0x3d, 1, 2, 3, 4, 5, 6, 7, 8, 0x74, 0x10];
        let cmp_jne_near = [0x81, 0x3d, 1, 2, 3, 4, 5, 6, 7, 8, 0x0f, 0x85, 0, 1, 0, 0];
        let cmp_mov = [0x81, 0x3d, 1, 2, 3, 4, 5, 6, 7, 8, 0x48, 0x89, 0xe5];
        let cmp_push = [0x81, 0x3d, 1, 2, 3, 4, 5, 6, 7, 8, 0x55];
        for (code, distance, cost) in [
            (&[0x55][..], 0, Cost::Emulated),
            (&[0x41, 0x57], 0, Cost::Emulated),
            (&[0x90], 0, Cost::Emulated),
            (&[0x0f, 0x1f, 0x44, 0, 0], 0, Cost::Emulated),
            (&[0xeb, 0x02], 0, Cost::Emulated),
            (&[0xe8, 0, 0, 0, 0], 0, Cost::Emulated),
            (&[0xf3, 0x0f, 0x1e, 0xfa, 0x55], 4, Cost::EmulatedLater),
            (&cmp_je, 10, Cost::EmulatedLater),
            (&cmp_jne_near, 10, Cost::EmulatedLater),
            (&cmp_mov, 0, Cost::SingleStepped),
            (&cmp_push, 0, Cost::SingleStepped),
            (&[0x48, 0x83, 0xec, 0x28], 0, Cost::SingleStepped),
            (&[0x31, 0xc0, 0xc3], 0, Cost::SingleStepped),
            (&[0xf3, 0x0f, 0x1e, 0xfa, 0xc3], 0, Cost::SingleStepped),
            // A 16-bit push, one with a needless prefix and one in its long form are not emulated.
            (&[0x66, 0x50], 0, Cost::SingleStepped),
            (&[0x48, 0x55], 0, Cost::SingleStepped),
            (&[0xff, 0xf5], 0, Cost::SingleStepped),
        ] {
            assert_eq!(x86(code), Ok((distance, cost)), "{code:02x?}");
        }
    }

    #[test]
    fn x86_64_places_that_the_kernel_would_not_take() {
        for code in [
            &[0xcc][..],
            &[0xf4],
            &[0xf1],
            &[0x0f, 0x05],
            &[0xec],
            &[0xf0, 0x0f, 0xb1, 0x0f],
            &[0x2e, 0x48, 0x89, 0xe5],
            &[0x0f, 0x38, 0x00, 0xc1],
            &[0x62, 0xf1, 0x7c, 0x48, 0x28, 0xc1],
            &[0x49, 0x90],
            &[0x06],
            &[],
        ] {
            assert!(x86(code).is_err(), "{code:02x?}: {:?}", x86(code));
        }
    }

    #[test]
    fn a_site_shows_what_was_looked_at() {
        let site = choose(Machine::X86_64, &[0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0x57, 0x41, 0x56]).unwrap();
        assert_eq!(site.code.to_string(), "f30f1efa4157");
    }

    #[test]
    fn functions_that_only_jump() {
        assert_eq!(jump_target(Machine::X86_64, &[0xeb, 0x02]), Some(4));
        assert_eq!(jump_target(Machine::X86_64, &[0xe9, 0xfb, 0xff, 0xff, 0xff]), Some(0));
        assert_eq!(jump_target(Machine::X86_64, &[0x74, 0x02]), None);
        assert_eq!(jump_target(Machine::X86_64, &[]), None);
        let b = |word: u32| jump_target(Machine::Aarch64, &word.to_le_bytes());
        assert_eq!((b(0x1400_0002), b(0x17ff_ffff), b(0x9400_0002)), (Some(8), Some(-4), None));
    }

    #[test]
    fn edge_40_aarch64_never_lands_on_a_single_step() {
        let (adrp, stp, bti, nop, ldr_literal, paciasp, pacibsp) =
            (0xd000_0010, 0xa9bd_7bfd, 0xd503_245f, 0xd503_201f, 0x5800_0050, 0xd503_233f, 0xd503_237f);
        assert_eq!(arm(&[adrp]), Ok((0, Cost::Emulated)));
        assert_eq!(arm(&[bti, adrp]), Ok((4, Cost::EmulatedLater)));
        assert_eq!(arm(&[nop, adrp]), Ok((4, Cost::EmulatedLater)));
        // All four landing pads: `bti`, `bti c`, `bti j`, `bti jc`.
        for pad in [0xd503_241f, 0xd503_245f, 0xd503_249f, 0xd503_24df] {
            assert_eq!(arm(&[pad, adrp]), Ok((4, Cost::EmulatedLater)), "{pad:08x}");
            assert!(arm(&[pad, paciasp]).is_err(), "{pad:08x}");
        }
        // Signing the return address is single-stepped, and a landing pad itself: what follows it does not help, since a
        // probe behind it would find the address signed already.
        for words in [
            &[stp][..],
            &[bti, stp],
            &[bti, nop],
            &[nop, nop],
            &[ldr_literal],
            &[paciasp, adrp],
            &[pacibsp, adrp],
            &[],
        ] {
            assert!(arm(words).is_err(), "{words:08x?}");
        }
        assert!(choose(Machine::Aarch64, &[1, 2]).is_err());
    }

    /// Masks and values of arch/arm64/include/asm/insn.h for what decode-insn.c simulates: adr and adrp, b, bl,
    /// b.cond, cbz and cbnz, tbz and tbnz, br, blr, ret.
    const SIMULATED: [(u32, u32); 11] = [
        (0x1f00_0000, 0x1000_0000),
        (0xfc00_0000, 0x1400_0000),
        (0xfc00_0000, 0x9400_0000),
        (0xff00_0010, 0x5400_0000),
        (0x7f00_0000, 0x3400_0000),
        (0x7f00_0000, 0x3500_0000),
        (0x7f00_0000, 0x3600_0000),
        (0x7f00_0000, 0x3700_0000),
        (0xffff_fc1f, 0xd61f_0000),
        (0xffff_fc1f, 0xd63f_0000),
        (0xffff_fc1f, 0xd65f_0000),
    ];

    /// Every upper half of an instruction word, with lower halves that set each bit alone, none and all: what the
    /// decoder lets through is what the kernel simulates.
    #[test]
    fn the_decoder_and_the_kernel_agree_on_every_class() {
        let lows: Vec<u32> = (0..16).map(|bit| 1 << bit).chain([0, 0xffff, 0x03e0, 0x03c0, 0x7c1f]).collect();
        for high in 0..=u32::from(u16::MAX) {
            for low in &lows {
                let word = high << 16 | low;
                let simulated = SIMULATED.iter().any(|(mask, value)| word & mask == *value);
                assert!(simulated || !is_simulated(word), "{word:08x} would be single-stepped");
                let refused = simulated && !is_simulated(word);
                assert!(!refused, "{word:08x} is simulated and was refused");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_site_inside_them_or_none(code in proptest::collection::vec(any::<u8>(), 0..64)) {
            for machine in [Machine::X86_64, Machine::Aarch64] {
                let _ = jump_target(machine, &code);
                if let Ok(site) = choose(machine, &code) {
                    let distance = usize::try_from(site.distance).unwrap();
                    prop_assert!(distance < code.len().min(WINDOW));
                    prop_assert!(site.code.to_string().len() > 2 * distance, "the probed byte was seen");
                    prop_assert_eq!(distance == 0, site.cost != Cost::EmulatedLater);
                }
            }
        }
    }
}
