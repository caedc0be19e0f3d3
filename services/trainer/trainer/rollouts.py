"""Rollouts of GRPO: completions of the current policy from the inference service, one step ahead of training."""

import random
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from qmd_rpc.inference import Completion, InferenceClient
from qmd_rpc.reward import RewardClient
from qmd_schema.contract import Decode
from trainer.config import GrpoConfig
from trainer.grpo_queries import TrainingQuery, in_training_order
from trainer.launch import StageFailedError
from trainer.line_credits import token_advantages
from trainer.policies import push_policy
from trainer.rewards import Batch, Group, Sample, has_spread, score_samples

ROLLOUT_DECODE = Decode(temperature=1.0, top_k=0, top_p=1.0, presence_penalty=0.0)
"""Drawn from the plain softmax, which is what the sampler's log-probabilities and the policy gradient are of."""

SMALLEST_SPREAD = 1e-4
"""Of advantages that are scaled; below it all samples earn the same."""


class PolicySampler:
    """The sampler behind TRL's GRPOTrainer.

    TRL calls `sync_weights` when the policy has changed since the last rollout, then `rollout` with the prompts of one
    step. With a `max_staleness` of 1 the batch of the next step is then drawn and scored while this one is trained on:
    by the policy that this step starts from, which TRL's truncated importance weights correct for.
    """

    def __init__(
        self,
        config: GrpoConfig,
        inference: InferenceClient,
        reward: RewardClient,
        tokenizer: Any,
        queries: Sequence[TrainingQuery],
    ) -> None:
        """queries: the training set."""
        self._config = config
        self._client = inference
        self._reward = reward
        self._tokenizer = tokenizer
        self._queries = queries
        self.plan = in_training_order(queries, config.steps * config.queries, config.seed)
        """The queries of each step after those of the step before."""
        self._trainer: Any = None
        self._version: str | None = None
        self._policy_step = 0
        self._thread = ThreadPoolExecutor(1, "rollouts")
        self._ahead: Future[Batch] | None = None
        self._seconds = {"wait": 0.0, "sync": 0.0}

    def attach(self, trainer: Any) -> None:
        self._trainer = trainer

    def sync_weights(self) -> None:
        """Brings the current policy into the inference service as `policy-<step>`; the first worker does.

        Waits for the batches that are drawn ahead, so that each is of one policy.
        """
        began = time.perf_counter()
        if self._ahead:
            self._ahead.result()
        self._trainer.accelerator.wait_for_everyone()
        drawn = time.perf_counter()
        self._policy_step = self._trainer.state.global_step
        version = f"policy-{self._policy_step:06d}"
        push_policy(self._client, version, self._trainer, self._tokenizer)
        self._version = version
        self._seconds = {"wait": drawn - began, "sync": time.perf_counter() - drawn}

    def rollout(self, prompts: list[str], trainer: Any) -> dict[str, list[Any] | Batch]:
        """TRL's rollout function: `generations` samples of each of this worker's queries of the step, scored.

        env_mask is 0 on what is left out of loss and KL: missing samples and, as the config says, groups without
        spread. Raises StageFailedError where more are missing than may be, ServiceError where a service stays away.
        """
        step = trainer.state.global_step
        planned = [query.prompt for query in self._queries_of(step) for _ in range(self._config.generations)]
        if prompts != planned:
            raise RuntimeError(f"TRL asks for other prompts than those planned for step {step}")
        began = time.perf_counter()
        batch = (self._ahead or self._start(step)).result()
        waited = self._seconds["wait"] + time.perf_counter() - began
        batch = replace(batch, seconds={**batch.seconds, **self._seconds, "wait": waited})
        self._check_missing(batch, step)
        output = self._rollout_of(batch)
        last = step + 1 == self._config.steps
        self._ahead = self._start(step + 1) if self._config.max_staleness and not last else None
        return output

    def line_advantages(self, batch: Batch, width: int) -> Any:
        """Advantages (samples, width) of a rollout by line, in units of their root mean square over all workers.

        width: tokens that completions are padded to.
        """
        import torch

        pieces = [
            self._tokenizer.batch_decode(
                [[token] for token in sample.completion.token_ids] if sample.completion else []
            )
            for sample in batch.samples
        ]
        rows = token_advantages(batch, self._config.reward_weights, pieces)
        accelerator = self._trainer.accelerator
        advantages = torch.zeros(len(rows), width, device=accelerator.device)
        for row, values in zip(advantages, rows, strict=True):
            row[: len(values)] = torch.tensor(values)
        size = sum(map(len, rows))
        squares, tokens = accelerator.reduce(
            torch.stack([advantages.square().sum(), advantages.new_tensor(size)]), "sum"
        )
        return advantages / (squares / tokens.clamp(min=1)).sqrt().clamp(min=SMALLEST_SPREAD)

    def _start(self, step: int) -> Future[Batch]:
        return self._thread.submit(self._draw, self._queries_of(step), self._seed(step))

    def _draw(self, queries: list[TrainingQuery], seed: int) -> Batch:
        """A batch by the loaded policy. It may hold other queries in place of those whose samples earn all the same."""
        seconds = {"generate": 0.0, "score": 0.0}
        groups = self._sample(queries, seed, seconds)
        drawn = list(groups)
        used = set(queries)
        for attempt in range(self._config.redraws if self._config.groups_without_spread == "resample" else 0):
            places = [place for place, group in enumerate(groups) if not has_spread(group)]
            unused = [query for query in self._queries if query not in used]
            chance = random.Random(f"{seed} {attempt}")
            others = chance.sample(unused, min(len(places), len(unused)))
            if not others:
                break
            used.update(others)
            fresh = self._sample(others, chance.getrandbits(63), seconds)
            drawn += fresh
            for place, group in zip(places, fresh, strict=False):
                groups[place] = group
        return Batch(groups, drawn, seconds)

    def _sample(self, queries: list[TrainingQuery], seed: int, seconds: dict[str, float]) -> list[Group]:
        """seconds: are added to."""
        count = self._config.generations
        began = time.perf_counter()
        answers = self._client.generate(
            [query.prompt for query in queries],
            n=count,
            decode=ROLLOUT_DECODE,
            max_tokens=self._config.max_completion,
            grammar=False,
            logprobs=True,
            seed=seed,
            policy=self._version,
            missing=int(self._config.missing_share * self._config.queries * count),
        )
        written = time.perf_counter()
        samples = [
            Sample(query, self._policy_step, completion, self._raw_text(completion) if completion else "")
            for query, completions in zip(queries, answers, strict=True)
            for completion in [*completions, *[None] * (count - len(completions))]
        ]
        scored = score_samples(self._reward, self._config.reward_weights, samples)
        seconds["generate"] += written - began
        seconds["score"] += time.perf_counter() - written
        return [scored[start : start + count] for start in range(0, len(scored), count)]

    def _check_missing(self, batch: Batch, step: int) -> None:
        """The share counts over all workers."""
        import torch

        accelerator = self._trainer.accelerator
        counts = torch.tensor([batch.missing, batch.size], dtype=torch.float32, device=accelerator.device)
        missing, size = map(int, accelerator.reduce(counts, "sum").tolist())
        if missing > self._config.missing_share * size:
            raise StageFailedError(
                f"step {step + 1}: {missing} of {size} samples are missing, more than the missing_share of "
                f"{self._config.missing_share:g}; the workers' logs name each failed call"
            )

    def _rollout_of(self, batch: Batch) -> dict[str, list[Any] | Batch]:
        """What TRL trains on. It wants a token for each sample; a missing completion has the end token alone."""
        keep_all = self._config.groups_without_spread == "keep"
        kept = [keep_all or has_spread(group) for group in batch.groups for _ in group]
        ids = [
            sample.completion.token_ids if sample.completion else [self._tokenizer.eos_token_id]
            for sample in batch.samples
        ]
        return {
            "prompt_ids": [
                self._tokenizer(sample.query.prompt, add_special_tokens=False)["input_ids"] for sample in batch.samples
            ],
            "completion_ids": ids,
            "logprobs": [sample.completion.logprobs if sample.completion else [0.0] for sample in batch.samples],
            "env_mask": [
                [int(keep and sample.reward is not None)] * len(tokens)
                for keep, sample, tokens in zip(kept, batch.samples, ids, strict=True)
            ],
            "batch": batch,
        }

    def _queries_of(self, step: int) -> list[TrainingQuery]:
        """This worker's share of a step's queries."""
        accelerator = self._trainer.accelerator
        count = self._config.queries // accelerator.num_processes
        start = step * self._config.queries + accelerator.process_index * count
        return self.plan[start : start + count]

    def _seed(self, step: int) -> int:
        """Another seed for every step and worker, the same one when a step is repeated after a kill."""
        accelerator = self._trainer.accelerator
        return (self._config.seed * 1_000_003 + step) * accelerator.num_processes + int(accelerator.process_index)

    def _raw_text(self, completion: Completion) -> str:
        """The answer with any special token in it, which the rubric fails, but without the EOS that ends it."""
        ids = completion.token_ids
        if completion.finish_reason == "stop":
            ids = ids[:-1]
        return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
