"""The bridge's work on plain arrays and tensors of codes, once for the CPU (Numba), once for graphics cards (Triton,
`*_triton`) and once in torch's operations (`*_twin`); `backends` says which runs when.

Read `update` first, Madam's step; `codes` decodes and encodes, `moments` keeps the state in bytes, `scale` places a
range.
"""
