"""The JSON of `gpuspan check`, as far as it is read."""

import json
import unittest

from gpucheck import check

SYMBOL = {"symbol": "cuLaunchKernel", "address": "0x1000", "offset": "0x100a", "distance": 10, "cost": "emulated_later"}
TEXT = json.dumps(
    [
        {"title": "machine", "findings": [], "probe_cost_ns": {"emulated": 600}},
        {
            "title": "process",
            "findings": [],
            "libraries": [
                {
                    "path": "/x/libcuda.so.1",
                    "probed": {"emulated": 0, "emulated_later": 1, "single_stepped": 0},
                    "symbols": [SYMBOL],
                }
            ],
        },
    ]
)


class Check(unittest.TestCase):
    def test_sites_are_read(self):
        probed, offsets = check.libraries(TEXT)["/x/libcuda.so.1"]
        self.assertEqual((probed["emulated_later"], offsets), (1, {"cuLaunchKernel": 0x100A}))
        self.assertEqual(check.price(TEXT), {"emulated": 600})

    def test_another_form_is_nothing(self):
        for text in ("", "gpuspan: no such process", '[{"title": "machine", "findings": []}]'):
            self.assertEqual((check.libraries(text), check.price(text)), ({}, None))
