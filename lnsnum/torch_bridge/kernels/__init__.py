"""The bridge's work on plain arrays and tensors of codes, once for the CPU (Numba) and once in torch's operations
(`*_twin`).

Read `update` first, Madam's step; `codes` decodes and encodes, `moments` keeps the state in bytes, `scale` places a
range.
"""
