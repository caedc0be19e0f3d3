"""The policy in training, brought into the inference service."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from qmd_rpc.inference import InferenceClient

SHARED_MEMORY = Path("/dev/shm")
FOLDER_PREFIX = "qmd-policy-"
"""Of a policy's temporary folder; the process that writes it and something random follow."""


def push_policy(client: InferenceClient, version: str, trainer: Any, tokenizer: Any) -> None:
    """Returns when the policy answers as `version`, whether the service takes adapters or merged weights.

    Every worker calls it; the first one writes the policy.
    """
    from trainer.sharding import is_sharded

    base = trainer.accelerator.unwrap_model(trainer.model).get_base_model()
    takes_adapters = client.policy_kind() == "adapter"
    if trainer.accelerator.is_main_process:
        with _policy_folder(trainer.model) as name:
            folder = Path(name)
            if takes_adapters:
                write_adapter(trainer, folder)
            else:
                write_merged(trainer, tokenizer, folder)
            client.load_policy(version, folder)
    elif not takes_adapters and is_sharded(base):
        for _ in merged_weights(base):
            pass  # what the first worker writes, all of them gather
    trainer.accelerator.wait_for_everyone()


def write_adapter(trainer: Any, folder: Path) -> None:
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(folder)


def write_merged(trainer: Any, tokenizer: Any, folder: Path) -> None:
    """Saves base plus adapter as a plain bf16 model folder; the model in training stays as it is."""
    base = trainer.accelerator.unwrap_model(trainer.model).get_base_model()
    base.save_pretrained(folder, state_dict=dict(merged_weights(base)))
    tokenizer.save_pretrained(folder)


def merged_weights(base: Any) -> Iterator[tuple[str, Any]]:
    """Name and weight in bf16 of each parameter of the model that base and adapter make, the tied head left out.

    Where the base is sharded, every worker has to go through them all.
    """
    import torch
    from peft.tuners.lora import LoraLayer

    from trainer.sharding import full_weight

    adapters = {f"{name}.base_layer": layer for name, layer in base.named_modules() if isinstance(layer, LoraLayer)}
    tied = base.config.tie_word_embeddings
    for name, tensor in base.state_dict().items():
        if "lora_" in name or (tied and name.startswith("lm_head.")):
            continue
        module, _, kind = name.rpartition(".")
        weight = full_weight(tensor)
        if kind == "weight" and module in adapters:
            with torch.no_grad():
                weight = weight.float() + adapters[module].get_delta_weight("default")
        yield name.replace(".base_layer", ""), weight.to("cpu", torch.bfloat16)


def _policy_folder(model: Any) -> AbstractContextManager[str]:
    """A temporary folder, in shared memory where twice the size of merged weights is free."""
    drop_left_behind()
    size = 2 * sum(parameter.numel() for parameter in model.parameters())
    roomy = SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > 2 * size
    return tempfile.TemporaryDirectory(prefix=f"{FOLDER_PREFIX}{os.getpid()}-", dir=SHARED_MEMORY if roomy else None)


def drop_left_behind() -> None:
    """Frees the shared memory of processes that were killed while they brought a policy in."""
    for folder in SHARED_MEMORY.glob(f"{FOLDER_PREFIX}*-*"):
        process = folder.name.removeprefix(FOLDER_PREFIX).partition("-")[0]
        if not Path("/proc", process).is_dir():
            shutil.rmtree(folder, ignore_errors=True)
