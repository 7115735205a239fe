"""What the public operations of `lnsnum.arithmetic` and `lnsnum.reduction` run: kernels on arrays of codes.

Read `operation` first, the way that every operation goes; `linear` is what is linear in the logarithms, `sums` what
needs a Gaussian logarithm, `choosing` what computes nothing. `reducing` is what reductions share, `float_sums`,
`accumulate` and `weight_only` are their sums and matrix products.
"""
