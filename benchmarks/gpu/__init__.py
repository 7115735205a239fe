"""What Triton's kernels do on a graphics card: `python -m benchmarks.gpu`, about five minutes.

`clock` times, `kernels` are decode, encode and the step against a copy, `products` the weight-only product, `networks`
training and generation.
"""
