"""The policy in training, brought into the inference service."""

import shutil
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from qmd_rpc.inference import InferenceClient

SHARED_MEMORY = Path("/dev/shm")


def push_policy(client: InferenceClient, version: str, trainer: Any, tokenizer: Any) -> None:
    """Returns when the policy answers as `version`, whether the service takes adapters or merged weights."""
    with _policy_folder(trainer.model) as name:
        folder = Path(name)
        if client.policy_kind() == "adapter":
            write_adapter(trainer, folder)
        else:
            write_merged(trainer, tokenizer, folder)
        client.load_policy(version, folder)


def write_adapter(trainer: Any, folder: Path) -> None:
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(folder)


def write_merged(trainer: Any, tokenizer: Any, folder: Path) -> None:
    """Saves base plus adapter as a plain bf16 model folder; the model in training stays as it is."""
    import torch
    from peft.tuners.lora import LoraLayer

    base = trainer.accelerator.unwrap_model(trainer.model).get_base_model()
    tied = base.config.tie_word_embeddings
    weights = {
        name.replace(".base_layer", ""): tensor
        for name, tensor in base.state_dict().items()
        if "lora_" not in name and not (tied and name.startswith("lm_head."))
    }
    with torch.no_grad():
        for name, layer in base.named_modules():
            if isinstance(layer, LoraLayer):
                weights[f"{name}.weight"] = layer.base_layer.weight.float() + layer.get_delta_weight("default")
    base.save_pretrained(folder, state_dict={name: tensor.to(torch.bfloat16) for name, tensor in weights.items()})
    tokenizer.save_pretrained(folder)


def _policy_folder(model: Any) -> AbstractContextManager[str]:
    """A temporary folder, in shared memory where twice the size of merged weights is free."""
    size = 2 * sum(parameter.numel() for parameter in model.parameters())
    roomy = SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > 2 * size
    return tempfile.TemporaryDirectory(prefix="qmd-policy-", dir=SHARED_MEMORY if roomy else None)
