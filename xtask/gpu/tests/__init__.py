"""Tests of what needs no GPU, no PyTorch and no privileges."""
