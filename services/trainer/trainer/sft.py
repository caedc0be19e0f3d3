"""Supervised fine-tuning: TRL's SFTTrainer with a LoRA adapter, in workers of Ray Train."""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from qmd_schema.artifacts import folder_written_atomically, read_manifest, sha256_file, sha256_folder, write_manifest
from trainer.base_models import resolve_model
from trainer.config import LoraSettings, RaySettings, SftConfig
from trainer.dataset import Row, TokenizedRow, grouped_order, load_rows, load_training_rows, tokenize_rows
from trainer.launch import PROGRESS_NAME, claim, train_on_ray
from trainer.tracking import PROJECT, check_trackers

ADAPTER_NAME = "adapter"
PACKAGES = ("accelerate", "peft", "qmd-schema", "qmd-trainer", "ray", "torch", "transformers", "trl")

logger = logging.getLogger(__name__)


def run_sft(config: SftConfig, data: Path, output: Path) -> None:
    """Trains an adapter into `output/adapter`; called again after a kill it goes on at the last checkpoint.

    data: folder that `prepare` wrote. Raises UserError for bad input, StageFailedError when training failed.
    """
    if read_manifest(output) is not None:
        logger.info("%s: done before", output)
        return
    started = time.monotonic()
    check_trackers(config.trackers)
    model = resolve_model(config.model)
    for rows in _parts(config, data).values():
        tokenize_rows(rows, model, config.max_length)
    inputs = {"model": sha256_folder(model)} | {path.stem: sha256_file(path) for path in sorted(data.glob("*.jsonl"))}
    claim(output, config, inputs)
    arguments = {"config": config, "data": data.resolve(), "model": model}
    train_on_ray(sft_loop, arguments, config.ray, output.resolve())
    write_manifest(
        output,
        "sft",
        config,
        inputs,
        seconds=time.monotonic() - started,
        packages=PACKAGES,
        seed=config.seed,
        figures=final_figures(output),
    )


def sft_loop(config: SftConfig, data: Path, model: Path, folder: Path) -> None:
    """One worker's part. model: base folder; folder: the stage's, which all workers share."""
    from datasets import Dataset
    from torch.utils.data import Sampler
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from trainer.checkpoints import RunCallback, scratch_folder

    class GroupedSampler(Sampler[int]):
        """Row indices in `grouped_order`, the same in every worker and after a resumption."""

        def __init__(self, lengths: Sequence[int]) -> None:
            self._lengths = lengths
            self._epoch = 0

        def set_epoch(self, epoch: int) -> None:
            self._epoch = epoch

        def __len__(self) -> int:
            return len(self._lengths)

        def __iter__(self) -> Iterator[int]:
            return iter(grouped_order(self._lengths, config.batch, config.seed, self._epoch))

    class AnswerTrainer(SFTTrainer):
        """SFTTrainer with rows of like length together."""

        def _get_train_sampler(self, dataset: Any = None) -> Sampler[int]:
            return GroupedSampler([len(ids) for ids in (dataset or self.train_dataset)["input_ids"]])

    parts = {
        part: Dataset.from_list([labelled(row) for row in tokenize_rows(rows, model, config.max_length)])
        for part, rows in _parts(config, data).items()
    }
    trainer = AnswerTrainer(
        model=load_base(model, config.ray),
        processing_class=AutoTokenizer.from_pretrained(model),
        train_dataset=parts["train"],
        eval_dataset=parts["val"],
        peft_config=lora_config(config.lora),
        callbacks=[RunCallback("sft", folder)],
        args=SFTConfig(
            output_dir=str(scratch_folder(folder)),
            num_train_epochs=config.epochs,
            max_steps=config.max_steps or -1,
            per_device_train_batch_size=config.rows_per_forward,
            per_device_eval_batch_size=config.rows_per_forward,
            gradient_accumulation_steps=config.batch // (config.rows_per_forward * config.ray.workers),
            learning_rate=config.learning_rate,
            lr_scheduler_type=config.scheduler,
            warmup_steps=config.warmup_share,
            weight_decay=config.weight_decay,
            max_length=config.max_length,
            seed=config.seed,
            eval_strategy="epoch",
            prediction_loss_only=True,
            save_steps=config.save_steps,
            dataset_kwargs={"skip_prepare_dataset": True},
            **trainer_settings(config.ray, config.trackers, folder),
        ),
    )
    place_base(trainer, config.ray)
    fit(trainer, folder)


