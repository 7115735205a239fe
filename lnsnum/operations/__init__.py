"""What the public operations of `lnsnum.arithmetic` and `lnsnum.reduction` run: kernels on arrays of codes.

Read `operation` first, the way that every operation goes; `linear` is what is linear in the logarithms, `sums` what
needs a Gaussian logarithm, `accumulate` and `weight_only` the matrix products.
"""
