"""A Triton kernel in a file of its own, since Triton reads its source. In: a float tensor. Out: one more in each."""

import triton
import triton.language as tl


@triton.jit
def add_one_kernel(pointer, length, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < length
    tl.store(pointer + at, tl.load(pointer + at, mask=inside) + 1, mask=inside)


def add_one(tensor):
    length = tensor.numel()
    add_one_kernel[(triton.cdiv(length, 256),)](tensor, length, BLOCK=256)
