"""A small reader of ELF files. In: a 64-bit little-endian shared library. Out: its functions, where they lie in the
file, the class of their first instruction, and the base at which a process loaded it. Absent: anything after a
function's first instruction; NVIDIA's libraries are not disassembled.
"""

import mmap
import struct

SHT_SYMTAB, SHT_DYNSYM = 2, 11
FUNCTION, OBJECT = 2, 1
X86_64, AARCH64 = 62, 183


class NotElf(ValueError):
    """The file is no 64-bit little-endian ELF file."""


class Elf:
    """One file, mapped for reading."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self.data[:6] != b"\x7fELF\x02\x01":
            raise NotElf(path)
        self.machine = struct.unpack_from("<H", self.data, 18)[0]
        program_at, section_at = struct.unpack_from("<QQ", self.data, 32)
        (size, count), (section_size, sections) = (
            struct.unpack_from("<HH", self.data, 54),
            struct.unpack_from("<HH", self.data, 58),
        )
        self.segments = [self.segment(program_at + i * size) for i in range(count)]
        self.sections = [self.section(section_at + i * section_size) for i in range(sections)]

    def segment(self, at):
        kind, _, offset, address, _, size = struct.unpack_from("<IIQQQQ", self.data, at)
        return kind, offset, address, size

    def section(self, at):
        _, kind, _, _, offset, size, link = struct.unpack_from("<IIQQQQI", self.data, at)
        return kind, offset, size, link

    def symbols(self, table, kind):
        """(name, address) of defined symbols of this kind."""
        for section, offset, size, link in self.sections:
            if section != table:
                continue
            strings = self.sections[link][1]
            for name, info, _, index, address, _ in struct.iter_unpack("<IBBHQQ", self.data[offset : offset + size]):
                if info & 15 == kind and index and address:
                    end = self.data.find(b"\0", strings + name)
                    yield self.data[strings + name : end].decode("utf-8", "replace"), address

    def file_offset(self, address):
        """Where in the file the byte at this address is; None outside of it."""
        for kind, offset, start, size in self.segments:
            if kind == 1 and start <= address < start + size:
                return offset + address - start
        return None

    def first_bytes(self, address, count=16):
        offset = self.file_offset(address)
        return b"" if offset is None else self.data[offset : offset + count]

    def exported_functions(self):
        return dict(self.symbols(SHT_DYNSYM, FUNCTION))

    def base(self, maps):
        """What a process added to addresses, told by its `/proc/PID/maps` lines of this file."""
        for kind, offset, address, _ in self.segments:
            for start, mapped in maps:
                if kind == 1 and mapped == offset & ~4095:
                    return start - (address & ~4095)
        return None


def tally(elf, prefix):
    """How many exported functions of this prefix begin with which class of instruction."""
    counts = {}
    for name, address in elf.exported_functions().items():
        if name.startswith(prefix):
            kind = first_instruction(elf.first_bytes(address), elf.machine)
            counts[kind] = counts.get(kind, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def first_instruction(code, machine=X86_64):
    """The class of an instruction, as far as it matters to a uprobe; `other` with its first bytes where unknown."""
    classes = AARCH64_CLASSES if machine == AARCH64 else X86_64_CLASSES
    for name, matches in classes:
        if len(code) >= 4 and matches(code):
            return name
    return "other " + code[:3].hex()


#: The kernel emulates push, nop, jmp, jcc and call (arch/x86/kernel/uprobes.c) and single-steps the rest.
X86_64_CLASSES = [
    ("endbr64", lambda c: c[:4] == b"\xf3\x0f\x1e\xfa"),
    ("push", lambda c: 0x50 <= c[0] <= 0x57 or (c[0] == 0x41 and 0x50 <= c[1] <= 0x57)),
    ("nop", lambda c: c[0] == 0x90 or c[:2] in (b"\x66\x90", b"\x0f\x1f")),
    ("jmp", lambda c: c[0] in (0xE9, 0xEB)),
    ("jcc", lambda c: 0x70 <= c[0] <= 0x7F or (c[0] == 0x0F and 0x80 <= c[1] <= 0x8F)),
    ("cmp [rip+d],imm", lambda c: c[:2] in (b"\x81\x3d", b"\x83\x3d")),
    ("sub rsp", lambda c: c[:3] in (b"\x48\x83\xec", b"\x48\x81\xec")),
    ("xor", lambda c: c[0] in (0x31, 0x33) or (0x40 <= c[0] <= 0x4F and c[1] in (0x31, 0x33))),
    ("mov", lambda c: c[0] in (0x89, 0x8B) or (0x40 <= c[0] <= 0x4F and c[1] in (0x89, 0x8B)) or 0xB8 <= c[0] <= 0xBF),
    ("lea", lambda c: 0x40 <= c[0] <= 0x4F and c[1] == 0x8D),
    ("ret", lambda c: c[0] == 0xC3),
]


def word(code):
    return struct.unpack_from("<I", code)[0]


#: arm64 simulates adr, adrp, branches, literal loads and nop (arch/arm64/kernel/probes/decode-insn.c).
AARCH64_CLASSES = [
    ("adrp", lambda c: word(c) & 0x9F000000 == 0x90000000),
    ("stp pre-indexed", lambda c: word(c) & 0xFFC00000 == 0xA9800000),
    ("bti", lambda c: word(c) & 0xFFFFFF3F == 0xD503241F),
    ("paciasp", lambda c: word(c) == 0xD503233F),
    ("nop", lambda c: word(c) == 0xD503201F),
    ("sub sp", lambda c: word(c) & 0xFFC003FF == 0xD10003FF),
    ("b", lambda c: word(c) & 0xFC000000 == 0x14000000),
]
