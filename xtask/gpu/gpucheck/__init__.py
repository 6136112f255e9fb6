"""What `cargo xtask gpu` packs: small workloads on a GPU, gpuspan attached to them, and what both sides say.

In: the released `gpuspan`, a machine with a GPU and PyTorch. Out: a table, and everything behind it as JSON. Only the
standard library is imported outside the `work_*` modules, which run as processes of their own. Absent: any judgement
of speed beyond this machine; whatever cannot be learnt here is a row that says why.
"""
