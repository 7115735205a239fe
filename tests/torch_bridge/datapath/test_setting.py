"""A datapath that belongs to a model: told as text, saved with it, and trained with by `lnsnum train`."""

import copy
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lnsnum import LNSFormat
from lnsnum.gaussian import FromFunctions, LookUpTable, Mitchell
from lnsnum.tasks import TaskError
from lnsnum.tasks.recipe import Recipe
from lnsnum.tasks.registry import make_task
from lnsnum.tasks.training import start, train
from lnsnum.torch_bridge import LNSWeight, Madam, load_model, save_model
from lnsnum.torch_bridge.datapath import Accumulator, Numbers, datapath, datapath_of, use_datapath
from lnsnum.torch_bridge.datapath.presets import PRESETS
from lnsnum.torch_bridge.datapath.setting import put_setting, setting_of
from lnsnum.torch_bridge.datapath.texts import from_json, read_short, to_json

pytestmark = pytest.mark.usefixtures("one_thread")

X = torch.linspace(-2.0, 3.0, 24).reshape(4, 6)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def test_texts_say_all():
    kinds = {
        "weights": Numbers("lns8f5", scale="channel", rounding="stochastic_log"),
        "activations": Numbers("lns8f3", scale=-7, outside="zero"),
        "errors": Numbers("lns12f6", scale="running", decay=0.5),
    }
    log = Accumulator("lns12f6", order="blocked", block=5, gaussian_log=LookUpTable(20, 8.0), log_offset=3)
    layers = {"0": {"errors": None, "elementwise": False}, "2": None}
    settings = datapath(**kinds, accumulate=log, elementwise=True, layers=layers, seed=4, statistics=None).settings
    assert from_json(to_json(settings)) == settings
    dynamic = datapath(**kinds, accumulate=replace(log, log_offset="dynamic")).settings
    assert from_json(to_json(dynamic)) == dynamic
    for name in PRESETS:
        assert from_json(to_json(datapath(name).settings)) == datapath(name).settings
    own = FromFunctions(max, lambda z, f: -1)
    with pytest.raises(ValueError, match="is of your own, and no file can hold it"):
        to_json(datapath(**kinds, accumulate=Accumulator("lns12f6", gaussian_log=own)).settings)
    with pytest.raises(ValueError, match="is no description of a datapath"):
        from_json("{}")


def test_the_short_form():
    found = read_short("lns_madam_8bit,errors=lns12f6,weights=float32,accumulate=lns12f6/pairwise/table:20")
    assert found["errors"] == LNSFormat(12, 6)
    assert found["weights"] is None
    assert found["accumulate"] == Accumulator("lns12f6", order="pairwise", gaussian_log=LookUpTable(20))
    assert read_short("accumulate=lns12f6/dynamic/pairwise")["accumulate"].log_offset == "dynamic"
    assert read_short("accumulate=lns12f6/-40")["accumulate"].log_offset == -40
    assert read_short("accumulate=lns12f6/mitchell")["accumulate"].gaussian_log == Mitchell()
    assert read_short("errors=lns8f3/stochastic_log/running")["errors"] == Numbers(
        "lns8f3", scale="running", rounding="stochastic_log"
    )
    assert read_short("errors=lns8f3/-7")["errors"].scale == -7
    assert read_short("lns_madam_8bit,accumulate=lns16f10,elementwise")["elementwise"] is True
    for wrong, sentence in {
        "lns_adam": "is no preset of a datapath: lns_madam_8bit",
        "error=lns8f3": "'error=lns8f3' is not known: weights, activations",
        "accumulate=lns12f6/tree": "'tree' is not known: an order",
        "errors=lns8f3/mean": "'mean' is not known: a scale",
        "accumulate=lns12f6/table": "'table' is no Gaussian logarithm: give the number",
        "accumulate=lns12f6/mitchell:3": "leave out the number",
        "accumulate=fixed:20/dynamic": "'fixed:20' adds integers, .* leave out 'dynamic'",
        "accumulate=lns12f6/dynamic/0": "'0' is a second range: give one",
        "accumulate=lns12f6/pairwise/sequential": "'sequential' is a second order: give one",
        "accumulate=lns12f6/table:20/exact": "'exact' is a second Gaussian logarithm: give one",
        "errors=lns8f3/max/running": "'running' is a second scale: give one",
        "errors=lns8f3/nearest/up": "'up' is a second rounding: give one",
        "errors=lns8f3,errors=lns12f6": "'errors=lns12f6' is a second errors: give one",
        "lns_madam_8bit,sanyal_16bit": "'sanyal_16bit' is a second preset: give one",
    }.items():
        with pytest.raises(ValueError, match=sentence):
            read_short(wrong)


