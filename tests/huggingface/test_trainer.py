"""transformers' own Trainer on codes: no subclass, its own checkpoints, and resumed code for code."""

import json
import os
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from processes import everywhere
from tiny_pretrained import TINY, codes_of, made, training_arguments, transformers

transformers()

from transformers import AutoConfig, Trainer  # noqa: E402

from lnsnum.files.run_log import RunLog, read_log  # noqa: E402
from lnsnum.huggingface import LNSConfig, MonitorCallback, quantize_model  # noqa: E402
from lnsnum.torch_bridge import LNSWeight, Madam  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def trainer_of(model, name, folder, steps, *, madam=None, judged=None, **settings):
    """A Trainer; two rows are a batch, and it shuffles them."""
    arguments = training_arguments(folder, steps, logging_steps=1, **settings)
    how = {"optimizer_cls_and_kwargs": madam} if madam else {"optimizers": (Madam(model.parameters()), None)}
    return Trainer(model=model, args=arguments, train_dataset=TINY[name].rows(), eval_dataset=judged, **how)


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(
    "name", [name if name == "GPT-2" else pytest.param(name, marks=pytest.mark.thorough) for name in TINY]
)
def test_from_a_float_folder_to_a_resumed_training_and_to_its_tokens(name, tmp_path):
    """Trained from the folder, resumed from the middle of an epoch in another model, loaded from its checkpoint, and
    the tokens that it generates are those of the decoded model."""
    steps = 20
    made(name).save_pretrained(tmp_path / "floats")
    kind = type(made(name))
    model = kind.from_pretrained(tmp_path / "floats", quantization_config=LNSConfig())
    before = codes_of(model)
    whole = trainer_of(model, name, tmp_path, steps, save_strategy="steps", save_steps=steps // 4)
    whole.train()
    assert codes_of(model) != before
    other = made(name, seed=7)
    quantize_model(other)
    resumed = trainer_of(other, name, tmp_path / "other", steps, save_strategy="no")
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{steps // 4}"))
    assert codes_of(other) == codes_of(model)
    assert losses(resumed) == losses(whole)
    saved = kind.from_pretrained(tmp_path / f"checkpoint-{steps}")
    assert codes_of(saved) == codes_of(model)
    assert all(isinstance(p, LNSWeight) for p in saved.parameters())
    if TINY[name].generates:
        prompt = {"input_ids": TINY[name].batch()["input_ids"][:, :4], "max_new_tokens": 8, "do_sample": False}
        tokens = saved.generate(**prompt)
        assert torch.equal(tokens, saved.dequantize().generate(**prompt))
        assert tokens.shape[1] > 4


def test_madam_by_its_class_evaluates_and_goes_back_to_the_best(tmp_path):
    """`optimizer_cls_and_kwargs` makes it of Trainer's groups; the best checkpoint is loaded at the end."""
    model = made("Llama")
    quantize_model(model)
    trainer = trainer_of(
        model,
        "Llama",
        tmp_path,
        6,
        madam=(Madam, {"lr": 0.05, "seed": 3}),
        judged=TINY["Llama"].rows()[:2],
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=True,  # the first one, for the loss falls
        weight_decay=0.01,
    )
    trainer.train()
    assert isinstance(getattr(trainer.optimizer, "optimizer", trainer.optimizer), Madam)
    assert [group["weight_decay"] for group in trainer.optimizer.param_groups] == [0.01, 0.0]
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    assert codes_of(model) == codes_of(type(model).from_pretrained(tmp_path / "checkpoint-2"))


def test_a_run_is_watched_by_a_callback(tmp_path):
    """Its log has what Trainer logs, and goes on where the run is resumed."""
    log = tmp_path / "run.jsonl"
    settings = {"save_strategy": "steps", "save_steps": 2}
    for first, steps in ((0, 3), (2, 5)):
        model = made("Llama")
        quantize_model(model)
        trainer = trainer_of(model, "Llama", tmp_path, steps, **settings)
        trainer.add_callback(MonitorCallback(log, histogram_of=model, histogram_every=2))
        trainer.args.logging_steps = 1
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2") if first else None)
        lines = read_log(log)
        assert [line["step"] for line in lines] == list(range(1, steps + 1))
        logged = [entry for entry in trainer.state.log_history if "loss" in entry]
        assert [line["loss"] for line in lines[first:]] == [entry["loss"] for entry in logged[first:]]
        assert [line["lr"] for line in lines[first:]] == [entry["learning_rate"] for entry in logged[first:]]
        assert all(0 < line["moved"] <= 1 for line in lines)
        assert ["histograms" in line for line in lines] == [n % 2 == 0 for n in range(1, steps + 1)]


def test_a_log_that_cannot_be_written_does_not_end_the_run(tmp_path, monkeypatch):
    def full(log, line):
        raise OSError(28, "No space left on device")

    model = made("Llama")
    quantize_model(model)
    trainer = trainer_of(model, "Llama", tmp_path, 2, save_strategy="no")
    trainer.add_callback(MonitorCallback(tmp_path / "run.jsonl"))
    monkeypatch.setattr(RunLog, "write", full)
    with pytest.warns(UserWarning, match="the log ends before step 1, and training goes on: .*No space left"):
        trainer.train()
    assert trainer.state.global_step == 2


def test_of_several_processes_the_first_writes_the_log(tmp_path):
    callback = MonitorCallback(tmp_path / "run.jsonl")
    control = SimpleNamespace(should_log=False)
    for is_first in (False, True):
        state = SimpleNamespace(is_world_process_zero=is_first, global_step=0)
        callback.on_train_begin(None, state, control)
        callback.on_step_end(None, state, control)
        callback.on_train_end(None, state, control)
        assert (tmp_path / "run.jsonl").exists() == is_first
    assert [line["step"] for line in read_log(tmp_path / "run.jsonl")] == [1]


def test_a_checkpoint_of_another_model_stops_the_run(tmp_path):
    """It would be a warning, and a training that goes on with weights that nobody has trained."""
    model = made("Llama")
    quantize_model(model)
    trainer_of(model, "Llama", tmp_path, 1, save_strategy="steps", save_steps=1).train()
    checkpoint = str(tmp_path / "checkpoint-1")
    deeper = AutoConfig.from_pretrained(checkpoint, num_hidden_layers=3)
    del deeper.quantization_config
    other = type(model)(deeper)
    quantize_model(other)
    with pytest.raises(RuntimeError, match=r"lacks 9 of the model's 30 parameters \('model\.layers\.2\."):
        trainer_of(other, "Llama", tmp_path, 2).train(resume_from_checkpoint=checkpoint)
    narrow = made("Llama")
    quantize_model(narrow, LNSConfig("lns8f4"))
    with pytest.raises(ValueError, match=r"as lns8f5, and the model as lns8f4"):
        trainer_of(narrow, "Llama", tmp_path, 2).train(resume_from_checkpoint=checkpoint)
    floats = made("Llama", seed=1)
    with pytest.raises(ValueError, match="the state of parameter 0 is not for a float parameter"):
        trainer_of(floats, "Llama", tmp_path, 2).train(resume_from_checkpoint=checkpoint)
    assert json.loads((tmp_path / "checkpoint-1" / "config.json").read_text())["quantization_config"] == {
        "format": "lns8f5",
        "group_size": None,
        "modules_to_not_convert": None,
        "p_scale": 3.0,
        "per_channel": False,
        "quant_method": "lns",
        "scale": "rms",
    }


def trained_together(rank, folder):
    """Two processes as torchrun starts them; and one that resumes from the checkpoint in the middle."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}  # asked for, and not used: there is a group
    found = []
    for seed, settings in ((0, {"save_steps": 2}), (7, {"save_strategy": "no"})):
        model = made("Llama", seed=seed)
        quantize_model(model)
        trainer = trainer_of(model, "Llama", folder, 4, **settings)
        trainer.train(resume_from_checkpoint=str(folder / "checkpoint-2") if seed else None)
        found.append((codes_of(model), type(trainer.model_wrapped).__name__, losses(trainer)))
    return found


@pytest.mark.distributed
@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch was built without gloo")
def test_two_processes_have_the_same_codes_and_resume_code_for_code(tmp_path):
    first, second = everywhere(2, trained_together, tmp_path, tmp_path / "run")
    assert first == second
    (codes, wrapper, told), resumed = first
    assert wrapper == "DistributedDataParallel"
    assert resumed == (codes, wrapper, told)
    assert len(told) == 4
    model = made("Llama")
    quantize_model(model)
    assert codes != codes_of(model)
