# %% [markdown]
# # A number line
#
# Which numbers 8 bits can name, and how far off a real number may be: logarithmic numbers (lns8f3, lns8f5) beside the
# small floats of ml_dtypes (E4M3, E5M2), posits (posit8) and integers with a scale (int8).

# %%
import matplotlib.pyplot as plt
import ml_dtypes
import numpy as np

from lnsnum import decode, encode, lns8f3, lns8f5
from lnsnum.plots.numbers import numbers_of

# %% [markdown]
# A format is the list of its numbers. Those of floats come from all 256 bit patterns, those of posits from the list of
# lnsnum.plots; int8 is scaled so that its greatest is 1.

# %%
every = np.arange(256, dtype=np.uint8)


def positive(values):
    """The finite numbers above zero, in order."""
    values = values.astype(np.float64)
    return np.unique(values[np.isfinite(values) & (values > 0)])


formats = {
    "lns8f3": positive(decode(every, lns8f3)),
    "lns8f5": positive(decode(every, lns8f5)),
    "E4M3": positive(every.view(ml_dtypes.float8_e4m3fn)),
    "E5M2": positive(every.view(ml_dtypes.float8_e5m2)),
    "posit8": numbers_of("posit8").positive(),
    "int8 / 127": positive(every.view(np.int8) / 127),
}
for name, values in formats.items():
    print(f"{name:10}  {len(values):3} numbers above zero, {np.log2(values[-1] / values[0]):4.1f} octaves")

# %% [markdown]
# ## The numbers themselves
#
# On a logarithmic axis, each format shifted so that its middle number is 1: a tensor's scale does that. Logarithmic
# numbers are evenly spaced. Floats are in runs of eight or four. Posits gather in the middle, integers at the top.

# %%
figure, axis = plt.subplots(figsize=(8, 3), layout="constrained")
for row, values in enumerate(formats.values()):
    axis.plot(values / np.sqrt(values[0] * values[-1]), np.full(len(values), -row), "|", markersize=14)
axis.set_xscale("log", base=2)
axis.set_yticks(-np.arange(len(formats)), list(formats))
axis.set_xlabel("number over the middle of the range")
plt.show()

# %% [markdown]
# ## The error, over the range
#
# How far the nearest number of the format is, relative to the number itself. That of a logarithmic format is the same
# from end to end: half a step, 4.4 % of lns8f3 and 1.1 % of lns8f5. That of a float falls and jumps within each octave,
# and rises where its subnormals begin; that of a posit is a float's in the middle, and doubles with each bit that its
# exponent takes towards the ends; that of an integer is one over the number.

# %%
x = np.geomspace(2.0**-10, 2.0**10, 2001)


def relative_error(values):
    """|x - nearest| / |x| where x is within the range."""
    scaled = values / np.sqrt(values[0] * values[-1])
    above = np.clip(np.searchsorted(scaled, x), 1, len(scaled) - 1)
    nearest = np.where(x - scaled[above - 1] < scaled[above] - x, scaled[above - 1], scaled[above])
    return np.where((x >= scaled[0]) & (x <= scaled[-1]), abs(nearest / x - 1), np.nan)


figure, axes = plt.subplots(len(formats), figsize=(8, 7), layout="constrained", sharex=True, sharey=True)
for axis, (name, values) in zip(axes, formats.items(), strict=True):
    axis.fill_between(x, 100 * relative_error(values), linewidth=0)
    axis.set_ylabel(f"{name}, %")
axis.set_xscale("log", base=2)
axis.set_ylim(0, 15)
axis.set_xlabel("number over the middle of the range")
plt.show()

# %% [markdown]
# ## What a tensor loses
#
# Normal numbers, each format at the scale that is best for it: the signal over the noise, in decibels. No 8 bits are
# best for everything: int8 has fine steps for what is large, lns8f5 too little range to keep what is small.

# %%
rng = np.random.default_rng(0)


def best_sqnr(values, samples):
    """Over scales an eighth of an octave apart; of posits the best leave the upper half of the range unused."""
    grid = np.concatenate([-values[::-1], [0], values])
    best = -np.inf
    for scale in 2.0 ** np.arange(-8, 24, 0.125) * abs(samples).max() / values[-1]:
        edges = (grid[1:] + grid[:-1]) / 2
        rounded = grid[np.searchsorted(edges, samples / scale)] * scale
        best = max(best, 10 * np.log10((samples**2).sum() / ((samples - rounded) ** 2).sum()))
    return best


drawn = {
    "normal": rng.normal(size=20_000),
    "heavy tails": rng.standard_t(3, size=20_000),
    "log-normal": rng.lognormal(sigma=1.5, size=20_000),
}
print(" " * 12 + "".join(f"{name:>12}" for name in drawn))
sqnr = {name: [best_sqnr(values, samples) for samples in drawn.values()] for name, values in formats.items()}
for name, row in sqnr.items():
    print(f"{name:12}" + "".join(f"{decibels:9.1f} dB" for decibels in row))

# %% [markdown]
# The library rounds to the nearest on the logarithmic axis, not to the nearest in value as above. Both are neighbours
# of the number; they differ in a sliver between the geometric and the arithmetic middle.

# %%
a, b = decode(np.array([64, 65], np.uint8), lns8f3)
middle = (np.sqrt(a * b) + (a + b) / 2) / 2
print(a, decode(encode([middle], lns8f3), lns8f3)[0], round(middle, 5))
assert decode(encode([middle], lns8f3), lns8f3)[0] == b