def test_a_model_has_its_datapath(tmp_path):
    model = use_datapath(network(), "lns_madam_8bit", layers={"2": {"activations": "lns4f1"}})
    with datapath("lns_madam_8bit", layers={"2": {"activations": "lns4f1"}}):
        expected = network()(X).detach()
    with pytest.raises(RuntimeError, match="is called with gradients outside of it"):
        model(X)
    with datapath_of(model):
        assert torch.equal(model(X), expected)
    with pytest.raises(RuntimeError, match="has a datapath of its own, and is called within another one"), datapath():
        model(X)
    with torch.no_grad():
        assert torch.equal(model(X), expected)
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            model(X.mT)
        assert torch.equal(model(X), expected)
        assert torch.equal(copy.deepcopy(model)(X), expected)
        assert torch.equal(pickle.loads(pickle.dumps(model))(X), expected)
        save_model(tmp_path / "model.safetensors", model)
        other = load_model(tmp_path / "model.safetensors", network(1))
        assert setting_of(other) == setting_of(model)
        assert torch.equal(other(X), expected)
        assert not torch.equal(use_datapath(model, None)(X), expected)
    with pytest.raises(ValueError, match="has no datapath: give it one"):
        datapath_of(model)
    with pytest.raises(TypeError, match=r"model is a str, not a torch.nn.Module"):
        datapath_of("activations=lns8f3")
    with pytest.raises(TypeError, match="a Datapath has all settings"):
        use_datapath(model, datapath("lns_madam_8bit"), seed=1)


def test_running_maxima_are_of_the_model(tmp_path):
    """Evaluation moves none, copies have their own, and a file has them: all compute the same."""
    model = use_datapath(network(), activations=Numbers("lns8f3", scale="running", decay=0.5))
    with datapath_of(model) as path:
        model(2.0**12 * X)
        trained = path.state_dict()["peaks"]
    model.eval()
    with torch.no_grad():
        expected = model(X)
        others = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        save_model(tmp_path / "model.safetensors", model)
        others.append(load_model(tmp_path / "model.safetensors", network(1)).eval())
        for other in others:
            assert torch.equal(other(X), expected)
            assert datapath_of(other).state_dict()["peaks"] == trained
        assert not torch.equal(use_datapath(copy.deepcopy(model), activations="lns8f3")(X), expected)
    assert path.state_dict()["peaks"] == trained
    with datapath_of(others[0].train()):
        others[0](X)
    assert datapath_of(others[0]).state_dict()["peaks"] != trained
    assert path.state_dict()["peaks"] == trained
    broken = setting_of(model).split('"peaks"')[0] + '"peaks": [[1]]}'
    with pytest.raises(ValueError, match="has running maxima that are none"):
        put_setting(model, broken)


def test_a_task_is_trained_in_it():
    with pytest.raises(TaskError, match="datapath nothing: 'nothing' is no preset"):
        make_task("classification", datapath="nothing")
    with pytest.raises(TaskError, match="leave out bfloat16, or the datapath"):
        make_task("classification", datapath="lns_madam_8bit", bfloat16=True)
    task = make_task("classification", datapath="lns_madam_8bit,accumulate=lns16f10")
    assert task.options["datapath"] == "lns_madam_8bit,accumulate=lns16f10"
    recipe = Recipe("lns8f5")
    model, optimizer = start(task, recipe, 0)
    *_, history = train(task, model, optimizer, recipe, steps=4, seed=0)
    plain = make_task("classification")
    *_, other = train(plain, *start(plain, recipe, 0), recipe, steps=4, seed=0)
    assert setting_of(model) is not None
    assert task.in_float().options == plain.options
    assert setting_of(start(task.in_float(), Recipe("float32", "adam"), 0)[0]) is None
    assert history.loss != other.loss
    assert history.loss == pytest.approx(other.loss, rel=0.05)
    kinds = {one.kind for one in datapath_of(model).report().tensors}
    assert kinds == {"weights", "activations", "errors", "gradients"}


def test_the_step_of_lns_madam():
    """w <- w 2^(-eta g / sqrt(v_hat) sign w), eta = 1 / 128, to whole steps: lns16f11 by Madam's ladder, in float64."""
    fmt, eta = LNSFormat(16, 11), 1 / 128
    random = np.random.default_rng(0)
    weight = nn.Parameter(LNSWeight.from_float(torch.tensor(random.standard_normal(500), dtype=torch.float32), fmt))
    optimizer = Madam([weight], lr=eta * math.log(2.0), rule="paper", rounding="nearest")
    m = (weight.codes.numpy().view(np.uint16) & fmt.max_magnitude).astype(np.int64)
    sign, v = np.sign(weight.detach().to_float().numpy()), np.zeros(500)
    moved = 0
    for t in range(1, 4):
        g = np.float32(random.standard_normal(500) * 10.0 ** random.uniform(-3, 0, 500))
        weight.grad = torch.from_numpy(g)
        optimizer.step()
        v = 0.999 * v + 0.001 * g.astype(float) ** 2
        delta = -eta * np.clip(g / np.sqrt(v / (1 - 0.999**t)), -10, 10) * sign * 2**fmt.fraction_bits
        found = (weight.codes.numpy().view(np.uint16) & fmt.max_magnitude).astype(np.int64)
        # the second moment is kept in a byte, a part in 8, so that only the first step is that of the formula
        far = np.abs(found - np.clip(m + np.rint(delta), 1, fmt.max_magnitude))
        assert (far <= (0 if t == 1 else 0.13 * np.abs(delta) + 1)).all()
        moved += int((found != m).sum())
        m = found
    assert moved > 1000
