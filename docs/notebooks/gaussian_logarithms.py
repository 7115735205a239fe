# %% [markdown]
# # Gaussian logarithms
#
# What a sum adds to the greater logarithm, sb(z), and what a difference takes away, db(z); and what becomes of them
# when hardware makes them cheaply.

# %%
import matplotlib.pyplot as plt
import numpy as np

from lnsnum import lns12f6
from lnsnum.certify import judge
from lnsnum.gaussian import BitShift, Cotransformation, Exact, LinearInterpolation, LookUpTable, Mitchell

fmt = lns12f6
z = np.arange(1, 12 * 64)
ways = {
    "exact": Exact(),
    "Mitchell": Mitchell(),
    "8 lines": LinearInterpolation(8),
    "table of 20": LookUpTable(20),
    "bit shift": BitShift(),
    "cotransformation": Cotransformation(),
}

# %% [markdown]
# The two functions, in octaves: z is how far the two operands are apart. sb starts at one octave, as 1 + 1 = 2, and is
# soon nothing. db has no bottom: two numbers that are nearly alike cancel.

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for name in ("exact", "Mitchell", "table of 20", "bit shift"):
    axes[0].plot(z / 64, ways[name].sb(z, fmt) / 64, label=name, linewidth=1.2)
    axes[1].plot(z / 64, ways[name].db(z, fmt) / 64, label=name, linewidth=1.2)
for axis, title in zip(axes, ("sb(z)", "db(z)"), strict=True):
    axis.set_title(title)
    axis.set_xlabel("z in octaves")
    axis.set_xlim(0, 8)
axes[1].set_ylim(-6, 0.2)
axes[0].legend(fontsize="small")
plt.show()

# %% [markdown]
# The errors, in code steps of lns12f6. Whoever stays within one is faithful: one of the two codes that are nearest.

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained", sharey=True)
for name, way in ways.items():
    if name != "exact":
        axes[0].plot(z / 64, way.sb(z, fmt) - ways["exact"].sb(z, fmt), label=name, linewidth=1)
        axes[1].plot(z / 64, way.db(z, fmt) - ways["exact"].db(z, fmt), label=name, linewidth=1)
for axis, title in zip(axes, ("error of sb", "error of db"), strict=True):
    axis.set_title(title)
    axis.set_xlabel("z in octaves")
    axis.set_xlim(0, 8)
    axis.set_yscale("symlog", linthresh=1)
axes[0].set_ylabel("code steps")
axes[0].legend(fontsize="small")
plt.show()

# %% [markdown]
# Judged over every z:

# %%
print(f"{'':18}{'worst sb':>10}{'worst db':>10}   the best that can be said")
for name, way in ways.items():
    of_sum, of_difference = judge(way, fmt)
    words = f"{of_sum.rounding}, {of_difference.rounding}"
    print(f"{name:18}{of_sum.worst_error:10.2f}{of_difference.worst_error:10.2f}   {words}")
assert all(found.correctly_rounded for found in judge(Exact(), fmt))

# %% [markdown]
# ## What a sum makes of it
#
# A thousand random numbers in a 12-bit accumulator. One after another they are swallowed by the sum, whichever adder
# one has. Pairwise it is the adder that counts, and of its errors not the worst but how they lean: what is of one sign
# adds up.

# %%
from lnsnum import decode, encode, reduction  # noqa: E402

rng = np.random.default_rng(0)
terms = rng.uniform(0.5, 1.5, size=(1000, 20))
codes = encode(terms, fmt)
exact = decode(codes, fmt).sum(axis=0)
for order in ("sequential", "pairwise"):
    for name, way in ways.items():
        total, offset = reduction.sum(
            codes, fmt, axis=0, accumulator="lns12f6", order=order, gaussian=way, out_log_offset="fit"
        )
        error = decode(total, fmt, log_offset=offset) / exact - 1
        print(f"{order:10}  {name:18}{abs(error).mean():7.2%} off, {error.mean():+7.2%} on average")
