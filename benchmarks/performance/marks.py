"""The marks: ratios to reach within one run, and those that would be better still."""

from __future__ import annotations

from benchmarks.performance import arrays, datapath, products, scales, startup, training, uses
from benchmarks.performance.cases import Mark

LARGE = (10**6, 10**7)
STEP = "training step, "
FORMATS = "lns8f3", "lns16f10", "lns32f23"

MARKS = (
    Mark("encode lns8, nearest", "encode lns8f3", 1.1, 0.8, LARGE),
    Mark("encode lns8, stochastic", "encode lns8f3, stochastic", 2.5, 1.5, LARGE),
    Mark("decode lns8", "decode lns8f3", 1.8, 1.2, LARGE),
    Mark("encode lns16f10", "encode lns16f10", 2.0, 1.0, LARGE),
    Mark("decode lns16f10", "decode lns16f10", 2.0, 1.0, LARGE),
    Mark("encode lns32f23", "encode lns32f23", 4.0, 2.0, LARGE),
    Mark("decode lns32f23", "decode lns32f23", 4.0, 2.0, LARGE),
    Mark("multiply lns8", "multiply lns8f3", 1.0, 0.5, LARGE),
    Mark("add lns8", "add lns8f3", 3.0, 1.5, LARGE),
    Mark("add lns16f10", "add lns16f10", 8.0, 4.0, LARGE),
    Mark("add lns32f23", "add lns32f23", 40.0, 20.0, LARGE),
    *(Mark(f"{name}, a scale a channel", scales.per_channel(name), 1.5, 1.2, ()) for name in scales.PER_CHANNEL),
    Mark("encode, 10,000 scales", "encode lns8f3, 10,000 scales", 2.0, 1.5, ()),
    *(
        Mark(f"{name}, {what}", f"{name} lns8f3, {what}", mark, 1.2, ())
        for name in ("multiply", "add")
        for what, mark in (("one transposed", 1.5), ("both transposed", 2.0))
    ),
    Mark("stochastic encode on the grid", "encode lns8f3, stochastic, on the grid", 2.0, 1.2, ()),
    Mark("encode lns8f5, nearest", "encode lns8f5", 1.1, 0.8, ()),
    *(Mark(f"add {name}, directed", f"add {name}, directed", 2.0, 1.5, LARGE) for name in FORMATS),
    *(Mark(f"add {name}, stochastic", f"add {name}, stochastic", 3.0, 2.0, LARGE) for name in FORMATS),
    *(Mark(f"x < y, {name}", f"x < y {name}", 3.0, 1.5, LARGE) for name in ("lns8f3", "lns32f23")),
    Mark("sort lns8", "sort lns8f3", 1.0, 0.5, LARGE),
    Mark("decode lns32f23 to float64", "decode lns32f23 to float64", 3.0, 2.0, LARGE),
    Mark("sum lns32f23, of 1,000,000", "sum lns32f23", 8e-3, 5e-3, (10**6,), kind="seconds"),
    *(
        Mark(f"{name} of 1,000, {fmt}", f"{name} {fmt}, a small call", most, 3e-6, (arrays.SMALL,), kind="seconds")
        for fmt in FORMATS
        for name, most in (("x + y", 5e-6), ("x * 2", 8e-6), ("x.sum()", 10e-6))
    ),
    Mark("matmul, float32 accumulator", "matmul lns8f3, float32 accumulator", 1.25, 1.05, (1024,)),
    Mark(
        "matmul, bit-true accumulator",
        "matmul lns8f3, lns16f10 accumulator",
        20,
        60,
        (512,),
        products.XLNSTORCH,
        "times faster",
    ),
    Mark(
        "the same, xlnstorch at its best",
        "matmul lns8f3, lns16f10 accumulator",
        20,
        60,
        (512,),
        products.XLNSTORCH_TABLES,
        "times faster",
    ),
    Mark("weight-only product", "weight-only product lns8f5", 2.0, 0.8, (4096,), products.TORCH_MV),
    Mark("Madam step", "Madam step lns8f5", 1.2, 1.0, (4_000_000,), training.FUSED_ADAM),
    Mark(
        "the same, beside IntegerMadam",
        "Madam step lns8f5",
        12,
        25,
        (4_000_000,),
        training.INTEGER_MADAM,
        "times faster",
    ),
    Mark("the same, momentum", "Madam step lns8f5, momentum", 1.6, 1.2, (4_000_000,), training.FUSED_ADAM),
    Mark("the same, 148 small tensors", "Madam step lns8f5, 148 small tensors", 1.2, 0.8, (), training.FUSED_ADAM),
    Mark(uses.LAYER + uses.FORWARD, uses.LAYER + uses.FORWARD, 25e-6, 15e-6, (64,), kind="seconds over"),
    Mark(uses.LAYER + uses.BOTH, uses.LAYER + uses.BOTH, 45e-6, 30e-6, (64,), kind="seconds over"),
    Mark(uses.MODEL + uses.FORWARD, uses.MODEL + uses.FORWARD, 1.6, 1.3, (64,)),
    Mark(uses.MODEL + uses.STEP, uses.MODEL + uses.STEP, 1.25, 1.1, (64,)),
    *(
        Mark(
            f"passes of {datapath.ALL_LNS}, {side}", f"datapath, {datapath.ALL_LNS}", 50, 100, (), side, "times faster"
        )
        for side in (datapath.XLNSTORCH, datapath.XLNSTORCH_TABLES)
    ),
    # 60,000 images in 15 s
    Mark(f"passes of {datapath.EPOCH}", f"datapath, {datapath.EPOCH}", 16e-3, 8e-3, (), kind="seconds"),
    Mark(f"passes of a {datapath.FAST}", f"datapath, {datapath.FAST}", 1.6, 1.3, (), datapath.FLOAT),
    *(Mark(f"{STEP}{name}", f"{STEP}{name}", 1.10, 1.00, ()) for name in training.MODELS),
    Mark(startup.IMPORT, startup.IMPORT, 1.2, 1.1, ()),
    Mark(startup.FIRST, startup.FIRST, 20.0, 8.0, (), kind="seconds over"),
    Mark(startup.LATER, startup.LATER, 1.0, 0.5, (), kind="seconds over"),
    Mark("weight file load, 100 MB", "weight file load", 1.1, 1.0, (10**8,)),
    Mark("weight file load, 1,000 codes", "weight file load", 60e-6, 40e-6, (1000,), kind="seconds"),
)
