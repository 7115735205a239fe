"""Texts and the language model: tokens by hand, no look ahead, the score by a slow loop; and texts that are refused."""

import hashlib
import itertools
import math
import re
import sysconfig
from pathlib import Path

import pytest
import torch
from torch import nn

from lnsnum.tasks import TaskError
from lnsnum.tasks.language import LENGTH, LanguageModel, Transformer
from lnsnum.tasks.language_networks import Experts, GatedRecurrence, MixtureOfExperts
from lnsnum.tasks.recipe import Recipe
from lnsnum.tasks.text import Text, load_text, tokenize
from lnsnum.torch_bridge import LNSWeight

pytestmark = pytest.mark.usefixtures("one_thread")


def text(content):
    return Text(content, "by hand", hashlib.sha256(content.encode()).hexdigest())


# ------------------------------------------------------------------------------------------------------------ tokens


def test_characters_by_hand():
    # 40 characters: 36 to train on (a 18, b 9, c 5, x 4), 4 to test on
    tokens = tokenize(text("ab" * 9 + "a" * 9 + "c" * 5 + "x" * 4 + "xbyc"), "characters")
    assert tokens.vocabulary == ("a", "b", "c")  # x occurs 4 times there, a fifth time only behind
    assert tokens.train.tolist() == [1, 2] * 9 + [1] * 9 + [3] * 5 + [0] * 4
    assert tokens.test.tolist() == [0, 2, 0, 3]
    assert tokens.train.dtype == tokens.test.dtype == torch.int64


def test_words_by_hand():
    content = "the cat, the dog_2!\nthe\tcat x"  # the cat , the dog_2 ! newline the cat | x
    tokens = tokenize(text(content), "words")
    assert tokens.vocabulary == ("the", "cat", "\n", "!", ",", "dog_2")  # by count, then by letters
    assert tokens.train.tolist() == [1, 2, 5, 1, 6, 4, 3, 1, 2]
    assert tokens.test.tolist() == [0]


def test_letters_of_every_script_make_words():
    assert tokenize(text("Zür été, 数学 наука… à " + "a " * 10), "words").train.tolist()[:7] != []
    vocabulary = tokenize(text("Zürich été数学, наука… " + "a " * 10), "words").vocabulary
    assert set(vocabulary) == {"Zürich", "été数学", ",", "наука", "…", "a"}


def test_a_thousand_words_are_told_apart_at_most():
    words = [f"w{n}" for n in range(1500) for _ in range(2 if n < 900 else 3)]
    tokens = tokenize(text(" ".join([*words, *["new"] * 400])), "words")
    assert len(tokens.vocabulary) == 999
    counts = {w: words.count(w) for w in tokens.vocabulary}
    assert sorted(counts.values()) == [2] * 399 + [3] * 600
    assert set(tokens.train.tolist()) == set(range(1000))


@pytest.mark.parametrize("unit", ["characters", "words"])
@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 99, 100, 109])
def test_the_last_tenth_is_for_testing(unit, count):
    letters = "".join(chr(ord("a") + n % 26) for n in range(count))
    content = letters if unit == "characters" else " ".join(letters)
    tokens = tokenize(text(content), unit)
    assert len(tokens.test) == count // 10
    assert len(tokens.train) == count - count // 10
    seen = "".join("?" if t == 0 else tokens.vocabulary[t - 1] for t in [*tokens.train.tolist(), *tokens.test.tolist()])
    assert all(a in (b, "?") for a, b in zip(seen, letters, strict=True))


def test_what_is_only_in_the_last_tenth_is_in_no_vocabulary():
    tokens = tokenize(text("a" * 90 + "z" * 10), "characters")
    assert (tokens.vocabulary, tokens.test.tolist()) == (("a",), [0] * 10)
    tokens = tokenize(text("a " * 90 + "z " * 10), "words")
    assert (tokens.vocabulary, tokens.test.tolist()) == (("a",), [0] * 10)


# ------------------------------------------------------------------------------------------------------------- files


def test_a_file_its_name_and_its_hash(tmp_path):
    raw = "Früh übt sich.\n".encode() * 9
    (tmp_path / "proverb.txt").write_bytes(raw)
    loaded = load_text(tmp_path / "proverb.txt")
    assert loaded == (raw.decode(), "proverb.txt", hashlib.sha256(raw).hexdigest())


def test_the_standard_library_by_name():
    loaded = load_text()
    stdlib = Path(sysconfig.get_path("stdlib"))
    names = sorted(p.name for p in stdlib.iterdir() if p.suffix == ".py")
    first, last = (stdlib.joinpath(name).read_text(encoding="utf-8") for name in (names[0], names[-1]))
    assert loaded.content.startswith(first)
    assert loaded.content.endswith(last)
    assert re.fullmatch(rf"{len(names)} modules of Python 3\.\d+'s standard library", loaded.source)
    assert loaded.sha256 == hashlib.sha256(loaded.content.encode()).hexdigest()
    assert load_text() == loaded


