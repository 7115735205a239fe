# %% [markdown]
# # Codes that move
#
# A small network is trained in lns8f5, and its weights, which are 8-bit codes and nothing else, are watched: which of
# them move, how far, and where they end.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from lnsnum.torch_bridge import Madam, convert_model

torch.manual_seed(0)
torch.set_num_threads(1)


def spirals(points):
    """Places in the plane, on one of three arms."""
    arm = torch.randint(3, (points,))
    radius = torch.rand(points).sqrt()
    angle = 4 * radius + 2 * math.pi / 3 * arm + 0.4 * torch.randn(points)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), arm


points, arms = spirals(2000)
model = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
convert_model(model, "lns8f5")
weight = model[2].weight

# %% [markdown]
# ## Training
#
# After every tenth step the codes of the middle layer are kept, and what the step did to all codes.

# %%
optimizer = Madam(model.parameters())
steps = 800
schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
losses, moved, flipped, kept = [], [], [], []
for step in range(steps):
    chosen = torch.randint(len(points), (64,))
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(points[chosen]), arms[chosen])
    loss.backward()
    optimizer.step()
    report = optimizer.step_report()
    losses.append(loss.item())
    moved.append(report.moved)
    flipped.append(report.sign_changes)
    if step % 10 == 0:
        kept.append(weight.codes.flatten().numpy().copy())
    schedule.step()
accuracy = (model(points).argmax(1) == arms).double().mean().item()
print(f"{accuracy:.1%} of the points on the right arm")
assert accuracy > 0.9

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
axes[0].plot(np.convolve(losses, np.ones(20) / 20, "valid"))
axes[0].set_title("loss, mean of 20 steps")
axes[1].plot(np.convolve(moved, np.ones(20) / 20, "valid"), label="moved")
axes[1].plot(np.convolve(flipped, np.ones(20) / 20, "valid") * 10, label="changed sign, times 10")
axes[1].set_title("share of the codes in a step")
axes[1].legend(fontsize="small")
for axis in axes:
    axis.set_xlabel("step")
plt.show()

# %% [markdown]
# As the rate falls, steps become smaller than a code; a weight then moves with a probability. What was half a code in a
# step is a code in every other.
#
# ## Where they are
#
# Each column is a histogram of log magnitudes: m counts 32nds of an octave, 1 is the smallest number and 127 the
# greatest. Bright stripes are many codes.

# %%
magnitudes = np.array([np.bincount(codes & 127, minlength=128) for codes in kept])
figure, axis = plt.subplots(figsize=(8, 3.2), layout="constrained")
image = axis.imshow(np.log1p(magnitudes.T[1:]), aspect="auto", origin="lower", extent=(0, steps, 1, 127), cmap="magma")
axis.set_xlabel("step")
axis.set_ylabel("log magnitude m")
figure.colorbar(image, label="log(1 + count)")
plt.show()

# %% [markdown]
# ## Single weights
#
# Ten of them, as signed numbers over the training: large ones by factors, small ones through zero.

# %%
from lnsnum import decode, lns8f5  # noqa: E402

track = decode(np.array(kept)[:, :: len(kept[0]) // 10], lns8f5)
figure, axis = plt.subplots(figsize=(8, 3), layout="constrained")
axis.step(np.arange(len(kept)) * 10, track, linewidth=1)
axis.axhline(0, linewidth=0.5)
axis.set_xlabel("step")
axis.set_ylabel("weight, in units of its scale")
plt.show()
changed = (kept[0] != kept[-1]).mean()
print(f"{changed:.0%} of the codes of this layer are others than at the start, {weight.telemetry().zeros:.1%} are zero")
