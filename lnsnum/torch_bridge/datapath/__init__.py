"""A network computed in LNS all the way: activations, errors, gradients and accumulators, forward and backward.

Read `settings` first, what a datapath computes with; `context` is the with block, `graph` tells what a tensor is,
`products`, `convolutions` and `embeddings` make the products, `elementwise` what is none, `report` says what happened,
and `setting` makes a model have it. docs/datapath.md is the text.
"""

from lnsnum.torch_bridge.datapath.context import Datapath, datapath
from lnsnum.torch_bridge.datapath.report import Report
from lnsnum.torch_bridge.datapath.setting import datapath_of, use_datapath
from lnsnum.torch_bridge.datapath.settings import Accumulator, FixedPoint, Numbers

__all__ = ["Accumulator", "Datapath", "FixedPoint", "Numbers", "Report", "datapath", "datapath_of", "use_datapath"]
