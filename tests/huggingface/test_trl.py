"""TRL's SFTTrainer on a toy: all codes are trained, or adapters beside them."""

import pytest
import torch
from tiny_pretrained import VOCABULARY, codes_of, made, transformers

transformers()
pytest.importorskip("trl", reason="trl is not installed")

from datasets import Dataset  # noqa: E402
from peft import LoraConfig  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402

from lnsnum.huggingface import quantize_model  # noqa: E402
from lnsnum.torch_bridge import Madam  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning"),  # TRL's, peft's
]

STEPS = 4


def tokenizer():
    """A word for each number."""
    words = {name: n for n, name in enumerate(["<pad>", "<end>", *(f"w{n}" for n in range(2, VOCABULARY))])}
    by_words = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    by_words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=by_words, pad_token="<pad>", eos_token="<end>")


def trainer_of(model, folder, *, adapters=None):
    texts = [" ".join(f"w{2 + n * k % (VOCABULARY - 2)}" for n in range(10)) for k in range(1, 7)]
    arguments = SFTConfig(
        str(folder),
        max_steps=STEPS,
        save_steps=2,
        logging_steps=1,
        per_device_train_batch_size=2,
        use_cpu=True,
        bf16=False,
        report_to=[],
        disable_tqdm=True,
        **({"learning_rate": 0.05} if adapters else {}),
    )
    return SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict({"text": texts}),
        processing_class=tokenizer(),
        peft_config=adapters,
        optimizers=(None, None) if adapters else (Madam(model.parameters()), None),
    )


def converted(seed=0):
    model = made("Llama", seed)
    quantize_model(model)
    return model


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_all_codes_are_tuned_saved_and_resumed(tmp_path):
    model = converted()
    whole = trainer_of(model, tmp_path)
    whole.train()
    assert len(losses(whole)) == STEPS
    assert losses(whole)[-1] < losses(whole)[0]
    assert codes_of(model) != codes_of(converted())
    assert codes_of(AutoModelForCausalLM.from_pretrained(tmp_path / f"checkpoint-{STEPS}")) == codes_of(model)
    other = converted(seed=7)
    resumed = trainer_of(other, tmp_path)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert codes_of(other) == codes_of(model)
    assert losses(resumed) == losses(whole)


def test_adapters_are_tuned_beside_codes_that_stay(tmp_path):
    trainer = trainer_of(converted(), tmp_path, adapters=LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    trainer.train()
    tuned = trainer.model
    assert sorted(codes_of(tuned).values(), key=str) == sorted(codes_of(converted()).values(), key=str)
    moved = [bool(torch.count_nonzero(p)) for name, p in tuned.named_parameters() if "lora_B" in name]
    assert moved == [True] * 4
