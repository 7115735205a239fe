"""Pictures of formats, of operations and of trainings: axes of matplotlib's in, the same axes out.

Nothing here imports matplotlib: whoever gives axes has it (`pip install 'lnsnum[plot]'`). `formats` draws number lines,
errors of rounding and the codes of a tensor, `operations` errors over all pairs and Gaussian logarithms, `training` the
codes over the steps of a log; `numbers` lists what a format can hold, of LNS and of floats alike.
"""

from lnsnum.plots.formats import number_line, relative_error, tensor_histogram
from lnsnum.plots.operations import error_map, gaussian_logarithm
from lnsnum.plots.training import codes_over_training

__all__ = [
    "codes_over_training",
    "error_map",
    "gaussian_logarithm",
    "number_line",
    "relative_error",
    "tensor_histogram",
]
