"""What transformers calls: float checkpoints become codes tensor by tensor while they are loaded, codes are read again.

    float file    X               -> one tensor, in memory as floats  ->  codes        `LNSQuantize`
    file of ours  X.lnsnum_codes, .lnsnum_offsets, .lnsnum_format     ->  codes        `LNSDeserialize`

Files of ours have the names of the model's own state, and none of those that transformers translates when it loads and
saves (experts that are stacked, parts that are renamed): so `load_state_dict` takes the same file.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.core_model_loading import ConversionOps, WeightConverter, build_glob_alternation
from transformers.quantizers import HfQuantizer, register_quantizer
from transformers.quantizers.quantizers_utils import get_module_from_name, should_convert_module

from lnsnum.huggingface.config import METHOD, LNSConfig
from lnsnum.huggingface.pages import give_back
from lnsnum.huggingface.parts import PARTS, flat_state, put_together
from lnsnum.huggingface.resuming import guard_loading, stop_guarding
from lnsnum.torch_bridge.kernels.codes_twin import FLOAT_NAMES
from lnsnum.torch_bridge.model import convert_model, decode_model
from lnsnum.torch_bridge.placing import settle
from lnsnum.torch_bridge.reports import ConversionReport, ParameterReport
from lnsnum.torch_bridge.showing import OwnMethod
from lnsnum.torch_bridge.weight import LNSWeight


@register_quantizer(METHOD)
class LNSQuantizer(HfQuantizer):
    """Models whose parameters are `LNSWeight`, as transformers loads, saves and trains them.

    It is made by `from_pretrained`, or by `quantize_model`, and is the model's `hf_quantizer`.
    """

    requires_calibration = False
    quantization_config: LNSConfig

    def __init__(self, quantization_config: LNSConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self.of_other_shape: set[str] = set()
        """Parameters of the file with shapes that are not the model's, which transformers reports, or makes anew."""
        self.reports: dict[str, ParameterReport] = {}
        """What conversion did to each parameter of a float file."""
        self.files: list[str] = []
        """Those that are loaded."""

    # ----------------------------------------------------------------------------------------------- what is converted

    def param_needs_quantization(self, model: PreTrainedModel, param_name: str, **kwargs: Any) -> bool:
        """Whether a parameter is to become codes."""
        module, own_name = get_module_from_name(model, param_name)
        parameter = module._parameters.get(own_name)
        if parameter is None or parameter.dtype not in FLOAT_NAMES or param_name in self.of_other_shape:
            return False
        left_out = self.quantization_config.modules_to_not_convert or []
        return not any(_is_of(name, left_out) for name in _tied_to(model, param_name))

    @property
    def quantized_element_size(self) -> float:
        """Bytes of a code."""
        return float(self.quantization_config.fmt.dtype.itemsize)

    def quantize_rest(self, model: PreTrainedModel) -> ConversionReport | None:
        """Convert the float parameters that are to become codes; None where there are none."""
        asked = self.quantization_config

        def is_asked(name: str, parameter: nn.Parameter) -> bool:
            return not isinstance(parameter, LNSWeight) and self.param_needs_quantization(model, name)

        if not any(is_asked(name, p) for name, p in model.named_parameters()):
            return None
        report = convert_model(model, asked.fmt, filter_fn=is_asked, **asked.options)
        self.reports |= {parameter.name: parameter for parameter in report}
        return report

    def report(self, model: PreTrainedModel) -> ConversionReport:
        """What conversion did to the parameters of a float file, in the model's order; print it."""
        named = dict(model.named_parameters())
        left = tuple(name for name, p in named.items() if not isinstance(p, LNSWeight))
        return ConversionReport(tuple(self.reports[name] for name in named if name in self.reports), left)

    # ------------------------------------------------------------------------------------------------------ the loader

    def validate_environment(self, *args: Any, device_map: Any = None, **kwargs: Any) -> None:
        """Refuse what would take codes for floats."""
        if isinstance(device_map, dict) and "disk" in map(str, device_map.values()):
            raise ValueError(
                "device_map puts modules on the disk, where transformers keeps floats: codes need a quarter of the "
                "memory, give it devices that have it"
            )

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, checkpoint_files: list[str] | None = None, **kwargs: Any
    ) -> PreTrainedModel:
        self.files = checkpoint_files or []
        if not self.pre_quantized:
            _check_floats(self.files)
        _check_left_out(model, self.quantization_config)
        return model

    def get_quantize_ops(self) -> ConversionOps:
        """What makes codes of the tensors of a float file."""
        return LNSQuantize(self)

    def update_weight_conversions(self, weight_conversions: list[Any], model: PreTrainedModel) -> list[Any]:
        """Those of the model for a float file; of a file of ours, whose names are the model's own, the parts alone."""
        if not self.pre_quantized:
            return weight_conversions
        ends = [part.replace(".", r"\.") + "$" for part in PARTS]
        return [WeightConverter(ends, "", [LNSDeserialize(self)])]

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> PreTrainedModel:
        if not self.pre_quantized:  # what the file lacked has been made anew, as floats
            self.quantize_rest(model)
        for module in model.modules():  # the loader has put the weights there
            if any(isinstance(p, LNSWeight) for p in module._parameters.values()):
                settle(module)
        model._weight_conversions = []  # saved under the names that the model has
        guard_loading(model)
        vars(model)["get_memory_footprint"] = OwnMethod(model, memory_footprint)
        return model

    def dequantize(self, model: PreTrainedModel, dtype: torch.dtype | None = None) -> PreTrainedModel:
        """The model with float parameters, in place: each as what it appeared as, or all of them of a dtype."""
        if dtype is not None:
            model.to(dtype)  # before codes are decoded: no float is rounded to what they appeared as
        decode_model(model)
        stop_guarding(model)
        vars(model).pop("get_memory_footprint", None)
        self.remove_quantization_config(model)
        return model

    # -------------------------------------------------------------------------------------------- saving, and training

    def get_state_dict_and_metadata(self, model: PreTrainedModel) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """What `save_pretrained` writes."""
        return flat_state(model), {}

    def is_serializable(self) -> bool:
        """Codes can be saved."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Beside adapters."""
        return True

    @property
    def is_qat_trainable(self) -> bool:
        """The codes themselves: Trainer asks for it by this name."""
        return True

    @property
    def is_compileable(self) -> bool:
        """By torch.compile."""
        return True