def _parts(config: SftConfig, data: Path) -> dict[str, list[Row]]:
    return {"train": load_training_rows(data, config.dictated_copies), "val": load_rows(data, "val")}


def labelled(row: TokenizedRow) -> dict[str, list[int]]:
    """A row as TRL trains on it: label -100 keeps the prompt's tokens out of the loss."""
    labels = [token if wanted else -100 for token, wanted in zip(row.input_ids, row.completion_mask, strict=True)]
    return {"input_ids": row.input_ids, "labels": labels}


def load_base(model: Path, settings: RaySettings) -> Any:
    """The model below the adapter, as it is served on a GPU: in bf16. On a CPU its weights are fp32, until
    `place_base` halves those that the adapters sit on."""
    import torch
    from transformers import AutoModelForCausalLM

    # On a CPU, rows of some 200 tokens run backward a fifth faster without the fused kernel.
    dtype, attention = (torch.bfloat16, "sdpa") if settings.gpu else (torch.float32, "eager")
    return AutoModelForCausalLM.from_pretrained(model, dtype=dtype, attn_implementation=attention)


def place_base(trainer: Any, settings: RaySettings, temperature: float = 1.0) -> None:
    """Makes the base of a trainer's adapter fast on a CPU, and shards it where the settings say so."""
    from trainer.likelihood import share_prompts
    from trainer.sharding import ShardFrozenWeights

    if not settings.gpu:
        halve_frozen_weights(trainer.model)
    if settings.sharding == "fsdp":
        # The gradients of shared prompts reach a layer by its cache, past the hook that gathers the layer's weights.
        trainer.add_callback(ShardFrozenWeights(trainer.model))
    elif not settings.gpu:
        share_prompts(trainer.model.get_base_model(), temperature)


def halve_frozen_weights(model: Any) -> None:
    """Keeps the weights below the adapters in bf16, which autocast would make of them anew in every forward."""
    import torch
    from peft.tuners.lora import LoraLayer

    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.base_layer.weight.data = layer.base_layer.weight.data.to(torch.bfloat16)


def trainer_settings(settings: RaySettings, trackers: Sequence[str], folder: Path) -> dict[str, Any]:
    """Settings that SFT and GRPO give to TRL alike: bf16 autocast, one log line a step. folder: the stage's."""
    return {
        "use_cpu": not settings.gpu,
        "bf16": True,
        "gradient_checkpointing": settings.gpu,
        "logging_steps": 1,
        "logging_first_step": True,
        "save_strategy": "steps",
        "disable_tqdm": True,
        "report_to": list(trackers) or "none",
        "project": PROJECT,
        "run_name": f"{folder.parent.name}-{folder.name}",
        "log_level": "warning",
        "ddp_find_unused_parameters": False,
    }


def lora_config(settings: LoraSettings) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=settings.targets,
        task_type="CAUSAL_LM",
    )


def fit(trainer: Any, folder: Path) -> None:
    """Trains from the last checkpoint on, if there is one, and writes the adapter as the stage's result."""
    from transformers import PrinterCallback

    from trainer.checkpoints import last_checkpoint, report

    trainer.remove_callback(PrinterCallback)
    with last_checkpoint() as checkpoint:
        trainer.train(resume_from_checkpoint=checkpoint)
    report(trainer.state)
    if trainer.is_world_process_zero():
        with folder_written_atomically(folder / ADAPTER_NAME) as adapter:
            trainer.model.save_pretrained(adapter)
            (adapter / "README.md").unlink(missing_ok=True)  # PEFT's empty form; the publisher writes the card


def final_figures(output: Path) -> dict[str, float]:
    """The last value of each metric in a stage's progress file."""
    figures: dict[str, float] = {}
    with (output / PROGRESS_NAME).open(encoding="utf-8") as file:
        for record in map(json.loads, file):
            figures |= record["metrics"] | {"steps": record["done"]}
    return figures
