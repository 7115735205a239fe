"""The command line: what it writes and prints, and one sentence with exit code 2 for bad input."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from command_line import run_command
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from lnsnum import LNSTensor, lns8f5
from lnsnum.tasks import training
from lnsnum.tasks.classification import Classification
from lnsnum.tasks.digits import load_digits
from lnsnum.tasks.registry import TASKS
from lnsnum.torch_bridge import LNSWeight, load_model, save_model
from lnsnum.weight_file import load_metadata, load_weights, save_weights


def lnsnum(*arguments, cwd=None, code=0):
    """Run the command as a process; returns what it printed on stdout and on stderr, each as one line."""
    done = subprocess.run(
        [sys.executable, "-m", "lnsnum.cli", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return " ".join(done.stdout.split()), " ".join(done.stderr.split())


@pytest.fixture
def command(tmp_path, capsys, monkeypatch):
    """The same within this process, in an empty folder; an exception that is not told of in a sentence passes."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, code=0):
        ended, out, error = run_command(capsys, monkeypatch, *arguments)
        assert ended == code, out + error
        return " ".join(out.split()), error

    kept = torch.get_num_threads()
    yield run
    torch.set_num_threads(kept)


def record_of(path):
    """What a weight file says of the run that wrote it."""
    return json.loads(load_metadata(path)["lnsnum.run"])