def quantize_model(model: PreTrainedModel, config: LNSConfig | None = None) -> ConversionReport:
    """Convert a model that is there, in place, so that `save_pretrained` and Trainer take it: one made from its config.

    `from_pretrained(..., quantization_config=...)` does the same while it loads, one tensor at a time.

    Args:
        model: of transformers, with float parameters.
        config: what is asked; `LNSConfig()` by default.

    Returns:
        A report of each parameter; print it.

    Raises:
        TypeError: where the model is none of transformers.
        ValueError: where it is quantized already, or nothing is to be converted.
    """
    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"the model is a {type(model).__name__}, and none of transformers: take lnsnum.torch_bridge.convert_model"
        )
    if getattr(model, "hf_quantizer", None) is not None:
        raise ValueError(f"the model is quantized already, by {model.hf_quantizer.quantization_config.quant_method!r}")
    config = copy.deepcopy(config or LNSConfig())
    quantizer = LNSQuantizer(config, pre_quantized=False)
    _check_left_out(model, config)
    report = quantizer.quantize_rest(model)
    if report is None:
        raise ValueError("modules_to_not_convert leaves nothing to convert")
    model.hf_quantizer = quantizer
    model.is_quantized, model.quantization_method = True, config.quant_method
    quantizer.postprocess_model(model)
    return report


def memory_footprint(model: PreTrainedModel, return_buffers: bool = True) -> int:
    """Bytes of a model, as its `get_memory_footprint` tells them: with the scales of channels and groups, which
    transformers' own would leave out.
    """
    kept = [*model.parameters(), *(model.buffers() if return_buffers else ())]
    return sum(tensor.nbytes for tensor in kept)


