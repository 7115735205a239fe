"""Models of Hugging Face's transformers whose weights are LNS codes: loaded, trained, saved, resumed.

Needs transformers (the extra of this name). Importing it registers the method "lns" there, so that its loader knows it.
Read `quantizer` first, what transformers calls; `config` says what is asked for, `parts` what of a weight is stored and
under which names, `resuming` refuses checkpoints that are not whole.
"""

from lnsnum.huggingface.adapters import merge_adapters
from lnsnum.huggingface.config import LNSConfig
from lnsnum.huggingface.quantizer import LNSQuantizer, quantize_model
from lnsnum.huggingface.watching import MonitorCallback

__all__ = ["LNSConfig", "LNSQuantizer", "MonitorCallback", "merge_adapters", "quantize_model"]
