"""How a position on the logarithmic axis becomes a code, fast and exact: what every operation of the core stands on.

Read `rounding` first; `elementary` says where a float lies, `vector_encoding` and `scalar_encoding` make its code,
`decide` settles what floats leave open, `codes` guards the doors, `compiling` and `threads` say how all of it runs.
"""
