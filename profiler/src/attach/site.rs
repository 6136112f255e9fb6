//! Where in a function a probe costs least: machine code → [`Site`].
//!
//! A uprobe costs what the instruction under it costs. The kernel emulates some instructions and single-steps the
//! rest out of line, which is 3 times dearer on bare metal and 14 times in a nested VM. On aarch64 the single-step
//! path has resumed GPU processes at the wrong place, so there such a site is refused. Pure: bytes in, choice out.

/// The place chosen in a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// The kernel emulates the instruction at this distance from the function's start.
    Cheap(u64),
    /// The kernel single-steps the first instruction; the probe works but is dear.
    Expensive(&'static str),
    /// No probe may stand here.
    Refused(&'static str),
}

/// Bytes of machine code that [`x86_64`] and [`aarch64`] want to see.
pub const WINDOW: usize = 32;

/// The choice for the machine this program was built for.
#[must_use]
pub fn choose(code: &[u8]) -> Site {
    if cfg!(target_arch = "aarch64") { aarch64(code) } else { x86_64(code) }
}

/// x86-64: the first instruction when emulated, else a later one that is known to be safe.
///
/// `endbr64` changes nothing, so the instruction after it serves. NVIDIA's driver opens its functions with
/// `cmp dword [rip+x], imm32` and a conditional jump (seen in 535 and 550, every export): the comparison sets flags
/// and leaves stack and argument registers alone, so a probe on the jump sees what entry would.
#[must_use]
pub fn x86_64(code: &[u8]) -> Site {
    use iced_x86::{Code, Decoder, DecoderOptions, Register};
    let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    let first = decoder.decode();
    if is_emulated(&first) {
        return Site::Cheap(0);
    }
    let second_offset = decoder.ip();
    let second = decoder.decode();
    match first.code() {
        Code::INVALID => Site::Refused("the bytes are no instruction"),
        Code::Endbr64 if is_emulated(&second) => Site::Cheap(second_offset),
        Code::Endbr64 => Site::Expensive("single-stepped: nothing cheap follows endbr64"),
        Code::Cmp_rm32_imm32 if first.memory_base() == Register::RIP && second.is_jcc_short_or_near() => {
            Site::Cheap(second_offset)
        }
        _ => Site::Expensive("single-stepped: the kernel does not emulate the first instruction"),
    }
}

/// What arch/x86/kernel/uprobes.c emulates: `push reg`, `nop`, relative jumps and calls (6.18; push since 5.0).
fn is_emulated(instruction: &iced_x86::Instruction) -> bool {
    use iced_x86::{Mnemonic, OpKind};
    match instruction.mnemonic() {
        Mnemonic::Nop => true,
        Mnemonic::Push => instruction.op0_kind() == OpKind::Register && instruction.op0_register().is_gpr64(),
        _ => {
            instruction.is_jcc_short_or_near()
                || instruction.is_jmp_short_or_near()
                || instruction.is_call_near()
        }
    }
}

/// aarch64: only what arch/arm64/kernel/probes/decode-insn.c simulates; never a single step.
#[must_use]
pub fn aarch64(code: &[u8]) -> Site {
    let word = |index: usize| {
        let bytes = code.get(index * 4..index * 4 + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let Some(first) = word(0) else { return Site::Refused("the bytes are no instruction") };
    if is_simulated(first) {
        return Site::Cheap(0);
    }
    const BTI_MASK: u32 = 0xffff_ff3f;
    const BTI: u32 = 0xd503_241f;
    if first & BTI_MASK == BTI && word(1).is_some_and(is_simulated) {
        return Site::Cheap(4);
    }
    Site::Refused("the kernel would single-step here, which is unsafe on aarch64")
}

/// Arm ARM encodings: adr/adrp, b/bl, b.cond, cbz/cbnz, tbz/tbnz, ldr literal, nop.
fn is_simulated(word: u32) -> bool {
    const NOP: u32 = 0xd503_201f;
    word == NOP
        || word & 0x1f00_0000 == 0x1000_0000
        || word & 0x7c00_0000 == 0x1400_0000
        || word & 0xff00_0010 == 0x5400_0000
        || word & 0x7e00_0000 == 0x3400_0000
        || word & 0x7e00_0000 == 0x3600_0000
        || word & 0xbf00_0000 == 0x1800_0000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x86_64_sites() {
        let cmp_je = [0x81, 0x3d, 1, 2, 3, 4, 5, 6, 7, 8, 0x74, 0x10];
        let cmp_jne_near = [0x81, 0x3d, 1, 2, 3, 4, 5, 6, 7, 8, 0x0f, 0x85, 0, 1, 0, 0];
        let cmp_mov = [0x81, 0x3d, 1, 2, 3, 4, 5, 6, 7, 8, 0x48, 0x89, 0xe5];
        for (code, site) in [
            (&[0x55][..], Site::Cheap(0)),
            (&[0x41, 0x57], Site::Cheap(0)),
            (&[0x90], Site::Cheap(0)),
            (&[0x0f, 0x1f, 0x44, 0, 0], Site::Cheap(0)),
            (&[0xeb, 0x02], Site::Cheap(0)),
            (&[0xf3, 0x0f, 0x1e, 0xfa, 0x55], Site::Cheap(4)),
            (&cmp_je, Site::Cheap(10)),
            (&cmp_jne_near, Site::Cheap(10)),
        ] {
            assert_eq!(x86_64(code), site, "{code:02x?}");
        }
        for code in
            [&[0x48, 0x83, 0xec, 0x28][..], &[0x31, 0xc0, 0xc3], &[0xf3, 0x0f, 0x1e, 0xfa, 0xc3], &cmp_mov]
        {
            assert!(matches!(x86_64(code), Site::Expensive(_)), "{code:02x?}");
        }
        assert!(matches!(x86_64(&[]), Site::Refused(_)));
        assert!(matches!(x86_64(&[0x06]), Site::Refused(_)));
        assert!(matches!(x86_64(&[0x66, 0x50]), Site::Expensive(_)), "a 16-bit push is not emulated");
    }

    #[test]
    fn aarch64_never_lands_on_a_single_step() {
        let adrp = 0xd000_0010_u32.to_le_bytes();
        let stp = 0xa9bd_7bfd_u32.to_le_bytes();
        let bti_then_adrp = [0xd503_245f_u32.to_le_bytes(), adrp].concat();
        assert_eq!(aarch64(&adrp), Site::Cheap(0));
        assert_eq!(aarch64(&bti_then_adrp), Site::Cheap(4));
        assert!(matches!(aarch64(&stp), Site::Refused(_)));
        assert!(matches!(aarch64(&[1, 2]), Site::Refused(_)));
    }
}
