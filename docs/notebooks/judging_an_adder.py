# %% [markdown]
# # Judging an adder with Hypothesis
#
# An adder of logarithmic numbers as a designer would write it, its faults found by laws, shrunk to the simplest
# examples, and its error drawn over all pairs.

# %%
import matplotlib.pyplot as plt
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsnum import arithmetic, decode, lns8f3
from lnsnum.strategies import LawViolation, check_arithmetic_laws, codes

F, MOST, SIGN = 3, 127, 128

# %% [markdown]
# Mitchell's line makes 2^x of x without a table: 1 + x between two integers. Our adder takes it twice: once to make the
# smaller operand a number beside the greater, once to make the sum a logarithm.


# %%
def power(x):
    """2^x by Mitchell: right at integers, 6 % too great between."""
    whole = np.floor(x)
    return 2.0**whole * (1 + x - whole)


def logarithm(y):
    """log2 y by Mitchell."""
    whole = np.floor(np.log2(y))
    return whole + y / 2.0**whole - 1


def add(a, b):
    """Sums of two arrays of codes of lns8f3."""
    m_a, m_b = a.astype(int) & MOST, b.astype(int) & MOST
    greater, lesser = np.maximum(m_a, m_b), np.minimum(m_a, m_b)
    part = np.where((a ^ b) & SIGN, -1, 1) * power((lesser - greater) / 2**F)
    step = np.rint(2**F * logarithm(np.maximum(1 + part, 2.0**-16))).astype(int)
    m = np.where(lesser == 0, greater, np.clip(greater + step, 0, MOST))
    out = m | np.where(m_a >= m_b, a, b) & SIGN
    return np.where((a == SIGN) | (b == SIGN), SIGN, out).astype(np.uint8)


# %% [markdown]
# ## The laws
#
# Every pair of codes is tried. Mitchell's line is no fault: whoever takes it claims an error of some steps, `max_ulp`.
# The rest has to hold.

# %%
claimed = ["range", "determinism", "nan", "zero", "identity", "inverse", "commutativity", "sign_symmetry"]
try:
    check_arithmetic_laws(add, lns8f3, operations=["add"], laws=claimed, max_ulp=2)
except LawViolation as error:
    print(error)
    broken = {violation.law for violation in error.violations}
assert "nan" in broken or "commutativity" in broken or "inverse" in broken or "sign_symmetry" in broken

# %% [markdown]
# Where a difference vanishes the sign of the greater operand is left behind, and a sign without a magnitude is NaN.
# Mended:


# %%
def mended(a, b):
    """As `add`; what has no magnitude has no sign."""
    out = add(a, b)
    nan = (a == SIGN) | (b == SIGN)
    return np.where((out & MOST == 0) & ~nan, 0, out).astype(np.uint8)


print(check_arithmetic_laws(mended, lns8f3, operations=["add"], laws=claimed, max_ulp=2))

# %% [markdown]
# ## A property of one's own
#
# Hypothesis draws codes, and shrinks what fails to the simplest. Is (a + b) - b always near a? It is not, whichever
# adder one has: where b swallows a, a is lost.


# %%
@settings(deadline=None, database=None, derandomize=True)
@given(codes(lns8f3, nan=False, zero=False, negative=False), codes(lns8f3, nan=False, zero=False, negative=False))
def undone(a, b):
    """Adding and taking away."""
    total = mended(np.array([a], np.uint8), np.array([b], np.uint8))
    back = mended(total, np.array([b ^ SIGN], np.uint8))
    assert back[0] & MOST > 0, f"a = {decode(np.uint8(a), lns8f3):.3g}, b = {decode(np.uint8(b), lns8f3):.3g}"


try:
    undone()
except AssertionError as error:
    print(str(error).splitlines()[0])

# %% [markdown]
# ## Where it errs
#
# Over all pairs of positive numbers, and of a positive and a negative one: how many code steps the adder is from the
# correctly rounded sum. Along the diagonal of differences two numbers nearly cancel, and there nothing cheap holds.

# %%
every = np.arange(1, 128, dtype=np.uint8)
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
for axis, sign, title in zip(axes, (0, SIGN), ("a + b", "a - b"), strict=True):
    a, b = every[:, None], (every | np.uint8(sign))[None, :]
    exact = arithmetic.add(a, b, lns8f3)[0].astype(int)
    got = mended(*np.broadcast_arrays(a, b)).astype(int)
    error = np.where((exact & MOST > 0) & (got & MOST > 0), (got & MOST) - (exact & MOST), 0)
    image = axis.imshow(error, origin="lower", cmap="RdBu", vmin=-4, vmax=4, extent=(1, 127, 1, 127))
    axis.set_title(title)
    axis.set_xlabel("m of b")
    axis.set_ylabel("m of a")
    print(f"{title}: {np.mean(error == 0):.0%} of the pairs right, at most {abs(error).max()} steps off")
figure.colorbar(image, ax=axes, label="code steps")
plt.show()


# %% [markdown]
# And one more draw, of whole arrays: a sum of a list does not depend on how its zeros are spread.


# %%
@settings(deadline=None, database=None, derandomize=True, max_examples=50)
@given(st.data())
def zeros_do_not_matter(data):
    """Adding zero, anywhere."""
    x = data.draw(codes(lns8f3, shape=5, nan=False))
    total = x[:1]
    for code in x[1:]:
        total = mended(total, np.array([code]))
    with_zeros = np.insert(x, 3, 0)
    again = with_zeros[:1]
    for code in with_zeros[1:]:
        again = mended(again, np.array([code]))
    assert total == again


zeros_do_not_matter()
