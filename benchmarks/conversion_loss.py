"""What a trained network loses when its matrices become 8, 6, 5 or 4 bits: scales, error feedback, torchao's integers.

    loss after conversion  -  loss of the float network,      mean cross-entropy on the test part

Three networks of the study are trained in float32 by Adam at 0.003, with the study's steps. Then all that is multiplied
(linear layers, attention, convolutions) is converted; embeddings, biases and normalizations stay float. A convolution
is the matrix (outputs, inputs * kernel), as a product with patches, so that its rows have groups too. Calibration sees
512 examples of the training part. torchao's rows are its `IntxWeightOnlyConfig` on the same matrices, with groups of
the same 32. It must be there (`pip install torchao`), but for `--report`.

    python benchmarks/conversion_loss.py --data cifar10=PATH --out docs/results/conversion_loss.jsonl
    python benchmarks/conversion_loss.py --report docs/results/conversion_loss.jsonl

A run that was stopped goes on with what is missing.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from lnsnum.study.problems import PROBLEMS
from lnsnum.study.text_table import Cell, TextTable, word
from lnsnum.tasks import training
from lnsnum.tasks.classification import TEST_BATCH, Classification, as_floats
from lnsnum.tasks.recipe import Recipe
from lnsnum.tasks.task import Task
from lnsnum.torch_bridge import convert_model, decode_model

NETWORKS = {"digits": (0, 1, 2), "characters": (0, 1, 2), "cifar10-cnn": (0,)}
"""Problems of the study, and the seeds that each has."""

FORMATS = {8: "lns8f4", 6: "lns6f3", 5: "lns5f2", 4: "lns4f1"}
"""By bits, those that lose least of normal numbers."""

GROUP = 32
_CHANNEL: dict[str, Any] = {"per_channel": True}
_GROUP: dict[str, Any] = {"per_channel": True, "group_size": GROUP}
_VALUE: dict[str, Any] = {"rounding": "nearest_value"}

LNS: dict[str, dict[str, Any]] = {
    "LNS tensor, as for training": {},
    "LNS tensor, mse": {"scale": "mse", **_VALUE},
    "LNS channel, mse": {**_CHANNEL, "scale": "mse", **_VALUE},
    "LNS groups, mse": {**_GROUP, "scale": "mse", **_VALUE},
    "LNS groups, output": {**_GROUP, "scale": "output", **_VALUE},
    "LNS tensor, adaptive": {"scale": "output", "rounding": "adaptive"},
    "LNS channel, adaptive": {**_CHANNEL, "scale": "output", "rounding": "adaptive"},
    "LNS groups, adaptive": {**_GROUP, "scale": "output", "rounding": "adaptive"},
}
"""Arguments of `convert_model` by name."""

INTEGERS: dict[str, tuple[str, str, str]] = {
    "int channel": ("channel", "SYMMETRIC", "AFFINE"),
    "int groups": ("groups", "SYMMETRIC", "AFFINE"),
    "int groups, zero point": ("groups", "ASYMMETRIC", "AFFINE"),
    "int groups, HQQ": ("groups", "SYMMETRIC", "HQQ_SCALE_ONLY"),
}
"""Granularity, mapping and algorithm of torchao's `IntxWeightOnlyConfig`."""

CALIBRATION = 8, 64
"""Batches and examples of each."""


class Patches(nn.Module):
    """A convolution as a product with patches, (outputs, channels * kernel)."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        assert conv.groups == 1
        self.weight = nn.Parameter(conv.weight.detach().flatten(1).clone())
        self.bias = conv.bias
        self.how = {"padding": conv.padding, "stride": conv.stride, "dilation": conv.dilation}
        self.kernel = conv.kernel_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, outputs, H', W')."""
        sizes = zip(x.shape[2:], self.kernel, *self.how.values(), strict=True)
        height, width = ((size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, p, s, d in sizes)
        columns = F.unfold(x, self.kernel, **self.how).mT
        return F.linear(columns, self.weight, self.bias).mT.unflatten(2, (height, width))


def with_matrices(model: nn.Module) -> nn.Module:
    """A copy whose convolutions are products; names of parameters stay."""
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Conv2d):
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, Patches(module))
    return model


def matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """What is multiplied: parameters of two dimensions, but for embeddings."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    return {name: p for name, p in model.named_parameters() if p.ndim == 2 and id(p) not in tables}


def by_lns(model: nn.Module, bits: int, scheme: str, batches: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The matrices as they are after conversion and decoding."""
    model = with_matrices(model)
    chosen = set(matrices(model))
    arguments = dict(LNS[scheme])
    if "output" in arguments.values():
        arguments["calibrate"] = batches
    convert_model(model, FORMATS[bits], filter_fn=lambda name, _: name in chosen, **arguments)
    return {name: p.detach() for name, p in matrices(decode_model(model)).items()}


def by_torchao(model: nn.Module, bits: int, scheme: str) -> dict[str, torch.Tensor]:
    """The same by torchao; a row that is no whole number of groups has one scale."""
    from torchao.quantization import IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerAxis, PerGroup
    from torchao.quantization.quant_primitives import MappingType
    from torchao.quantization.quantize_.workflows.intx.intx_choose_qparams_algorithm import IntxChooseQParamsAlgorithm

    granularity, mapping, algorithm = INTEGERS[scheme]
    decoded = {}
    for name, p in matrices(with_matrices(model)).items():
        layer = nn.Linear(p.shape[1], p.shape[0], bias=False)
        layer.weight = nn.Parameter(p.detach().clone())
        in_groups = granularity == "groups" and p.shape[1] % GROUP == 0
        config = IntxWeightOnlyConfig(
            weight_dtype=getattr(torch, f"int{bits}"),
            granularity=PerGroup(GROUP) if in_groups else PerAxis(0),
            mapping_type=MappingType[mapping],
            intx_choose_qparams_algorithm=IntxChooseQParamsAlgorithm[algorithm],
        )
        quantize_(layer, config)
        decoded[name] = layer.weight.dequantize().detach()
    return decoded


@torch.no_grad()
def test_loss(task: Task, model: nn.Module) -> tuple[float, float | None]:
    """Mean cross-entropy on the test part in nats, and the accuracy in % of what classifies images."""
    model.eval()
    if not isinstance(task, Classification):
        return task.score(model), None
    loss, right, count = 0.0, 0, len(task.test_data.labels)
    for images, labels in zip(*(part.split(TEST_BATCH) for part in task.test_data), strict=True):
        logits = model(as_floats(images))
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        right += int((logits.argmax(1) == labels).sum())
    return loss / count, 100 * right / count


def trained(task: Task, problem: str, seed: int) -> nn.Module:
    recipe = Recipe("float32", "adam", lr=0.003)
    model, optimizer = training.start(task, recipe, seed)
    for _ in training.train(task, model, optimizer, recipe, steps=PROBLEMS[problem].steps, seed=seed):
        pass
    return model


def run(problem: str, seed: int, missing: list[tuple[int, str]], places: dict[str, Path], write: Any) -> None:
    """Train a network, and measure it converted by each scheme that is missing."""
    task = PROBLEMS[problem].make(places)
    model = trained(task, problem, seed)
    stream = task.batches(torch.Generator().manual_seed(1000 + seed))
    examples: list[torch.Tensor] = []
    while sum(map(len, examples)) < CALIBRATION[0] * CALIBRATION[1]:
        examples.append(next(stream).inputs)
    batches = list(torch.cat(examples)[: CALIBRATION[0] * CALIBRATION[1]].split(CALIBRATION[1]))
    float_loss, float_accuracy = test_loss(task, model)
    for bits, scheme in missing:
        converted = copy.deepcopy(model)
        decoded = by_lns(model, bits, scheme, batches) if scheme in LNS else by_torchao(model, bits, scheme)
        with torch.no_grad():
            for name, p in converted.named_parameters():
                if name in decoded:
                    p.copy_(decoded[name].reshape(p.shape))
        loss, accuracy = test_loss(task, converted)
        record = {"network": problem, "seed": seed, "bits": bits, "scheme": scheme, "loss": loss, "accuracy": accuracy}
        write({**record, "float_loss": float_loss, "float_accuracy": float_accuracy})


Increases = dict[tuple[str, int], list[float]]


