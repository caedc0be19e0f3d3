"""GRPO: TRL's GRPOTrainer with a LoRA adapter on the merged SFT model, in workers of Ray Train."""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qmd_schema.artifacts import read_manifest, sha256_file, sha256_folder, write_manifest
from trainer.base_models import resolve_model
from trainer.config import GrpoConfig
from trainer.grpo_queries import TrainingQuery, check_searched, expanded_queries, load_training_queries
from trainer.launch import claim, train_on_ray
from trainer.services import RESTART_SECONDS, open_services
from trainer.sft import (
    PACKAGES,
    final_figures,
    fit,
    load_base,
    lora_config,
    place_base,
    trainer_settings,
)
from trainer.tracking import check_trackers

logger = logging.getLogger(__name__)


def run_grpo(config: GrpoConfig, data: Path, model: str, output: Path) -> None:
    """Trains an adapter into `output/adapter`; called again after a kill it goes on at the last checkpoint.

    data: folder that `prepare` wrote; model: reference of the merged SFT model, which the inference service serves.
    Raises UserError for bad input, ServiceError when a service stays away, StageFailedError when
    training failed.
    """
    if read_manifest(output) is not None:
        logger.info("%s: done before", output)
        return
    started = time.monotonic()
    check_trackers(config.trackers)
    folder = resolve_model(model)
    queries = load_training_queries(config, data, folder)
    inputs = {"model": sha256_folder(folder), "train": sha256_file(data / "train.jsonl")} | {
        str(collection.path): sha256_file(collection.path / "queries.jsonl") for collection in config.collections
    }
    with open_services(config) as (_, reward):
        check_searched(config.collections, reward)
        claim(output, config, inputs)
        queries = expanded_queries(queries, reward)
    arguments = {"config": config, "queries": queries, "model": folder}
    train_on_ray(grpo_loop, arguments, config.ray, output.resolve())
    write_manifest(
        output,
        "grpo",
        config,
        inputs,
        seconds=time.monotonic() - started,
        packages=PACKAGES,
        seed=config.seed,
        figures=final_figures(output),
    )


def grpo_loop(config: GrpoConfig, queries: Sequence[TrainingQuery], model: Path, folder: Path) -> None:
    """One worker's part. model: merged SFT folder; folder: the stage's, which all workers share."""
    with open_services(config, RESTART_SECONDS) as (inference, reward):
        fit(build_trainer(config, queries, model, folder, inference, reward), folder)


def build_trainer(
    config: GrpoConfig, queries: Sequence[TrainingQuery], model: Path, folder: Path, inference: Any, reward: Any
) -> Any:
    """The GRPOTrainer whose sampler is the inference service and whose reward is the reward service's."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import GRPOConfig as TrlConfig
    from trl import GRPOTrainer

    from trainer import rewards
    from trainer.checkpoints import RunCallback, scratch_folder
    from trainer.rollouts import ROLLOUT_DECODE, PolicySampler

    class LineCreditTrainer(GRPOTrainer):
        """GRPOTrainer whose ratios are to the sampler's own probabilities, and with advantages by line on request.

        TRL's correction for the sampler takes a forward pass of its own before the step, which finds what the loss
        finds again. A ratio of policy to sampler, truncated as CISPO truncates it (arXiv 2506.13585), has the same
        gradient without it. Logs these ratios, and what the backward passes of a step take, as `seconds/backward`.
        """

        _scored = _backward = 0.0

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            output = super()._generate_and_score_completions(inputs)
            output["old_per_token_logps"] = output["sampling_per_token_logps"]
            if config.credit == "line":
                output["advantages"] = sampler.line_advantages(inputs[0]["batch"], output["completion_ids"].shape[1])
            return output

        def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
            result = super()._get_per_token_logps_and_entropies(*args, **kwargs)
            self._logps = result[0].detach()
            return result

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(model, inputs, *args, **kwargs)
            held = (inputs["completion_mask"] * inputs["tool_mask"]).bool()
            difference = (self._logps - inputs["old_per_token_logps"])[held]
            if len(difference):
                ratio = difference.exp()
                metrics = self._metrics["train"]
                metrics["sampling/logp_difference/mean"].append(difference.abs().mean().item())
                metrics["sampling/importance_ratio/mean"].append(ratio.mean().item())
                metrics["sampling/importance_ratio/max"].append(ratio.max().item())
            self._scored = time.perf_counter()
            return loss

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().training_step(*args, **kwargs)
            self._backward += time.perf_counter() - self._scored
            return loss

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            if "loss" in logs:
                logs["seconds/backward"], self._backward = self._backward, 0.0
            super().log(logs, start_time)

    completions = config.queries * config.generations
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    sampler = PolicySampler(config, inference, reward, tokenizer, queries)
    accumulation = completions // (config.rows_per_forward * config.ray.workers)
    trainer = LineCreditTrainer(
        model=load_base(model, config.ray),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list([{"prompt": query.prompt} for query in sampler.plan]),
        reward_funcs=[rewards.reward],
        rollout_func=sampler.rollout,
        peft_config=lora_config(config.lora),
        callbacks=[RunCallback("grpo", folder)],
        args=TrlConfig(
            output_dir=str(scratch_folder(folder)),
            max_steps=config.steps,
            per_device_train_batch_size=config.rows_per_forward,
            gradient_accumulation_steps=accumulation,
            steps_per_generation=accumulation,
            shuffle_dataset=False,
            num_generations=config.generations,
            max_completion_length=config.max_completion,
            temperature=ROLLOUT_DECODE.temperature,
            learning_rate=config.learning_rate,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=config.warmup_share,
            beta=config.kl_coefficient,
            loss_type="cispo",
            epsilon_high=config.importance_cap,
            vllm_importance_sampling_correction=False,
            save_steps=config.save_steps,
            seed=config.seed,
            **trainer_settings(config.ray, config.trackers, folder),
        ),
    )
    # TRL brings new policies to a sampler only behind `use_vllm`, which would make it start or look for a vLLM of its
    # own when given in the settings. Set now, it calls `sync_weights` of our sampler before the first rollout of each
    # policy.
    sampler.attach(trainer)
    trainer.use_vllm = True
    trainer.vllm_generation = sampler
    trainer._last_loaded_step = -1
    place_base(trainer, config.ray, ROLLOUT_DECODE.temperature)
    return trainer