BAD_TEXTS = {
    "nothing": (None, "t: there is no such file"),
    "empty": (b"", "t is empty: there is nothing to learn from"),
    "blanks": (b" \n\t\n", "t is empty: there is nothing to learn from"),
    "latin-1": ("naïve".encode("latin-1"), "t is no text in UTF-8: byte 2 is invalid continuation byte"),
    "cut": ("für".encode()[:2], "t is no text in UTF-8: byte 1 is unexpected end of data"),
}


@pytest.mark.parametrize("case", BAD_TEXTS)
def test_what_is_no_text(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, sentence = BAD_TEXTS[case]
    if content is not None:
        Path("t").write_bytes(content)
    with pytest.raises(TaskError) as refused:
        load_text(Path("t"))
    assert str(refused.value) == sentence


def test_a_folder_is_no_text(tmp_path):
    with pytest.raises(TaskError, match=r"is a folder: give a plain text file$"):
        load_text(tmp_path)


@pytest.mark.parametrize("unit", ["characters", "words"])
@pytest.mark.parametrize(("count", "sentence"), [
    (64, "by hand: 58 {} in its training part, more than 64 are needed"),
    (649, "by hand: 64 {} in its test part, more than 64 are needed"),
    (650, None),
])  # fmt: skip
def test_texts_that_are_too_short(unit, count, sentence):
    given = text("a " * count if unit == "words" else "a" * count)
    if sentence is None:
        task = LanguageModel(given, unit)
        assert task.name == unit
        assert math.isfinite(task.score(task.network()))
        return
    with pytest.raises(TaskError) as refused:
        LanguageModel(given, unit)
    assert str(refused.value) == sentence.format(unit)


# ------------------------------------------------------------------------------------------------------------- model


@pytest.mark.parametrize(
    "make",
    [Transformer, GatedRecurrence, lambda size: MixtureOfExperts(size, LENGTH)],
    ids=["transformer", "gru", "experts"],
)
def test_a_later_token_changes_no_earlier_logits(make):
    torch.manual_seed(0)
    model = make(11).eval()
    tokens = torch.randint(11, (1, LENGTH))
    before = model(tokens)
    assert before.shape == (1, LENGTH, 11)
    for place in range(LENGTH):
        changed = tokens.clone()
        changed[0, place] = (tokens[0, place] + 1) % 11
        after = model(changed)
        # equal up to the order of sums: torch may take the rows of a matrix in another order
        torch.testing.assert_close(after[:, :place], before[:, :place], rtol=1e-5, atol=1e-6)
        assert not torch.allclose(after[:, place], before[:, place], atol=1e-3)


@torch.no_grad()
def test_two_experts_of_four_work_on_a_token_by_a_slow_loop():
    torch.manual_seed(0)
    experts = Experts().double()
    x = torch.randn(3, 5, 64, dtype=torch.float64)
    y, imbalance = experts(x)
    chosen_by, shares = [0.0] * 4, [0.0] * 4
    for token, out in zip(x.reshape(-1, 64), y.reshape(-1, 64), strict=True):
        p = (experts.router.weight @ token).softmax(0)
        first, second = sorted(range(4), key=lambda e: -p[e])[:2]
        slow = torch.zeros(64, dtype=torch.float64)
        for e in (first, second):
            hidden = experts.first[e] @ token
            slow += p[e] / (p[first] + p[second]) * (experts.second[e] @ nn.functional.gelu(hidden))
            chosen_by[e] += 1 / 30
        shares = [share + float(one) / 15 for share, one in zip(shares, p, strict=True)]
        torch.testing.assert_close(out, slow)
    assert imbalance.item() == pytest.approx(4 * sum(f * p for f, p in zip(chosen_by, shares, strict=True)))


def test_experts_are_balanced_in_training_alone():
    task = LanguageModel(long_text(), "words", network="experts")
    torch.manual_seed(0)
    model, batch = task.network(), next(task.batches(torch.Generator().manual_seed(0)))
    logits, more = model.with_imbalance(batch.inputs)
    nats = nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
    assert task.loss(model, batch).item() == pytest.approx((nats + more).item(), rel=1e-6)
    assert task.loss(model.eval(), batch).item() == pytest.approx(nats.item(), rel=1e-6)
    assert 0.01 <= more.item() <= 2 * 0.01 * 4  # of two layers, each from 1 to 4; chance may bring it a little below 1


def test_every_layer_and_place_is_drawn_anew():
    torch.manual_seed(0)
    model = Transformer(11)
    first, second = (dict(layer.named_parameters()) for layer in model.layers.layers)
    for name, p in first.items():
        assert torch.equal(p, second[name]) == ("norm" in name or "in_proj_bias" in name)  # ones and zeros
    width = 64
    per_layer = 4 * width * width + 4 * width + 2 * 4 * width * width + 5 * width + 4 * width
    assert sum(p.numel() for p in model.parameters()) == (
        11 * width + LENGTH * width + 2 * per_layer + 2 * width + 11 * width + 11
    )


def long_text():
    return text("".join(f"{n} times {n % 7} is {n * (n % 7)}.\n" for n in range(300)))


def test_windows_are_of_the_text_and_targets_one_further():
    task = LanguageModel(long_text(), "characters")
    tokens = task.train_tokens.tolist()
    places = {tuple(tokens[i : i + LENGTH + 1]) for i in range(len(tokens) - LENGTH)}
    for batch in itertools.islice(task.batches(torch.Generator().manual_seed(0)), 30):
        assert batch.inputs.shape == batch.targets.shape == (16, LENGTH)
        for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
            assert (*inputs, targets[-1]) in places
            assert inputs[1:] == targets[:-1]
    assert task.epoch_steps == math.ceil(len(tokens) / 1024)


def test_windows_begin_anywhere():
    task = LanguageModel(text(" ".join(f"w{n}" for n in range(700))), "words")
    batches = itertools.islice(task.batches(torch.Generator().manual_seed(0)), 600)
    first = {windows[0] for batch in batches for windows in batch.inputs.tolist()}
    assert first == set(task.train_tokens[: 630 - LENGTH].tolist())
    assert len(first) == 630 - LENGTH


class Counting(nn.Module):
    """Logits that depend on the token, and on nothing else; keeps what it has been asked."""

    def __init__(self, vocabulary):
        super().__init__()
        self.logits = torch.randn(vocabulary, vocabulary, generator=torch.Generator().manual_seed(0))
        self.asked = []

    def forward(self, tokens):
        self.asked += tokens.tolist()
        return self.logits[tokens]


@pytest.mark.parametrize("unit", ["characters", "words"])
def test_the_score_is_that_of_a_slow_loop(unit):
    task = LanguageModel(long_text(), unit)
    model = Counting(len(task.vocabulary) + 1).train()
    score = task.score(model)
    assert not model.training
    tokens = task.test_tokens.tolist()
    table = model.logits.double().tolist()
    windows = [tokens[i : i + LENGTH + 1] for i in range(len(tokens) - LENGTH)]
    nats = []
    for asked in model.asked:
        (window,) = {tuple(w) for w in windows if w[:-1] == asked}
        for now, then in itertools.pairwise(window):
            nats.append(math.log(math.fsum(math.exp(z) for z in table[now])) - table[now][then])
    assert score == pytest.approx(math.fsum(nats) / len(nats), rel=1e-6)
    assert model.asked[0] == tokens[:LENGTH]
    assert model.asked[-1] == tokens[-LENGTH - 1 : -1]
    assert len(model.asked) == (len(tokens) - LENGTH - 1) // LENGTH + 1


def test_256_windows_at_most_are_tested_on():
    task = LanguageModel(text("ab" * 100_000), "characters")
    model = Counting(3)
    task.score(model)
    assert len(model.asked) == 256
    assert task.steps == 400


def test_nobody_knows_better_than_the_logarithm_of_what_there_is():
    task = LanguageModel(long_text(), "characters")
    model = Counting(len(task.vocabulary) + 1)
    model.logits.zero_()
    assert task.score(model) == pytest.approx(math.log(len(task.vocabulary) + 1), rel=1e-6)


@pytest.mark.parametrize("network", ["transformer", "gru", "experts"])
def test_a_step_on_lns_weights(network):
    task = LanguageModel(long_text(), "words", network=network)
    torch.manual_seed(0)
    model = task.network()
    optimizer = Recipe().prepare(model, 0)
    assert all(isinstance(p, LNSWeight) for p in model.parameters())
    task.loss(model, next(task.batches(torch.Generator().manual_seed(0)))).backward()
    optimizer.step()
    assert optimizer.step_report().moved > 0.3
    assert task.outputs(model).shape[1:] == (LENGTH, len(task.vocabulary) + 1)


def test_what_the_task_says_of_its_data():
    given = long_text()
    task = LanguageModel(given, "characters")
    count = len(given.content)
    assert task.source == (
        f"by hand: {count - count // 10:,} characters to train on, {count // 10:,} to test on, "
        f"{len(set(given.content))} different ones"
    )
    assert task.fingerprint == given.sha256
    assert task.options == {"network": "transformer"}


def test_the_hash_is_that_of_the_file(tmp_path):
    (tmp_path / "t").write_bytes(b"\xef\xbb\xbfa\r\nb\n")
    text = load_text(tmp_path / "t")
    assert text.content == "a\nb\n"
    assert text.sha256 == hashlib.sha256(b"\xef\xbb\xbfa\r\nb\n").hexdigest()