class _Operation(ConversionOps):
    """A step of transformers' loader. It copies them for each parameter; the quantizer stays one."""

    def __init__(self, quantizer: LNSQuantizer) -> None:
        self.hf_quantizer = quantizer

    def __deepcopy__(self, memo: dict[int, Any]) -> _Operation:
        return self

    def as_parameter(self, model: PreTrainedModel, name: str, weight: torch.Tensor) -> torch.Tensor:
        """What is to be set: a parameter, if its shape is the model's; others are for transformers to report."""
        own = model.get_parameter_or_buffer(name)
        if own.shape != weight.shape:
            self.hf_quantizer.of_other_shape.add(name)
        return nn.Parameter(weight, requires_grad=own.requires_grad)


class LNSQuantize(_Operation):
    """Floats that have just been read become codes, as `convert_model` makes them."""

    @torch.no_grad()
    def convert(
        self, input_dict: dict[str, Any], *args: Any, model: PreTrainedModel, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """Take tensors by their full names."""
        done: dict[str, torch.Tensor] = {}
        asked = self.hf_quantizer.quantization_config
        for name, value in input_dict.items():
            floats = value[0] if isinstance(value, list) else value
            if not self.hf_quantizer.param_needs_quantization(model, name):
                done[name] = floats
                continue
            alone = _Alone(floats)
            if model.get_parameter_or_buffer(name).shape == floats.shape:
                try:
                    (report,) = convert_model(alone, asked.fmt, **asked.options)
                except (TypeError, ValueError) as error:
                    raise type(error)(str(error).replace("'weight'", repr(name), 1)) from None
                self.hf_quantizer.reports[name] = replace(report, name=name)
                give_back(floats, self.hf_quantizer.files)
            done[name] = self.as_parameter(model, name, alone.weight.detach())
        return done


class LNSDeserialize(_Operation):
    """The parts of a weight, which the loader has collected, become one."""

    @torch.no_grad()
    def convert(
        self, input_dict: dict[str, Any], *args: Any, model: PreTrainedModel, full_layer_name: str, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """Take the parts by the patterns of their ends."""
        parts = {
            pattern.replace("\\", "").removesuffix("$"): value[0] if isinstance(value, list) else value
            for pattern, value in input_dict.items()
        }
        weight = put_together(full_layer_name, parts, _dtype_of(model, full_layer_name))
        return {full_layer_name: self.as_parameter(model, full_layer_name, weight)}


class _Alone(nn.Module):
    """One parameter, for `convert_model`."""

    def __init__(self, floats: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(floats)


def _dtype_of(model: PreTrainedModel, name: str) -> torch.dtype:
    """What transformers would load a parameter as: some models keep parts in float32."""
    dtype: torch.dtype = model.get_parameter_or_buffer(name).dtype
    plan = model._get_dtype_plan(dtype)
    if not plan:
        return dtype
    any_of_them, groups, _ = build_glob_alternation(list(plan))
    match = any_of_them.search(name)
    return dtype if match is None else plan[groups[match.lastgroup]]


def _is_of(name: str, modules: list[str]) -> bool:
    """Whether a parameter is of a module that is named, or is named itself."""
    return not (should_convert_module(name, modules) and should_convert_module(name.rpartition(".")[0], modules))


def _tied_to(model: PreTrainedModel, name: str) -> set[str]:
    """The names that a parameter has: tied ones are one, and are converted or left as one."""
    ties: dict[str, str] = getattr(model, "all_tied_weights_keys", {})
    first = ties.get(name, name)
    return {name, first, *(other for other, source in ties.items() if source == first)}


def _check_floats(files: list[str]) -> None:
    """Refuse codes whose config.json does not tell of them: every weight would be made anew."""
    for path in files:
        if path.endswith(".safetensors"):
            with safe_open(path, framework="pt") as file:
                codes = next((name for name in file.keys() if name.endswith(PARTS)), None)  # noqa: SIM118  (no mapping)
            if codes is not None:
                raise ValueError(
                    f"{path} has codes already, {codes!r}, of which its config.json does not tell: take the "
                    "config.json that save_pretrained wrote beside it, and no quantization_config"
                )


def _check_left_out(model: PreTrainedModel, config: LNSConfig) -> None:
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    for pattern in config.modules_to_not_convert or []:
        if not any(_is_of(name, [pattern]) for name in names):
            raise ValueError(
                f"modules_to_not_convert: {pattern!r} is no module of {type(model).__name__}; its first parameter is "
                f"{names[0]!r}"
            )
