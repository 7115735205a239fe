"""A run that is cut and resumed ends in the same codes as one that is not; a file that is none of a run is refused."""

import json

import pytest
import torch
from torch import nn

from lnsnum.tasks import TaskError
from lnsnum.tasks.recipe import Recipe
from lnsnum.tasks.registry import TASKS, make_task
from lnsnum.tasks.resume import load_run, read_arguments, save_run
from lnsnum.tasks.training import start, train
from lnsnum.torch_bridge import LNSWeight, save_model
from lnsnum.weight_file import load_metadata, load_weights, save_weights

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tasks():
    """Each task with its default data, made once; an epoch is three steps, where it is any number of them."""
    made = {name: make_task(name) for name in TASKS}
    for name in TASKS:
        if name != "classification":
            made[name].epoch_steps = 3
    return made


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A classification in color (its memory is channels_last), four steps an epoch, in batches that are moved."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    random = torch.Generator().manual_seed(0)
    for label in "ab":
        (folder / label).mkdir()
        for n in range(150):
            pixels = torch.randint(256, (8, 8, 3), dtype=torch.uint8, generator=random).numpy()
            Image.fromarray(pixels).save(folder / label / f"{n}.png")
    return make_task("classification", folder, augment=True)


def content(model):
    """Codes and scales, or floats, of all parameters and buffers, as they are after a run."""
    parts = []
    for tensor in (*model.parameters(), *model.buffers()):
        if isinstance(tensor, LNSWeight):
            parts += [tensor.detach().codes.clone(), torch.as_tensor(tensor.log_offset).clone()]
        else:
            parts.append(tensor.detach().clone())
    return parts


def whole(task, recipe, steps, seed=3):
    model, optimizer = start(task, recipe, seed)
    *_, history = train(task, model, optimizer, recipe, steps=steps, seed=seed)
    return content(model), history


def cut_and_resumed(path, task, recipe, steps, cuts, seed=3):
    model, optimizer = start(task, recipe, seed)
    history = None
    for cut in cuts:
        running = train(task, model, optimizer, recipe, steps=steps, seed=seed, history=history)
        for _ in range(cut):
            history = next(running)
        save_run(path, model, optimizer, history, {})
        torch.randn(7)  # another process begins elsewhere
        model, optimizer, history = load_run(path, task, recipe, seed)
    for grown in train(task, model, optimizer, recipe, steps=steps, seed=seed, history=history):
        history = grown
    return content(model), history


def check_same(first, second):
    assert all(map(torch.equal, first[0], second[0]))
    assert (first[1].loss, first[1].moved) == (second[1].loss, second[1].moved)


RECIPES = [
    Recipe(),
    Recipe(momentum=0.5, schedule="cosine"),
    Recipe("lns8f3", second_moment="float32", parameters="matrices"),
    Recipe("lns8f3", second_moment="float32", parameters="matrices", rule="paper", zeros="leave"),
    Recipe("float32"),
    Recipe("lns16f10", "adam"),
    Recipe("float32", "sgd", schedule="constant"),
]


@pytest.mark.parametrize("name", TASKS)
def test_every_task_goes_on_code_for_code(tasks, tmp_path, name):
    steps = 3 if name == "copying" else 5
    check_same(whole(tasks[name], Recipe(), steps), cut_and_resumed(tmp_path / "r", tasks[name], Recipe(), steps, [2]))


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_every_optimizer_goes_on_code_for_code(tasks, tmp_path, recipe):
    """The network has dropout, which draws from torch's own generator."""
    task = tasks["classification"]
    check_same(whole(task, recipe, 4), cut_and_resumed(tmp_path / "r", task, recipe, 4, [2]))


def test_a_datapath_goes_on_code_for_code(tmp_path):
    """Its running maxima are in the file, and its draws are those of the step."""
    text = "activations=lns8f3/running,errors=lns8f3/running/stochastic_value,gradients=lns8f3"
    task, path = make_task("classification", datapath=text), tmp_path / "r"
    check_same(whole(task, Recipe(), 4), cut_and_resumed(path, task, Recipe(), 4, [3]))
    metadata = load_metadata(path)
    rest = json.loads(metadata["lnsnum.optimizer"])
    state = rest.pop("datapath")
    assert state["step"] == 4
    assert {kind for _, kind, *_ in state["peaks"]} == {"activations", "errors"}
    save_weights(path, load_weights(path), metadata={**metadata, "lnsnum.optimizer": json.dumps(rest)})
    with pytest.raises(TaskError, match=r"its entry lnsnum\.optimizer is not what lnsnum train writes"):
        load_run(path, task, Recipe(), 3)


