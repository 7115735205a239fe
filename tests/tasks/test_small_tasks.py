"""Regression and copying, by slow loops and formulas; and the registry of all tasks."""

import hashlib
import itertools
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lnsnum.tasks import TaskError
from lnsnum.tasks.copying import Copying, Recurrent
from lnsnum.tasks.registry import TASKS, make_task
from lnsnum.tasks.regression import FourierNetwork, Regression, load_image
from lnsnum.tasks.task import Batch, fingerprint

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tasks():
    """Each task with its default data, made once."""
    return {name: make_task(name) for name in TASKS}


# -------------------------------------------------------------------------------------------------------- regression


def picture():
    return torch.rand(128, 128, 3, generator=torch.Generator().manual_seed(0))


def test_pixels_of_even_rows_and_columns_are_learned_and_the_rest_tested():
    image = picture()
    task = Regression(image, "drawn")
    for part, learned in ((task.train_data, True), (task.test_data, False)):
        expected = {
            ((y + 0.5) / 128, (x + 0.5) / 128): tuple(image[y, x].tolist())
            for y, x in itertools.product(range(128), repeat=2)
            if (y % 2 == 0 and x % 2 == 0) == learned
        }
        assert len(part.inputs) == len(expected)
        found = dict(zip(map(tuple, part.inputs.tolist()), map(tuple, part.targets.tolist()), strict=True))
        assert found == expected
    assert task.source == "drawn, 128 x 128 pixels: 4,096 to train on, 12,288 to test on"
    assert (task.epoch_steps, task.options) == (4, {})


def test_batches_are_pixels_that_are_learned():
    task = Regression(picture(), "drawn")
    color_at = dict(zip(map(tuple, task.train_data.inputs.tolist()), task.train_data.targets.tolist(), strict=True))
    batch = next(task.batches(torch.Generator().manual_seed(0)))
    assert len(batch.inputs) == 1024
    assert [color_at[tuple(place)] for place in batch.inputs.tolist()] == batch.targets.tolist()


class Gray(nn.Module):
    def forward(self, places):
        return torch.full((len(places), 3), 0.25)


def test_the_error_by_hand():
    image = picture()
    task = Regression(image, "drawn")
    squares = [
        (255 * value - 63.75) ** 2
        for y, row in enumerate(image.tolist())
        for x, color in enumerate(row)
        for value in color
        if y % 2 or x % 2
    ]
    assert task.score(Gray()) == pytest.approx(math.sqrt(math.fsum(squares) / len(squares)), rel=1e-6)
    batch = Batch(torch.zeros(2, 2), torch.tensor([[0.25, 0.25, 1.25], [0.25, -0.25, 0.25]]))
    assert task.loss(Gray(), batch).item() == pytest.approx((1 + 0.25) / 6)


def test_fourier_features_are_sines_and_cosines_of_the_place():
    network = FourierNetwork()
    frequencies = network.frequencies
    assert torch.equal(frequencies, FourierNetwork().frequencies)
    assert abs(frequencies.std() / (2 * math.pi * 4) - 1) < 0.2
    seen = []
    network.layers[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    assert network(torch.tensor([[0.1, 0.7]])).shape == (1, 3)
    angles = [0.1 * a + 0.7 * b for a, b in frequencies.T.tolist()]
    expected = torch.tensor([*map(math.sin, angles), *map(math.cos, angles)])
    torch.testing.assert_close(seen[0][0], expected, rtol=1e-4, atol=1e-5)


def test_an_image_is_cut_to_its_middle_and_reduced(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (258, 300, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    wide, _ = load_image(tmp_path / "p.png")
    assert wide.shape == (128, 128, 3)
    Image.fromarray(pixels[:256, :300]).save(tmp_path / "q.png")
    image, source = load_image(tmp_path / "q.png")
    assert source == "q.png"
    middle = pixels[:256, 22:278].astype(float)
    means = (middle[::2, ::2] + middle[1::2, ::2] + middle[::2, 1::2] + middle[1::2, 1::2]) / 4
    assert np.abs(255 * image.numpy() - means).max() <= 1 + 1e-4  # Pillow rounds rows, and then columns
    task = Regression(image, source)
    assert task.fingerprint == fingerprint(image)
    assert task.fingerprint != Regression(wide, source).fingerprint


def test_the_image_of_scikit_learn():
    image, source = load_image()
    assert source == "china.jpg of scikit-learn"
    assert image.shape == (128, 128, 3)
    assert image.min() >= 0
    assert image.max() <= 1


def test_images_that_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (200, 127)).save("small.png")
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128), np.uint8)).save("whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:5000])
    for name, sentence in {
        "small.png": "small.png is of 200 x 127 pixels: at least 128 x 128 are needed",
        "text.png": "text.png cannot be decoded as an image",
        "cut.png": "cut.png cannot be decoded: ",
        "nothing.png": "nothing.png: there is no such file",
        ".": ". is a folder: give an image",
    }.items():
        with pytest.raises(TaskError) as refused:
            load_image(tmp_path.__class__(name))
        assert str(refused.value).startswith(sentence)


# ----------------------------------------------------------------------------------------------------------- copying


def test_sequences_are_symbols_blanks_and_go():
    task = Copying()
    batches = task.batches(torch.Generator().manual_seed(0))
    drawn = [next(batches), next(batches), task.test_data]
    assert [len(b.inputs) for b in drawn] == [64, 64, 1000]
    for inputs, targets in drawn:
        for sequence, symbols in zip(inputs.tolist(), targets.tolist(), strict=True):
            assert sequence == [*symbols, *[8] * 20, *[9] * 4]
            assert set(symbols) <= set(range(8))
        assert set(targets.flatten().tolist()) == set(range(8))
    assert not torch.equal(drawn[0].inputs, drawn[1].inputs)


def test_the_test_sequences_are_the_same_whatever_the_seed():
    torch.manual_seed(5)
    first = Copying()
    torch.manual_seed(6)
    second = Copying()
    assert torch.equal(first.test_data.inputs, second.test_data.inputs)
    assert first.fingerprint == second.fingerprint
    batches = [next(first.batches(torch.Generator().manual_seed(seed))).inputs for seed in (1, 1, 2)]
    assert torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[0], batches[2])