def increases(records: list[dict[str, Any]], network: str) -> Increases:
    """The losses less those of the float networks, by scheme and bits, in the order of seeds."""
    found: Increases = defaultdict(list)
    for record in sorted(records, key=lambda r: r["seed"]):
        if record["network"] == network:
            found[record["scheme"], record["bits"]].append(record["loss"] - record["float_loss"])
    return found


def table(records: list[dict[str, Any]], network: str) -> TextTable:
    """What is lost on one network, a row a scheme."""
    found, seeds = increases(records, network), len(NETWORKS[network])
    floats = {r["seed"]: (r["float_loss"], r["float_accuracy"]) for r in records if r["network"] == network}
    best = {
        (kind, bits): min((fmean(v) for s in kind if len(v := found[s, bits]) == seeds), default=None)
        for kind in (tuple(LNS), tuple(INTEGERS))
        for bits in FORMATS
    }
    rows = []
    for kind in (tuple(LNS), tuple(INTEGERS)):
        for scheme in kind:
            cells = [word(scheme)]
            for bits in FORMATS:
                values = found[scheme, bits]
                if len(values) < seeds:
                    cells.append(word("-"))
                    continue
                mean = fmean(values)
                cells.append(Cell(f"{mean:+.4f}" + ("*" if mean == best[kind, bits] else " "), mean))
            rows.append(cells)
    loss = fmean(loss for loss, _ in floats.values()) if floats else float("nan")
    accuracies = [accuracy for _, accuracy in floats.values() if accuracy is not None]
    right = f", {fmean(accuracies):.2f} % right" if accuracies else ""
    title = f"{network}: loss after conversion less that of the float network, {loss:.4f} nats{right}"
    which = f"Means of {seeds} seeds." if seeds > 1 else "One seed."
    columns = ["", *(f"{bits} bits" for bits in FORMATS)]
    return TextTable("conversion", title, columns, rows, [f"{which} *: the least of LNS, and of integers."])


def verdicts(records: list[dict[str, Any]]) -> str:
    """Where groups of LNS, by error feedback, lose less than groups of integers, seed by seed."""
    lines = ["LNS groups, adaptive, against the better of torchao's groups: seeds in which LNS loses less", ""]
    lines.append(f"{'':12}" + "".join(f"{bits} bits".rjust(10) for bits in FORMATS))
    for network, seeds in NETWORKS.items():
        found = increases(records, network)
        cells = []
        for bits in FORMATS:
            own = found["LNS groups, adaptive", bits]
            rivals = [found[scheme, bits] for scheme in INTEGERS if "groups" in scheme]
            if any(len(each) < len(seeds) for each in (own, *rivals)):
                cells.append("-")
                continue
            less = sum(a < min(b) for a, b in zip(own, zip(*rivals, strict=True), strict=True))
            cells.append(f"{less} of {len(seeds)}")
        lines.append(f"{network:12}" + "".join(cell.rjust(10) for cell in cells))
    return "\n".join(lines)


def report(path: Path) -> str:
    """All tables of a file."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    tables = [table(records, network).text() for network in NETWORKS]
    return "\n\n\n".join([*tables, verdicts(records)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    arguments = parser.parse_args()
    if arguments.report:
        print(report(arguments.report))
        return
    if arguments.out is None:
        parser.error("give --out or --report")
    torch.set_num_threads(1)
    places = {name: Path(path) for name, _, path in (given.partition("=") for given in arguments.data)}
    done = set()
    if arguments.out.exists():
        records = map(json.loads, arguments.out.read_text(encoding="utf-8").splitlines())
        done = {(r["network"], r["seed"], r["bits"], r["scheme"]) for r in records}
    with arguments.out.open("a", encoding="utf-8") as out:

        def write(record: dict[str, Any]) -> None:
            out.write(json.dumps(record) + "\n")
            out.flush()
            print(record, flush=True)

        for network in arguments.networks:
            for seed in NETWORKS[network]:
                cells = [(bits, scheme) for bits in FORMATS for scheme in (*LNS, *INTEGERS)]
                missing = [cell for cell in cells if (network, seed, *cell) not in done]
                if missing:
                    run(network, seed, missing, places, write)
    print(report(arguments.out))


if __name__ == "__main__":
    main()