@pytest.mark.parametrize("cuts", [[1], [3], [4], [5], [8], [9], [2, 2, 3], [10]], ids=str)
def test_wherever_in_an_epoch_it_is_cut(pictures, tmp_path, cuts):
    """Epochs are of four steps, and each has an order of its own."""
    assert pictures.epoch_steps == 4
    check_same(whole(pictures, Recipe(), 10), cut_and_resumed(tmp_path / "r", pictures, Recipe(), 10, cuts))


@pytest.fixture
def saved(tasks, tmp_path):
    task, recipe = tasks["regression"], Recipe()
    model, optimizer = start(task, recipe, 0)
    history = next(train(task, model, optimizer, recipe, steps=9, seed=0))
    save_run(tmp_path / "r", model, optimizer, history, {"a": [1, "ü"]})
    return tmp_path / "r"


def test_the_file_is_a_weight_file(saved):
    assert read_arguments(saved) == {"a": [1, "ü"]}
    names = load_weights(saved).keys()
    assert {name.split(".")[0] for name in names} == {"model", "optimizer", "history", "random"}


DEEP = "[" * 100_000
BROKEN = {
    "no JSON": "{",
    "deep": DEEP,
    "a list": "[]",
    "nothing": "{}",
    "no groups": '{"state": {}}',
    "a state that is a list": '{"state": [], "param_groups": []}',
    "a number that is a word": '{"state": {"a": {}}, "param_groups": []}',
    "groups that are numbers": '{"state": {"0": {}}, "param_groups": [3]}',
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_state_is_refused(tasks, saved, case):
    metadata = {**load_metadata(saved), "lnsnum.optimizer": BROKEN[case]}
    save_weights(saved, load_weights(saved), metadata=metadata)
    with pytest.raises(TaskError, match=r"r: its entry lnsnum\.optimizer is not what lnsnum train writes"):
        load_run(saved, tasks["regression"], Recipe(), 0)


def test_what_is_no_run_is_refused(tasks, tmp_path, saved):
    save_model(tmp_path / "m", nn.Linear(1, 1), metadata={"lnsnum.task": "regression"})
    for function in (read_arguments, lambda path: load_run(path, tasks["regression"], Recipe(), 0)):
        with pytest.raises(TaskError, match=r"m is no run that can be resumed: lnsnum train writes NAME-resume"):
            function(tmp_path / "m")
    metadata, weights = load_metadata(saved), load_weights(saved)
    for name in ("random.torch", "history.loss", "optimizer.0.step"):
        less = {key: value for key, value in weights.items() if key != name}
        save_weights(tmp_path / "less", less, metadata=metadata)
        with pytest.raises(TaskError, match="is not what lnsnum train writes"):
            load_run(tmp_path / "less", tasks["regression"], Recipe(), 0)
    for name in ("else", "random", "random.", "random.torch.x", "optimizer..step", "optimizer.x.step"):
        save_weights(tmp_path / "more", weights | {name: weights["random.torch"]}, metadata=metadata)
        with pytest.raises(TaskError, match=f"its entry {name} is not"):
            load_run(tmp_path / "more", tasks["regression"], Recipe(), 0)
    save_weights(tmp_path / "more", weights | {"optimizer.99.step": weights["random.torch"]}, metadata=metadata)
    with pytest.raises(TaskError, match="is not what lnsnum train writes"):
        load_run(tmp_path / "more", tasks["regression"], Recipe(), 0)
    save_weights(tmp_path / "deep", {}, metadata={"lnsnum.resume": json.dumps(3)})
    with pytest.raises(TaskError, match=r"its entry lnsnum\.resume is not"):
        read_arguments(tmp_path / "deep")