class Repeating(nn.Module):
    """Repeats the first three symbols, and one too much for the fourth."""

    def forward(self, inputs):
        symbols = inputs[:, :4].clone()
        symbols[:, 3] = (symbols[:, 3] + 1) % 8
        return nn.functional.one_hot(symbols, 8).float()


def test_the_accuracy_of_symbols():
    assert Copying().score(Repeating()) == 75


def test_the_recurrence_is_that_of_an_lstm_by_its_formula():
    torch.manual_seed(0)
    model = Recurrent()
    gates = [gate.detach() for gate in model.recurrence.weight_hh_l0.split(64)]
    for gate in gates:
        torch.testing.assert_close(gate @ gate.T, torch.eye(64), rtol=0, atol=1e-5)
    inputs = Copying().test_data.inputs[:2]
    with torch.no_grad():
        x, r = model.symbols(inputs), model.recurrence
        h = c = torch.zeros(2, 64)
        logits = []
        for t in range(28):
            sums = x[:, t] @ r.weight_ih_l0.T + r.bias_ih_l0 + h @ r.weight_hh_l0.T + r.bias_hh_l0
            take, keep, new, give = sums.split(64, 1)
            c = keep.sigmoid() * c + take.sigmoid() * new.tanh()
            h = give.sigmoid() * c.tanh()
            logits.append(model.head(h))
        torch.testing.assert_close(model(inputs), torch.stack(logits[-4:], 1), rtol=1e-4, atol=1e-5)
    bias = r.bias_ih_l0.detach().split(64)
    assert abs(bias[1].mean() - 1) < 0.05
    assert max(abs(b.mean()) for i, b in enumerate(bias) if i != 1) < 0.05


# ---------------------------------------------------------------------------------------------------------- registry


def test_the_registry_knows_each_task_by_its_name(tasks):
    assert list(tasks) == [
        "classification", "generation", "reconstruction", "characters", "words", "regression", "copying",
    ]  # fmt: skip
    for name, task in tasks.items():
        assert task.name == name
        assert task.measure == TASKS[name].measure
        assert len(bytes.fromhex(task.fingerprint)) == 32
        assert json.loads(json.dumps(task.options)) == task.options
        assert set(task.options) == TASKS[name].options


def test_what_the_registry_refuses(tmp_path):
    for arguments, options, sentence in (
        (
            ("chess",),
            {},
            "there is no task 'chess': classification, generation, reconstruction, characters, words, regression, "
            "copying",
        ),
        (("copying", tmp_path), {}, "the task copying takes no data: it draws its own"),
        (("regression",), {"network": "cnn"}, "the task regression has no option 'network'"),
        (("words",), {"network": "cnn"}, "there is no network 'cnn' of words: transformer, gru, experts"),
        (("classification",), {"mirrored": 1}, "mirrored=1 is neither true nor false"),
        (("words", tmp_path), {}, f"{tmp_path} is a folder: give a plain text file"),
    ):
        with pytest.raises(TaskError) as refused:
            make_task(*arguments, **options)
        assert str(refused.value) == sentence


def test_data_for_each_task_that_takes_some(tasks, tmp_path):
    for label, n in itertools.product("ab", range(5)):
        (tmp_path / "set" / label).mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 20 * n + ord(label)).save(tmp_path / "set" / label / f"{n}.png")
    (tmp_path / "t").write_text("words and words, " * 200)
    Image.new("RGB", (128, 128), (255, 0, 0)).save(tmp_path / "i.png")
    for name, file in (
        ("classification", "set"), ("generation", "set"), ("reconstruction", "set"), ("characters", "t"),
        ("words", "t"), ("regression", "i.png"),
    ):  # fmt: skip
        task = make_task(name, tmp_path / file)
        assert file in task.source
        assert task.fingerprint == make_task(name, tmp_path / file).fingerprint != tasks[name].fingerprint


def test_fingerprints_are_of_type_shape_and_bytes():
    x = torch.arange(6, dtype=torch.int64)
    expected = hashlib.sha256(b"torch.int64(6,)" + np.arange(6, dtype=np.int64).tobytes() + b"end").hexdigest()
    assert fingerprint(x, b"end") == expected
    others = [fingerprint(x), fingerprint(x.reshape(2, 3)), fingerprint(x.reshape(3, 2)), fingerprint(x.float())]
    assert len({expected, *others}) == 5
    assert fingerprint(x.reshape(2, 3).T) == fingerprint(x.reshape(2, 3).T.contiguous())


def test_images_of_16_bits_and_with_palettes(tmp_path):
    ramp = np.linspace(0, 65535, 128 * 128).reshape(128, 128).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "16.png")
    Image.fromarray((ramp >> 8).astype(np.uint8)).save(tmp_path / "8.png")
    assert torch.equal(load_image(tmp_path / "16.png")[0], load_image(tmp_path / "8.png")[0])
    Image.new("P", (128, 128)).save(tmp_path / "p.png", transparency=b"\0\1\2")
    assert torch.equal(load_image(tmp_path / "p.png")[0], torch.zeros(128, 128, 3))
