"""First instructions by class, and a real library."""

import ctypes
import os
import struct
import tempfile
import unittest

from gpucheck.cuda import mapped
from gpucheck.elf import AARCH64, Elf, NotElf, first_instruction, tally


class Instructions(unittest.TestCase):
    def test_what_the_kernel_emulates_and_what_not(self):
        for code, kind in [
            ("f30f1efa", "endbr64"),
            ("55488be5", "push"),
            ("41574156", "push"),
            ("0f1f4000", "nop"),
            ("e9000000", "jmp"),
            ("0f840000", "jcc"),
            ("813d0000", "cmp [rip+d],imm"),
            ("4883ec18", "sub rsp"),
            ("488b07c3", "mov"),
            ("488d0500", "lea"),
            ("31c0c390", "xor"),
            ("c3909090", "ret"),
            ("d9eeddd8", "other d9eedd"),
            ("", "other "),
        ]:
            self.assertEqual(first_instruction(bytes.fromhex(code)), kind, code)

    def test_aarch64_words(self):
        for word, kind in [
            (0x90000010, "adrp"),
            (0xA9BF7BFD, "stp pre-indexed"),
            (0xD503245F, "bti"),
            (0xD503233F, "paciasp"),
            (0xD10083FF, "sub sp"),
        ]:
            self.assertEqual(first_instruction(struct.pack("<I", word), AARCH64), kind, hex(word))


class Files(unittest.TestCase):
    def test_the_c_library_is_read_as_the_loader_reads_it(self):
        paths = mapped(r"^libc\.so\.6|^libc-2")
        if not paths:
            self.skipTest("another C library")
        path, maps = next(iter(paths.items()))
        elf = Elf(path)
        address = elf.exported_functions()["abs"]
        loaded = ctypes.cast(ctypes.CDLL(None).abs, ctypes.c_void_p).value
        self.assertEqual(elf.base(maps) + address, loaded)
        self.assertEqual(elf.first_bytes(address, 8), ctypes.string_at(loaded, 8))
        self.assertGreater(sum(tally(elf, "str").values()), 10)

    def test_what_is_no_library_is_refused(self):
        with tempfile.NamedTemporaryFile(delete=False) as file:
            file.write(b"#!/bin/sh\n" * 10)
        with self.assertRaises(NotElf):
            Elf(file.name)
        os.unlink(file.name)
