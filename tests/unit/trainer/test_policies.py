"""What the trainer writes for the inference service, read back by transformers and PEFT."""

import os
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from trainer.config import LoraSettings
from trainer.policies import FOLDER_PREFIX, SHARED_MEMORY, drop_left_behind, write_adapter, write_merged
from trainer.sft import halve_frozen_weights, lora_config

PROMPT = torch.tensor([[1, 1, 50, 60, 70]])


@pytest.fixture
def trainer(tiny_llama: Path) -> Any:
    """A trainer's model and accelerator, after an update that moves the model far."""
    from peft import get_peft_model

    base = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    model = get_peft_model(base, lora_config(LoraSettings(rank=2, alpha=4, targets=["q_proj", "v_proj", "down_proj"])))
    halve_frozen_weights(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    return SimpleNamespace(model=model.eval(), accelerator=Accelerator(cpu=True))


def distance(model: PreTrainedModel, other: PreTrainedModel) -> float:
    """Greatest difference of two models' logits."""
    with torch.no_grad():
        return float((model(input_ids=PROMPT).logits.float() - other(input_ids=PROMPT).logits.float()).abs().max())


def test_merged_weights_are_base_plus_adapter(trainer: Any, tiny_llama: Path, tmp_path: Path) -> None:
    write_merged(trainer, AutoTokenizer.from_pretrained(tiny_llama), tmp_path)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert distance(trainer.model, saved) < 0.1 * distance(trainer.model, base)


def test_a_written_adapter_is_the_one_in_training_and_names_its_base(
    trainer: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    write_adapter(trainer, tmp_path)
    base = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    restored = PeftModel.from_pretrained(base, tmp_path)
    halve_frozen_weights(restored)
    assert restored.peft_config["default"].base_model_name_or_path == str(tiny_llama)
    with torch.autocast("cpu", torch.bfloat16):
        assert distance(trainer.model, restored.eval()) == 0


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="no shared memory")
def test_what_a_killed_process_left_in_shared_memory_goes_and_what_others_write_stays() -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    with tempfile.TemporaryDirectory(prefix=f"{FOLDER_PREFIX}{os.getpid()}-", dir=SHARED_MEMORY) as written:
        left = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{ended.pid}-", dir=SHARED_MEMORY))
        (left / "model.safetensors").touch()
        drop_left_behind()
        assert not left.exists()
        assert Path(written).is_dir()
