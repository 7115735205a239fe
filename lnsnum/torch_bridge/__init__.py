"""The PyTorch bridge: weights that are stored as LNS codes and trained there.

Needs torch (the extra `torch`); the rest of lnsnum does not. Read `weight` first, the tensor; `model` converts, `madam`
steps, `checkpoint` saves, `graphs` exports, `distributed` is for several processes, and `kernels` does the work.
"""

from lnsnum.torch_bridge.checkpoint import load_model, save_model
from lnsnum.torch_bridge.distributed.gradient_codes import ship_gradients_as_codes
from lnsnum.torch_bridge.distributed.parallel_files import save_model_together
from lnsnum.torch_bridge.distributed.replicas import compare_replicas
from lnsnum.torch_bridge.distributed.scales import log_offsets, set_log_offsets
from lnsnum.torch_bridge.graphs import for_export
from lnsnum.torch_bridge.madam import Madam, parameter_groups
from lnsnum.torch_bridge.model import convert_model, decode_model
from lnsnum.torch_bridge.monitor import Monitor
from lnsnum.torch_bridge.reports import ConversionReport, ParameterReport
from lnsnum.torch_bridge.step_reports import ShardReport, StepReport
from lnsnum.torch_bridge.weight import LNSWeight, Telemetry
from lnsnum.torch_bridge.weight_only import WeightOnlyReport, use_weight_only, weight_only_linear

__all__ = [
    "ConversionReport",
    "LNSWeight",
    "Madam",
    "Monitor",
    "ParameterReport",
    "ShardReport",
    "StepReport",
    "Telemetry",
    "WeightOnlyReport",
    "compare_replicas",
    "convert_model",
    "decode_model",
    "for_export",
    "load_model",
    "log_offsets",
    "parameter_groups",
    "save_model",
    "save_model_together",
    "set_log_offsets",
    "ship_gradients_as_codes",
    "use_weight_only",
    "weight_only_linear",
]
