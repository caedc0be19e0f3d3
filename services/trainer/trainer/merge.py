"""An adapter merged into its base, and the proof that the saved model says the same."""

import json
import logging
import time
from pathlib import Path

from qmd_schema.artifacts import folder_written_atomically, read_manifest, sha256_folder, sha256_json, write_manifest
from qmd_schema.contract import bos_token, prompt_text
from qmd_schema.errors import ArtifactError
from trainer.base_models import cache_folder, resolve_model
from trainer.config import UNTRAINABLE_MODULES, MergeConfig

PACKAGES = ("peft", "qmd-schema", "qmd-trainer", "safetensors", "torch", "transformers")
PROBES = ("postgres connection pool timeout", "Löwenzahn im Rasen /only:lex", "what did i decide about the bike?")
"""Queries on whose prompts the models before and after saving are compared."""

logger = logging.getLogger(__name__)


def merge(config: MergeConfig, output: Path) -> None:
    """Writes a model folder in bf16, the precision it is served in, with the base's tokenizer and settings.

    Raises ArtifactError for an adapter that cannot be merged, or when the saved model's next-token distributions are
    further from those of base plus adapter than `config.tolerance`.
    """
    if read_manifest(output) is not None:
        logger.info("%s: done before", output)
        return
    started = time.monotonic()
    base = resolve_model(config.base)
    check_adapter(config.adapter)
    with folder_written_atomically(output) as folder:
        figures = _merge_into(folder, base, config)
        write_manifest(
            folder,
            "merge",
            config,
            {"base": sha256_folder(base), "adapter": sha256_folder(config.adapter)},
            seconds=time.monotonic() - started,
            packages=PACKAGES,
            figures=figures,
        )


def merged_adapter(adapter: Path) -> Path:
    """The model folder of an adapter merged into the base that it names; merged once and kept in the cache.

    Raises ArtifactError as `merge` does, and where the base is not to be had.
    """
    check_adapter(adapter)
    named = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not named:
        raise ArtifactError(f"{adapter}/adapter_config.json: names no base model. Merge it: trainer merge --help")
    base = named if Path(named).is_dir() else f"hf:{named}"
    try:
        folder = resolve_model(base)
    except ArtifactError as error:
        raise ArtifactError(f"{adapter}: its base is not to be had: {error}") from error
    name = sha256_json([sha256_folder(folder), sha256_folder(adapter)])[:16]
    merged = cache_folder() / f"merged-{name}"
    merge(MergeConfig(base=str(folder), adapter=adapter), merged)
    return merged


def check_adapter(adapter: Path) -> None:
    """Raises ArtifactError unless the folder holds a LoRA adapter that leaves the tied embeddings alone."""
    path = adapter / "adapter_config.json"
    if not path.is_file() or not (adapter / "adapter_model.safetensors").is_file():
        raise ArtifactError(f"{adapter}: no adapter there, wants adapter_config.json and adapter_model.safetensors.")
    settings = json.loads(path.read_text(encoding="utf-8"))
    touched = [*_names(settings.get("target_modules")), *_names(settings.get("modules_to_save"))]
    for name in UNTRAINABLE_MODULES:
        if any(name in module or module == "all-linear" for module in touched):
            raise ArtifactError(
                f"{path}: the adapter changes {name}, which is tied to the embeddings; merging would untie it. "
                "Train it again with targets among the attention and MLP layers."
            )


def _names(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else value or []


def _merge_into(folder: Path, base: Path, config: MergeConfig) -> dict[str, float | str]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    prompts = [prompt_text(query, bos_token(base)) for query in PROBES]
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tied = model.config.tie_word_embeddings
    adapted = PeftModel.from_pretrained(model, config.adapter)
    before = _probabilities(adapted, tokenizer, prompts)
    merged = adapted.merge_and_unload(safe_merge=True).to(torch.bfloat16)
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

    saved = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if saved.config.tie_word_embeddings != tied or (
        tied and saved.get_output_embeddings().weight is not saved.get_input_embeddings().weight
    ):
        raise ArtifactError(f"{config.adapter}: merging it into {base} untied the embeddings.")
    after = _probabilities(saved, tokenizer, prompts)
    distance = max(_distance(a, b) for a, b in zip(before, after, strict=True))
    if not distance <= config.tolerance:
        raise ArtifactError(
            f"{config.adapter}: merged into {base} and saved, next-token probabilities differ by {distance:.4f} (total "
            f"variation) from base plus adapter, more than {config.tolerance}. The adapter belongs to another base, or "
            "is broken."
        )
    return {"total_variation": distance, "dtype": "bfloat16"}


def _distance(a, b):  # type: ignore[no-untyped-def]
    """Total variation between distributions, [tokens, vocabulary], mean over the tokens: 0 to 1."""
    return float((a - b).abs().sum(-1).mean()) / 2


def _probabilities(model, tokenizer, prompts):  # type: ignore[no-untyped-def]
    """Next-token probabilities at every position of each prompt, [tokens, vocabulary] a prompt."""
    import torch

    model.eval()
    with torch.no_grad():
        return [
            model(**tokenizer(prompt, add_special_tokens=False, return_tensors="pt")).logits[0].softmax(-1)
            for prompt in prompts
        ]
