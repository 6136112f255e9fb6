"""A Chrome trace as torch.profiler writes it."""

import unittest

from gpucheck.trace import digest


def event(category, name, start=0.0, duration=1.0, phase="X"):
    return {"ph": phase, "cat": category, "name": name, "ts": start, "dur": duration}


class Digest(unittest.TestCase):
    def test_counts_and_times_by_category(self):
        found = digest(
            {
                "traceEvents": [
                    event("kernel", "f", 10.0, 2.5),
                    event("kernel", "f", 11.0, 2.5),
                    event("gpu_memcpy", "Memcpy HtoD (Pageable -> Device)", 100.0, 1.0),
                    event("gpu_memset", "Memset (Device)", 200.0, 0.5),
                    event("cuda_runtime", "cudaLaunchKernel"),
                    event("cuda_driver", "cuLaunchKernelEx"),
                    event("cpu_op", "aten::add"),
                    {"ph": "s", "cat": "ac2g", "name": "ac2g", "ts": 1.0},
                ]
            }
        )
        self.assertEqual(found["kernels"], {"f": 2})
        self.assertEqual((found["copies"], found["sets"]), ({"HtoD": 1}, 1))
        self.assertEqual((found["runtime"], found["driver"]), ({"cudaLaunchKernel": 1}, {"cuLaunchKernelEx": 1}))
        self.assertEqual((found["busy_ns"], found["sum_ns"]), (5000, 6500))

    def test_a_wait_knows_how_long_the_device_was_idle_in_it(self):
        found = digest(
            {
                "traceEvents": [
                    event("kernel", "f", 10.0, 5.0),
                    event("kernel", "g", 12.0, 6.0),
                    event("kernel", "h", 30.0, 10.0),
                    event("cuda_runtime", "cudaStreamSynchronize", 14.0, 6.0),
                    event("cuda_runtime", "cudaStreamSynchronize", 25.0, 30.0),
                    event("cuda_runtime", "cudaLaunchKernel", 50.0, 5.0),
                    event("cuda_runtime", "cudaDeviceSynchronize", 90.0, 1.0),
                ]
            }
        )
        self.assertEqual(found["waits"], [(6000, 2000), (30000, 20000), (1000, 1000)])

    def test_a_trace_without_a_device_is_empty(self):
        self.assertEqual(digest({})["busy_ns"], 0)
        self.assertEqual(digest({"traceEvents": [event("cpu_op", "aten::add")]})["kernels"], {})
