# %% [markdown]
# # A datapath search
#
# How narrow may an accumulator be, and how cheap its adder, before training suffers? One small network is trained in
# each datapath, forward and backward, and scored. Every sum is bit-true: what a chip of that kind would compute.

# %%
import itertools
import math

import matplotlib.pyplot as plt
import torch
from torch import nn

from lnsnum.gaussian import Exact, LookUpTable, Mitchell
from lnsnum.torch_bridge import Madam, convert_model
from lnsnum.torch_bridge.datapath import Accumulator, datapath

torch.set_num_threads(1)


def spirals(points, seed):
    """Places in the plane, on one of three arms."""
    generator = torch.Generator().manual_seed(seed)
    arm = torch.randint(3, (points,), generator=generator)
    radius = torch.rand(points, generator=generator).sqrt()
    angle = 4 * radius + 2 * math.pi / 3 * arm + 0.15 * torch.randn(points, generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), arm


points, arms = spirals(1000, 1)
test_points, test_arms = spirals(1000, 2)


def score(accumulate, steps=150):
    """Accuracy on other points, after training in a datapath of 8 bits with these sums."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))
    convert_model(model, "lns8f5")
    optimizer = Madam(model.parameters())
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    path = datapath(activations="lns8f3", errors="lns8f3", gradients="lns8f3", accumulate=accumulate)
    for _ in range(steps):
        chosen = torch.randint(len(points), (64,))
        optimizer.zero_grad()
        with path:
            nn.functional.cross_entropy(model(points[chosen]), arms[chosen]).backward()
        optimizer.step()
        schedule.step()
    with path, torch.no_grad():
        accuracy = (model(test_points).argmax(1) == test_arms).double().mean().item()
    return accuracy, path.report()


wide, _ = score("float32")
print(f"8-bit numbers, wide sums: {wide:.1%}")
assert wide > 0.8

# %% [markdown]
# ## The grid
#
# Three accumulators, and three ways to add: exactly, by 20 entries each of sb and db, by one straight line.

# %%
accumulators = ["lns9f5", "lns10f5", "lns12f6"]
adders = {"exact": Exact(), "table of 20": LookUpTable(20), "Mitchell": Mitchell()}
scores, reports = {}, {}
for fmt, (name, gaussian) in itertools.product(accumulators, adders.items()):
    scores[fmt, name], reports[fmt, name] = score(Accumulator(fmt, gaussian_log=gaussian))
print(f"{'':10}" + "".join(f"{name:>14}" for name in adders))
for fmt in accumulators:
    print(f"{fmt:10}" + "".join(f"{scores[fmt, name]:14.1%}" for name in adders))

# %%
figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
for name in adders:
    axis.plot(accumulators, [scores[fmt, name] for fmt in accumulators], "o-", label=name)
axis.axhline(wide, linestyle=":", linewidth=1)
axis.set_ylabel("accuracy")
axis.set_xlabel("accumulator; dotted: wide sums")
axis.legend(fontsize="small")
plt.show()

# %% [markdown]
# ## Why
#
# The report counts additions in which the smaller operand changed nothing: a small term beside a large sum is
# swallowed. Here they are few, in all three. And it counts the terms that lie below the accumulator's smallest number.
# What lns9f5 lacks is not resolution, for it has as many fraction bits as lns10f5, but range: eight octaves, where the
# other has sixteen, and by default they lie where the greatest sum that the formats allow is just within.


# %%
def share(report, what, of):
    """Of all layers together."""
    return sum(getattr(one, what) for one in report.sums) / sum(getattr(one, of) for one in report.sums)


for fmt in accumulators:
    report = reports[fmt, "exact"]
    print(
        f"{fmt:10}{share(report, 'swamped', 'additions'):7.1%} of the additions changed nothing,"
        f"{share(report, 'underflow', 'terms'):7.1%} of the terms were below the range"
    )

# %% [markdown]
# The greatest sum that there is lies octaves lower, and the range can go by that.

# %%
accuracy, report = score(Accumulator("lns9f5", log_offset="dynamic"))
print(f"lns9f5, a dynamic range: {accuracy:.1%}; {share(report, 'underflow', 'terms'):.1%} of the terms below it")

# %% [markdown]
# One seed of one small problem ranks nothing: [the datapath](../datapath.md#what-it-costs) has digits with three seeds.
