"""What is asked of transformers: `quantization_config=LNSConfig(...)`, and what config.json has of it."""

from __future__ import annotations

from typing import Any

from transformers.quantizers import register_quantization_config
from transformers.utils.quantization_config import QuantizationConfigMixin

from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import check_format
from lnsnum.kernels.groups import check_group_size
from lnsnum.torch_bridge.kernels.codes_twin import check_width
from lnsnum.torch_bridge.kernels.scale import RMS, Fit

METHOD = "lns"
"""By which config.json and transformers name this."""


@register_quantization_config(METHOD)
class LNSConfig(QuantizationConfigMixin):
    """Every float parameter becomes codes of a format, but for those of modules that are left out.

    Args:
        format: a format of at most 16 bits, or its name.
        per_channel: a log_offset for each index of the first dimension, of parameters with two or more.
        group_size: one for each group of so many elements along the last dimension, 16 to 256, where it has more of
            them; the last group has what is left.
        scale: the rule of the scale, "rms", "max" or "mse", as `convert_model` has it.
        p_scale: the headroom of the rule "rms".
        modules_to_not_convert: modules that stay as they are, by their names, ends of these, or regular expressions
            that match from the start up to a dot, as transformers reads them: ["lm_head", "model.layers.0"]. A
            parameter that is tied to one of theirs stays, too.

    Raises:
        ValueError: for a format, a group size or a rule that is none, or arguments that are unknown.

    >>> LNSConfig("lns8f5", modules_to_not_convert=["lm_head"]).to_dict()
    {'quant_method': 'lns', 'format': 'lns8f5', 'per_channel': False, 'group_size': None, 'scale': 'rms',
     'p_scale': 3.0, 'modules_to_not_convert': ['lm_head']}
    """

    def __init__(
        self,
        format: LNSFormat | str = "lns8f5",
        *,
        per_channel: bool = False,
        group_size: int | None = None,
        scale: str = "rms",
        p_scale: float = 3.0,
        modules_to_not_convert: list[str] | None = None,
        quant_method: str = METHOD,
        **unknown: Any,
    ) -> None:
        if unknown or quant_method != METHOD:
            names = ", ".join(sorted(unknown)) or f"quant_method={quant_method!r}"
            raise ValueError(
                f"LNSConfig does not know {names}: it takes format, per_channel, group_size, scale, p_scale and "
                "modules_to_not_convert (a later version of lnsnum may have written this config.json)"
            )
        fmt = LNSFormat.of(format)
        check_format(fmt)
        check_width(fmt)
        if not isinstance(per_channel, bool):
            raise TypeError(f"per_channel={per_channel!r} is no bool")
        if isinstance(modules_to_not_convert, str):
            raise TypeError(f"modules_to_not_convert={modules_to_not_convert!r} is one name: give a list of them")
        self.quant_method = METHOD
        self.format = fmt.name
        self.per_channel = per_channel
        self.group_size = None if group_size is None else check_group_size(group_size)
        if isinstance(p_scale, bool) or not isinstance(p_scale, (int, float)):
            raise TypeError(f"p_scale={p_scale!r} is no number: give the headroom of scale='rms'")
        fit = Fit.checked((scale, float(p_scale)))
        if fit.rule != "rms" and fit.p_scale != RMS.p_scale:
            raise ValueError(f"p_scale={p_scale!r} is the headroom of scale='rms': leave it out")
        self.scale, self.p_scale = fit
        self.modules_to_not_convert = None if modules_to_not_convert is None else list(modules_to_not_convert)

    @property
    def options(self) -> dict[str, Any]:
        """What `convert_model` is to be told beside the format."""
        return {name: getattr(self, name) for name in ("per_channel", "group_size", "scale", "p_scale")}

    @property
    def fmt(self) -> LNSFormat:
        """The format."""
        return LNSFormat.parse(self.format)
