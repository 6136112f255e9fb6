"""Names in several spellings, counts of two sources, medians, busy time."""

import unittest

from gpucheck import compare

FILL = "at::native::FillFunctor<float>, std::array<char*, 1ul>"
KERNEL = f"void at::native::vectorized_elementwise_kernel<4, {FILL} >(int, {FILL})"


def summary(*kernels, total=0, nodes=0, unnamed=0):
    rows = [{"name": n, "symbol": s, "count": c, "graph_count": g, "evidence": e} for n, s, c, g, e in kernels]
    return {"launches": {"total": total, "graph_nodes": nodes, "unnamed": unnamed, "by_kernel": rows}}


class Names(unittest.TestCase):
    def test_spellings_of_one_kernel_are_one(self):
        plain = "at::native::vectorized_elementwise_kernel<4,at::native::FillFunctor<float>,std::array<char*,1>>"
        self.assertEqual(compare.normal(KERNEL), plain)
        self.assertEqual(compare.normal(plain), plain)
        self.assertEqual(compare.normal("void f<(int)4, (bool)1>(int*)"), compare.normal("void f<4, 1>(int*)"))
        self.assertEqual(compare.normal("void (anonymous namespace)::k(float*) [clone .cold]"), "@::k")
        self.assertEqual(compare.normal("void _GLOBAL__N__3f2a_6_Sort_cu::k(float*)"), "@::k")

    def test_names_that_are_no_signatures_stay(self):
        for name in ("sm80_xmma_gemm_f16f16_f16f32_tn_n_tilesize96x64x32", "add_one_kernel", "k"):
            self.assertEqual(compare.normal(name), name)
        self.assertEqual(compare.normal("()"), "()")
        self.assertEqual(compare.normal(""), "")

    def test_parameters_that_are_functions_are_cut_whole(self):
        self.assertEqual(compare.normal("void reduce<512>(void (*)(int), long)"), "reduce<512>")

    def test_lambdas_in_arguments_do_not_end_the_name(self):
        name = "void gpu_kernel<add(at::X&)::{lambda(float)#1}>(int)"
        self.assertEqual(compare.base(name), "gpu_kernel")

    def test_base_leaves_out_template_arguments(self):
        self.assertEqual(compare.base(KERNEL), "at::native::vectorized_elementwise_kernel")

    def test_symbols_that_no_demangler_takes_still_have_a_base_name(self):
        self.assertEqual(
            compare.base("_ZN2at6native13reduce_kernelILi512EUnvhdl0_1_0EEvT1_"), "at::native::reduce_kernel"
        )
        self.assertEqual(compare.base("_ZL4spinPf"), "spin")
        self.assertEqual(compare.base("_Z"), "_Z")
        self.assertEqual(compare.base("_ZN99x"), "x")

    def test_different_arguments_are_different_kernels(self):
        self.assertNotEqual(compare.normal("void f<4>(int)"), compare.normal("void f<8>(int)"))


class Matching(unittest.TestCase):
    def test_equal_names_and_counts_agree(self):
        found = compare.match({"void f<4>(int)": 7, "g": 2}, {"f<4>": 7, "g": 2})
        self.assertEqual(found, {"by_name": 9, "by_base_name": 0, "only_gpuspan": {}, "only_other": {}})

    def test_what_differs_only_in_arguments_agrees_by_base_name(self):
        found = compare.match({"f<lambda1>": 3, "f<lambda2>": 4}, {"f<x>": 7})
        self.assertEqual((found["by_name"], found["by_base_name"], found["only_gpuspan"]), (0, 7, {}))

    def test_a_wrong_count_is_no_agreement(self):
        found = compare.match({"f": 3, "0x7f00": 2}, {"f": 4, "gemm": 2})
        self.assertEqual(found["by_name"] + found["by_base_name"], 0)
        self.assertEqual(found["only_gpuspan"], {"f": 3, "0x7f00": 2})
        self.assertEqual(found["only_other"], {"f": 4, "gemm": 2})


class Summaries(unittest.TestCase):
    def test_runs_are_launches_and_nodes_by_symbol(self):
        given = summary(
            ("f", "_Z1fv", 3, 2, "symbol"), ("0x1", None, 1, 0, "opaque_handle"), total=4, nodes=2, unnamed=1
        )
        self.assertEqual(compare.kernels(given, {"_Z1fv": "f()"}.get), {"f()": 5, "0x1": 1})
        self.assertEqual(compare.kernels(given), {"f": 5, "0x1": 1})
        self.assertEqual(compare.runs(given), 6)
        self.assertEqual(compare.evidence(given), {"symbol": 5, "opaque_handle": 1})
        self.assertAlmostEqual(compare.named_share(given), 5 / 6)

    def test_no_launch_has_no_share(self):
        self.assertIsNone(compare.named_share(summary()))

    def test_driver_calls_below_a_runtime_call(self):
        found = compare.nesting("cudaMemcpy", 10, {"cudaMemcpy": 10, "cuMemcpyHtoD_v2": 10, "cuStreamSynchronize": 5})
        self.assertEqual(found["seen"], 10)
        self.assertEqual(found["text"], "cuMemcpyHtoD_v2 10 (1 each), cuStreamSynchronize 5 (0.5 each)")
        self.assertEqual(compare.nesting("cudaMemset", 3, {})["text"], "no probed driver call")


class Figures(unittest.TestCase):
    def test_medians_are_of_pairs(self):
        self.assertEqual(compare.median([3, 1, 2]), 2)
        self.assertIsNone(compare.median([]))
        self.assertEqual(compare.ratio([100, 200, 50], [90, 100, 50]), (0.9, 0.5, 1.0))
        self.assertIsNone(compare.ratio([], []))

    def test_busy_time_is_a_union(self):
        self.assertEqual(compare.busy_ns([(0, 10), (5, 10), (20, 5), (21, 1)]), 20)
        self.assertEqual(compare.busy_ns([]), 0)

    def test_bounds_hold_what_lies_between(self):
        self.assertTrue(compare.within(1, 2, 3))
        self.assertFalse(compare.within(1, 4, 3))
