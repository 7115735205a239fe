"""What makes `LNSTensor` an array of NumPy's: its memory, its operands, and NumPy's functions on it.

Read `storage` first. `reading` is what others read off a tensor, `rationals` and `scalars` are plain numbers beside it,
`elementwise` is how operations run, `fitted_scales` which scales their results take; `ufuncs` are the functions element
by element, `moves` those that move numbers, `protocol` the rest; `statistics` are those that float64 computes. `cards`
is what a notebook shows, `namespace` the Python array API.
"""