@pytest.fixture
def image_folder(tmp_path):
    """Two classes of 10 images in color, light and dark."""
    random = np.random.default_rng(0)
    for label, least in (("dark", 0), ("light", 100)):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for n in range(10):
            pixels = random.integers(least, least + 100, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / label / f"{n}.png")
    return "pictures"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One short run with everything switched on."""
    folder = tmp_path_factory.mktemp("cli")
    out, _ = lnsnum("train", "--epochs", 3, "--compare", "--plot", "curves.png", "--out", "w.safetensors", cwd=folder)
    return folder, out


def test_train_reports_accuracy_memory_and_time(trained):
    _, out = trained
    assert "digits of scikit-learn: 1,437 training images, 360 test images" in out
    assert f"data: SHA-256 {Classification(load_digits()).fingerprint}" in out
    assert "the same logits, bit for bit" in out
    assert "│ lns8f5 madam ┃ float32 adam ┃" in out.replace("┃ lns8f5", "│ lns8f5")
    for row in ("test accuracy", "training time", "bytes: peak", "bytes: on disk"):
        assert row in out
    assert "bytes: weights │ 1.00 │ 4.00" in out
    assert "bytes: optimizer state │ 1.05 │ 8.00" in out
    assert "bytes: gradients │ 4.00 │ 4.00" in out


def test_train_writes_a_file_of_one_byte_codes(trained):
    folder, out = trained
    with safe_open(folder / "w.safetensors", "numpy") as file:
        assert file.get_tensor("3.weight.lnsnum_codes").dtype == np.uint8
    weights = load_weights(folder / "w.safetensors")
    assert sum(isinstance(w, LNSTensor) for w in weights.values()) == 14
    record = record_of(folder / "w.safetensors")
    assert load_metadata(folder / "w.safetensors")["lnsnum.task"] == "classification"
    assert (record["run"], record["seed"], record["steps"], record["measure"]) == ("lns8f5 madam", 0, 69, "accuracy")
    assert record["recipe"]["schedule"] == "linear"
    assert f"test accuracy │ {record['score']:.2f} % │" in out
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate_gives_the_accuracy_of_the_run(trained):
    folder, _ = trained
    score = record_of(folder / "w.safetensors")["score"]
    out, _ = lnsnum("evaluate", "w.safetensors", cwd=folder)
    assert f"test accuracy {score:.2f} %; digits of scikit-learn: 1,437 training images, 360 test images" in out
    assert "30890 weights in lns8f5" in out
    task = Classification(load_digits())
    model = load_model(folder / "w.safetensors", task.network())
    assert task.score(model) == score
    assert all(isinstance(p, LNSWeight) for p in model.parameters())


def test_the_default_run_reaches_the_accuracy_that_it_must(tmp_path):
    lnsnum("train", cwd=tmp_path)
    record = record_of(tmp_path / "classification.safetensors")
    assert (record["run"], record["steps"]) == ("lns8f5 madam", 690)
    assert record["score"] >= 97.5


def test_the_same_seed_gives_the_same_file(command, tmp_path):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        command("train", "--steps", 5, "--seed", seed, "--format", "lns8f3", "--out", name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    first, other = (np.asarray(load_weights(name)["0.weight"]) for name in "ac")
    assert not np.array_equal(first, other)


KINDS = "activations=lns8f3,errors=lns8f3"


@pytest.mark.parametrize("more", [[], ["--compare"]], ids=["alone", "compared"])
def test_what_a_run_in_a_datapath_is_compared_with_is_in_float(command, image_folder, more):
    """Float weights have no place in a bit-true sum: the figures of float32 and Adam are those without a datapath."""
    text = f"{KINDS},accumulate=lns12f6"
    out, _ = command("train", "--steps", 1, "--data", image_folder, "--datapath", text, *more)
    assert "lns8f5 madam" in out
    assert "float32 adam" in out
    assert record_of("classification.safetensors")["options"]["datapath"] == text


@pytest.mark.parametrize(
    ("optimizer", "format_"), [("adam", "float32"), ("sgd", "float32"), ("adam", "lns16f10"), ("madam", "float32")]
)
def test_other_optimizers_and_formats_train(command, optimizer, format_):
    out, _ = command("train", "--steps", 3, "--optimizer", optimizer, "--format", format_)
    assert f"{format_} {optimizer}" in out
    assert record_of("classification.safetensors")["recipe"]["format"] == format_


def test_choices_of_the_run_are_in_its_record(command):
    command("train", "--steps", 2, "--lr", 0.01, "--schedule", "cosine", "--momentum", 0.5, "--seed", 9, "--bfloat16")
    record = record_of("classification.safetensors")
    recipe = record["recipe"]
    assert (recipe["lr"], recipe["schedule"], recipe["momentum"], record["seed"]) == (0.01, "cosine", 0.5, 9)
    assert record["options"] == {"network": "cnn", "augment": False, "bfloat16": True, "mirrored": False}


def stop_run(monkeypatch, number):
    """Let Ctrl-C come in the second step of the run of that number."""
    whole, runs = training.train, []

    def stopped(*arguments, **options):
        runs.append(arguments)
        for history in whole(*arguments, **options):
            if len(runs) == number and len(history.loss) == 2:
                raise KeyboardInterrupt
            yield history

    monkeypatch.setattr(training, "train", stopped)


@pytest.mark.parametrize("task", ["regression", "generation"])
def test_outputs_that_are_not_finite_are_a_divergence(command, tmp_path, task):
    (tmp_path / f"{task}.safetensors").write_text("older")
    arguments = ["--format", "float32", "--optimizer", "sgd", "--lr", "1e38", "--steps", 1]
    _, error = command("train", "--task", task, *arguments, code=2)
    assert "the loss was finite to the end, and the outputs are not: try a smaller learning rate" in error
    assert (tmp_path / f"{task}.safetensors").read_text() == "older"
    assert (tmp_path / f"{task}-stopped.safetensors").exists()


def test_who_stops_the_comparison_is_told_of_no_file(command, monkeypatch, tmp_path):
    stop_run(monkeypatch, 2)
    out, _ = command("train", "--steps", 3, "--compare", code=130)
    assert "what was learned" not in out
    assert [path.name for path in tmp_path.iterdir()] == ["classification.safetensors"]


def test_a_stopped_run_can_be_evaluated_on_its_own_data_only(command, monkeypatch, image_folder):
    stop_run(monkeypatch, 1)
    options = ["--network", "resnet18-narrow", "--data", image_folder]
    command("train", "--steps", 3, *options, code=130)
    assert "score" not in record_of("classification-stopped.safetensors")
    command("evaluate", "classification-stopped.safetensors", "--data", image_folder)
    _, error = command("evaluate", "classification-stopped.safetensors", code=2)
    assert "give the same with --data" in error


@pytest.mark.parametrize("device", ["meta", "mps", "hpu", "cuda:99"])
def test_devices_where_nothing_can_be_computed(command, device):
    _, error = command("train", "--device", device, "--steps", 1, code=2)
    assert f"--device {device}: torch cannot compute there" in error
    assert len(error) < 200


@pytest.mark.parametrize(
    "options",
    [{"device": "cpu"}, {"name": "x"}, {"data": "x"}, {"network": "vgg"}, {"network": 3}, {"augment": "x"}, []],
    ids=str,
)
def test_files_with_options_that_the_task_has_not(command, options):
    metadata = {"lnsnum.task": "classification", "lnsnum.run": json.dumps({"options": options})}
    save_model("w", torch.nn.Linear(1, 1), metadata=metadata)
    command("evaluate", "w", code=2)


def test_version():
    out, _ = lnsnum("--version")
    assert out.startswith("lnsnum 0.")


# ------------------------------------------------------------------------------------------------------ tasks and data


@pytest.mark.parametrize("task", TASKS)
def test_each_task_trains_and_evaluate_gives_the_same_score(command, task):
    out, _ = command("train", "--task", task, "--steps", 2)
    assert f"saved to {task}.safetensors; a fresh model loaded from it gives the same " in out
    record = record_of(f"{task}.safetensors")
    measure = TASKS[task].measure
    assert (load_metadata(f"{task}.safetensors")["lnsnum.task"], record["measure"]) == (task, measure.name)
    out, _ = command("evaluate", f"{task}.safetensors")
    assert f"test {measure.name} {measure.text(record['score'])}; " in out


def test_epochs_are_of_the_training_data(command, tmp_path):
    (tmp_path / "t.txt").write_text("a few words. " * 300)
    command("train", "--task", "characters", "--data", "t.txt", "--epochs", 2)
    assert record_of("characters.safetensors")["steps"] == 2 * 4  # of 3,510 characters, 16 * 64 a step


@pytest.mark.parametrize("task", ["characters", "words"])
def test_a_text_file(command, tmp_path, task):
    (tmp_path / "t.txt").write_text("so much depends upon a red wheel barrow " * 100)
    out, _ = command("train", "--task", task, "--data", "t.txt", "--steps", 2)
    assert "t.txt: " in out
    score = TASKS[task].measure.text(record_of(f"{task}.safetensors")["score"])
    out, _ = command("evaluate", f"{task}.safetensors", "--data", "t.txt")
    assert f"test loss {score}; t.txt: " in out


def test_an_image_file(command):
    Image.linear_gradient("L").save("gray.png")
    command("train", "--task", "regression", "--data", "gray.png", "--steps", 2)
    score = record_of("regression.safetensors")["score"]
    out, _ = command("evaluate", "regression.safetensors", "--data", "gray.png")
    assert f"test error {score:.3f} levels; gray.png, 128 x 128 pixels" in out


@pytest.mark.parametrize("options", [[], ["--network", "resnet18-narrow", "--augment"], ["--network", "resnet18"]])
def test_an_image_folder(command, image_folder, options):
    command("train", "--data", image_folder, "--steps", 2, *options)
    record = record_of("classification.safetensors")
    assert record["options"]["augment"] == ("--augment" in options)
    out, _ = command("evaluate", "classification.safetensors", "--data", image_folder)
    assert f"test accuracy {record['score']:.2f} %; image folder pictures: 16 training images, 4 test images" in out


def test_images_are_drawn_from_an_image_folder(command, image_folder):
    command("train", "--task", "generation", "--data", image_folder, "--steps", 2)
    score = record_of("generation.safetensors")["score"]
    out, _ = command("evaluate", "generation.safetensors", "--data", image_folder)
    assert f"test Fréchet distance {score:.3f}; image folder pictures" in out


def test_evaluate_refuses_other_data(command, image_folder):
    command("train", "--data", image_folder, "--steps", 1)
    record = record_of("classification.safetensors")
    digits = Classification(load_digits())
    _, error = command("evaluate", "classification.safetensors", code=2)
    assert error == (
        f"error: classification.safetensors was trained on data of SHA-256 {record['data']}, and {digits.source} is of "
        f"{digits.fingerprint}: give the same with --data"
    )


def test_files_of_the_former_name_of_the_task(command):
    task = Classification(load_digits())
    torch.manual_seed(0)
    model = task.network()
    score = task.score(model)
    former = {"run": "lns8f5 madam", "epochs": 30, "seed": 0, "test_accuracy": 0.99, "lnsnum": "0.4.0"}
    for metadata in ({}, {"lnsnum.run": json.dumps(former)}):
        save_model("old", model, metadata={"lnsnum.task": "digits", **metadata})
        out, _ = command("evaluate", "old")
        assert f"test accuracy {score:.2f} %; digits of scikit-learn" in out


# ------------------------------------------------------------------------------------------------ runs that are stopped


def test_a_loss_that_explodes_leaves_what_was_learned_and_an_older_file_as_it_was(command, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"older")
    arguments = ["--optimizer", "sgd", "--lr", "1e9", "--format", "float32", "--out", "w.safetensors"]
    out, error = command("train", *arguments, code=2)
    assert error.startswith("error: the loss is ")
    assert error.endswith(
        " of 690: try a smaller learning rate; what was learned until then is in w-stopped.safetensors"
    )
    assert "saved to" not in out
    assert (tmp_path / "w.safetensors").read_bytes() == b"older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w-stopped.safetensors", "w.safetensors"]
    assert load_metadata("w-stopped.safetensors")["lnsnum.task"] == "classification"
    assert "0.weight" in load_weights("w-stopped.safetensors")


def test_who_stops_a_run_keeps_what_was_learned(command, tmp_path, monkeypatch):
    whole = training.train

    def stopped(*arguments, **options):
        steps = whole(*arguments, **options)
        yield next(steps)
        yield next(steps)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", stopped)
    (tmp_path / "w.safetensors").write_bytes(b"older")
    out, _ = command("train", "--out", "w.safetensors", code=130)
    assert "stopped; what was learned until then is in w-stopped.safetensors" in out
    assert (tmp_path / "w.safetensors").read_bytes() == b"older"
    out, _ = command("evaluate", "w-stopped.safetensors")
    assert "30890 weights in lns8f5 test accuracy" in out


# ------------------------------------------------------------------------------------------------------------ bad input

BAD_TRAINING = {
    "format that does not fit": (["--format", "lns8f9"], "--format: fraction_bits=9 does not fit bits=8: 0 to 6"),
    "format that is no name": (["--format", "int9"], "--format: 'int9' is no format name"),
    "format too wide": (["--format", "lns32f23"], "--format lns32f23: at most 16 bits can be trained"),
    "no folder": (["--out", "nowhere/w.safetensors"], "--out nowhere/w.safetensors: there is no folder"),
    "out is a folder": (["--out", "."], "--out . cannot be written"),
    "kind of plot": (["--plot", "p.xyz"], "--plot p.xyz: the ending is none of"),
    "infinite lr": (["--lr", "inf"], "--lr inf is no learning rate"),
    "NaN for lr": (["--lr", "nan"], "--lr"),
    "negative lr": (["--lr", "-1"], "--lr"),
    "momentum": (["--momentum", "1"], "--momentum"),
    "seed too large": (["--seed", str(2**63)], "--seed"),
    "base too fine": (["--format", "lns8f5b0x1.0000000000001p+0"], "no scale fits"),
    "one file for both": (["--out", "x.png", "--plot", "x.png"], "--plot and --out are the same file: x.png"),
    "out is a device": (["--out", "/dev/null"], "--out /dev/null cannot be written"),
    "no epochs": (["--epochs", "0"], "--epochs"),
    "format of a rival": (
        ["--format", "int8"],
        "error: --format int8 does not go with madam: give an LNS format or float32",
    ),
    "no steps": (["--steps", "0"], "--steps"),
    "epochs and steps": (
        ["--epochs", "1", "--steps", "1"],
        "error: --epochs and --steps are two ways to say how long: give one of them",
    ),
    "unknown optimizer": (["--optimizer", "lion"], "--optimizer"),
    "unknown schedule": (["--schedule", "step"], "--schedule"),
    "unknown network": (["--network", "vgg"], "--network"),
    "unknown task": (["--task", "chess"], "'classification'"),
    "unknown device": (["--device", "abacus"], "--device abacus: torch cannot compute there: Expected one of cpu"),
    "no device": (["--device", ""], "error: --device : torch cannot compute there: Device string must not be empty"),
    "network of a task without": (
        ["--task", "regression", "--network", "cnn"], "error: the task regression has no option 'network'",
    ),
    "network of another task": (
        ["--task", "words", "--network", "cnn"],
        "error: there is no network 'cnn' of words: transformer, gru, experts",
    ),
    "augment of a task without": (
        ["--task", "regression", "--augment"], "error: the task regression has no option 'augment'",
    ),
    "bfloat16 of a task without": (
        ["--task", "copying", "--bfloat16"], "error: the task copying has no option 'bfloat16'",
    ),
    "data of a task without": (
        ["--task", "copying", "--data", "."], "error: the task copying takes no data: it draws its own",
    ),
    "a datapath of floats": (
        ["--datapath", "accumulate=lns12f6"], "adds products of codes, and activations are floats: give",
    ),
    "a datapath without errors": (
        ["--datapath", "activations=lns8f3,accumulate=lns12f6"], "and errors are floats: give errors a format",
    ),
    "a datapath of float weights": (
        ["--datapath", f"{KINDS},accumulate=lns12f6", "--format", "float32", "--optimizer", "adam"],
        "and weights are floats: give weights a format",
    ),
    "a datapath narrower than the weights": (
        ["--datapath", f"{KINDS},accumulate=lns8f3"], "the accumulator lns8f3 is narrower than weights of lns8f5: take",
    ),
    "a datapath that draws its weights": (
        ["--datapath", "weights=lns8f3/stochastic_log"], "weights of lns8f5 cannot become lns8f3 at random: give",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_TRAINING)
def test_bad_input_to_train(case, command, tmp_path):
    arguments, sentence = BAD_TRAINING[case]
    _, error = command("train", *arguments, code=2)
    assert sentence in error
    assert list(tmp_path.iterdir()) == []


def test_bad_input_ends_a_process_with_2(tmp_path):
    _, error = lnsnum("train", "--data", "nowhere", cwd=tmp_path, code=2)
    assert error.startswith("error: nowhere: there is no such file or folder: give CIFAR-10 ")


def gray(path, width, height):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (width, height)).save(path)


def two_classes(folder, *sizes):
    for n, size in enumerate(sizes):
        for label in "ab":
            gray(folder / label / f"{n}.png", *size)


BAD_DATA = {
    "missing folder": (
        "classification", lambda path: None, "data: there is no such file or folder: give CIFAR-10 or CIFAR-100",
    ),
    "empty folder": ("classification", lambda path: path.mkdir(), "data: no image set is recognised here"),
    "no archive": (
        "classification", lambda path: path.write_text("text"), "data: no image set is recognised here",
    ),
    "one class only": (
        "classification", lambda path: [gray(path / "a" / f"{n}.png", 8, 8) for n in range(5)],
        "data: has images of one class only, 'a': two are needed at least",
    ),
    "too few of a class": (
        "classification", lambda path: two_classes(path, *[(8, 8)] * 4), "data: 'a' has 4 images, too few",
    ),
    "an image of another size": (
        "classification", lambda path: two_classes(path, *[(8, 8)] * 4, (8, 9)),
        "data: 'a/4.png' is of 8 x 9 pixels, and the images before it of 8 x 8",
    ),
    "images too small": (
        "classification", lambda path: two_classes(path, *[(8, 3)] * 5),
        "image folder data: images of 8 x 3 pixels; at least 4 x 4",
    ),
    "images of no power of 2": (
        "generation", lambda path: two_classes(path, *[(12, 12)] * 5),
        "image folder data: images of 12 x 12 pixels; squares of 8, 16, 32, ... are needed",
    ),
    "missing text": ("characters", lambda path: None, "data: there is no such file"),
    "empty text": ("characters", lambda path: path.touch(), "data is empty: there is nothing to learn from"),
    "no UTF-8": (
        "words", lambda path: path.write_bytes(b"\xff\xfea\0"),
        "data is no text in UTF-8: byte 0 is invalid start byte",
    ),
    "text too short": (
        "words", lambda path: path.write_text("one two three"),
        "data: 3 words in its training part, more than 64 are needed",
    ),
    "test part too short": (
        "characters", lambda path: path.write_text("a" * 649),
        "data: 64 characters in its test part, more than 64 are needed",
    ),
    "folder for a text": ("words", lambda path: path.mkdir(), "data is a folder: give a plain text file"),
    "missing image": ("regression", lambda path: None, "data: there is no such file"),
    "image too small": (
        "regression", lambda path: Image.new("L", (127, 128)).save(path, "PNG"),
        "data is of 127 x 128 pixels: at least 128 x 128 are needed",
    ),
    "no image": ("regression", lambda path: path.write_text("text"), "data cannot be decoded as an image"),
    "folder for an image": ("regression", lambda path: path.mkdir(), "data is a folder: give an image"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_DATA)
def test_data_that_no_task_can_take(case, command, tmp_path):
    task, make, sentence = BAD_DATA[case]
    make(tmp_path / "data")
    before = sorted(tmp_path.iterdir())
    out, error = command("train", "--task", task, "--data", "data", code=2)
    assert out == ""
    assert error.startswith(f"error: {sentence}")
    assert sorted(tmp_path.iterdir()) == before


def test_bad_input_to_evaluate(command, tmp_path):
    save_weights(tmp_path / "untasked", {"w": LNSTensor.from_float([1.0], lns8f5)})
    save_weights(tmp_path / "task", {}, metadata={"lnsnum.task": "chess"})
    save_weights(tmp_path / "model", {}, metadata={"lnsnum.task": "digits"})
    save_file({"w": np.zeros(3, np.float32)}, tmp_path / "foreign")
    torch.manual_seed(0)
    save_model(tmp_path / "whole", Classification(load_digits()).network(), metadata={"lnsnum.task": "classification"})
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:-1])
    (tmp_path / "empty").touch()
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "layout").write_bytes(whole.replace(b'\\"layout\\": 3', b'\\"layout\\": 7'))
    wide = {name: np.asarray(w) for name, w in load_weights(tmp_path / "whole").items()}
    wide["0.weight"] = LNSTensor(np.full(wide["0.weight"].shape, 5, np.uint32), "lns32f23")
    (tmp_path / "[").mkdir()
    save_weights(tmp_path / "[/wide]", wide, metadata={"lnsnum.task": "digits"})
    for number, record in enumerate(("no JSON", "[]", '{"options": 3}')):
        save_weights(tmp_path / f"record{number}", {}, metadata={"lnsnum.task": "classification", "lnsnum.run": record})
    options = {"lnsnum.task": "regression", "lnsnum.run": json.dumps({"options": {"network": "cnn"}})}
    save_weights(tmp_path / "options", {}, metadata=options)
    for name, sentence in {
        "nothing": "nothing: there is no such file",
        "empty": "empty is damaged or no safetensors file",
        "cut": "cut is damaged or no safetensors file",
        "foreign": "a safetensors file, but no LNS weight file",
        "untasked": "untasked names no task: it was not written by lnsnum train",
        "layout": "layout version 7 is unknown: this reader knows 1 to 3",
        "[/wide]": "[/wide]: '0.weight' is of lns32f23: at most 16 bits can be loaded",
        "task": "is for the task 'chess', which this version does not know",
        "model": "is for another model: it lacks '0.bias'",
        "record0": "record0: its entry lnsnum.run is not what lnsnum train writes",
        "record1": "record1: its entry lnsnum.run is not what lnsnum train writes",
        "record2": "record2: its entry lnsnum.run is not what lnsnum train writes",
        "options": "options: its entry lnsnum.run has an option 'network', which regression has not",
        ".": "is a folder, not a weight file",
    }.items():
        _, error = command("evaluate", name, code=2)
        assert sentence in error, error
        assert error.startswith("error: ")


# ----------------------------------------------------------------------------------------- where the output goes


@pytest.fixture
def named(tmp_path):
    """A weight file with a name that few encodings have."""
    save_weights(tmp_path / "w", {"\u91cd\u307f": LNSTensor.from_float([[1.0, 2.0]], lns8f5)})
    save_file({"\u91cd\u307f": np.ones((2, 2), np.float32)}, tmp_path / "floats")
    return tmp_path


@pytest.mark.parametrize(
    "encoding", ["ascii", *(pytest.param(e, marks=pytest.mark.thorough) for e in ("latin-1", "utf-8"))]
)
def test_letters_that_the_terminal_lacks_are_escaped(named, encoding):
    for arguments in (
        ["convert", "floats", "out.safetensors", "--format", "lns8f5"],
        ["inspect", "w", "--histogram"],
        ["diff", "w", "w"],
        ["export", "w", "--to", "npy", "--out", "folder"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "lnsnum.cli", *arguments],
            cwd=named, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b"")
        assert ("\u91cd\u307f" in done.stdout.decode(encoding)) == (encoding == "utf-8" and arguments[0] != "diff")


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_closed_pipe_is_no_difference_and_no_problem(named):
    for command in (["diff", "w", "w"], ["verify", "w"], ["inspect", "w"]):
        with subprocess.Popen(
            [sys.executable, "-m", "lnsnum.cli", *command, "--json"],
            cwd=named, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            process.stdout.close()
            complaints = process.stderr.read()
        assert (process.wait(), complaints) == (141, b"")


def test_without_its_libraries_the_command_line_ends_with_2():
    code = "import sys; sys.modules['rich'] = None; from lnsnum.cli import main"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the command line needs rich: pip install 'lnsnum[cli]'\n"


@pytest.mark.skipif(os.name == "nt", reason="names of POSIX")
def test_paths_are_whole_in_json(tmp_path):
    name = "two\nlines\x1b[31m"
    save_weights(tmp_path / name, {})
    for arguments, key in ((["inspect", name], "file"), (["diff", name, name], "a"), (["verify", name], "files")):
        done = subprocess.run(
            [sys.executable, "-m", "lnsnum.cli", *arguments, "--json"],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        found = json.loads(done.stdout)[key]
        assert (found[0]["file"] if key == "files" else found) == name


@pytest.mark.parametrize(("words", "found"), [("lnsnum ins", "inspect"), ("lnsnum train --ta", "--task")])
def test_shells_complete_commands_and_options(words, found):
    """As bash asks, by the script that --show-completion prints."""
    asked = {"_LNSNUM_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    code = "import sys; sys.argv[0] = 'lnsnum'; from lnsnum.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **asked})
    assert done.stdout.split() == [found]
