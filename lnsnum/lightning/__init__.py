"""Callbacks of Lightning's Trainer for modules whose weights are LNS codes.

Needs Lightning (the extra of this name). Its Trainer fits, saves and resumes codes as it is; here is what it cannot
know of them. Read `watching` for the log of a training, `averaging` for averages that are kept in floats.
"""

from lnsnum.lightning.averaging import EMAWeightAveraging, StochasticWeightAveraging, WeightAveraging
from lnsnum.lightning.watching import MonitorCallback

__all__ = ["EMAWeightAveraging", "MonitorCallback", "StochasticWeightAveraging", "WeightAveraging"]
