"""What makes `LNSTensor` an array of NumPy's: its memory, its operands, and NumPy's functions on it.

Read `storage` first; `ufuncs` are the functions element by element, `moves` those that move numbers, `protocol` the
rest.
"""
