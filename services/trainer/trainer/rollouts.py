"""Rollouts and rewards of GRPO: completions of the current policy from the inference service, scored over gRPC."""

import itertools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from qmd_reward.composite import CompositeReward, composite
from qmd_rpc.inference import Completion, InferenceClient
from qmd_rpc.reward import RewardClient
from qmd_schema.contract import Decode
from trainer.config import GrpoConfig
from trainer.policies import push_policy

ROLLOUT_DECODE = Decode(temperature=1.0, top_k=0, top_p=1.0, presence_penalty=0.0)
"""Drawn from the plain softmax, which is what the sampler's log-probabilities and the policy gradient are of."""
REWARD_PARTS = ("format", "diversity", "hyde", "quality", "entity", "think_bonus")


class PolicySampler:
    """The sampler behind TRL's GRPOTrainer.

    TRL calls `sync_weights` when the policy has changed since the last rollout, then `rollout` with the prompts of one
    step. A call that fails after the client's bounded retries raises ServiceError; nothing becomes an empty answer.
    """

    def __init__(self, config: GrpoConfig, client: InferenceClient, tokenizer: Any) -> None:
        self._config = config
        self._client = client
        self._tokenizer = tokenizer
        self._trainer: Any = None
        self._version: str | None = None

    def attach(self, trainer: Any) -> None:
        self._trainer = trainer

    def sync_weights(self) -> None:
        """Brings the current policy into the inference service as `policy-<step>`; the first worker does."""
        version = f"policy-{self._trainer.state.global_step:06d}"
        push_policy(self._client, version, self._trainer, self._tokenizer)
        self._version = version

    def rollout(self, prompts: list[str], trainer: Any) -> dict[str, list[Any]]:
        """TRL's rollout function: one completion a prompt, where each prompt comes `generations` times in a row."""
        groups = [(prompt, len(list(same))) for prompt, same in itertools.groupby(prompts)]
        count = self._config.generations
        if any(size % count for _, size in groups):
            raise RuntimeError(f"prompts came in groups of {[size for _, size in groups]}, not of {count}")
        queries = [prompt for prompt, size in groups for _ in range(size // count)]
        answers = self._client.generate(
            queries,
            n=count,
            decode=ROLLOUT_DECODE,
            max_tokens=self._config.max_completion,
            grammar=False,
            logprobs=True,
            seed=self._seed(trainer),
            policy=self._version,
        )
        completions = [completion for group in answers for completion in group]
        return {
            "prompt_ids": self._tokenizer(prompts, add_special_tokens=False)["input_ids"],
            "completion_ids": [completion.token_ids for completion in completions],
            "logprobs": [completion.logprobs for completion in completions],
            "answer": [self._raw_text(completion) for completion in completions],
        }

    def _seed(self, trainer: Any) -> int:
        """Another seed for every step and worker, the same one when a step is repeated after a kill."""
        step, world = trainer.state.global_step, trainer.accelerator.num_processes
        return (self._config.seed * 1_000_003 + step) * world + int(trainer.accelerator.process_index)

    def _raw_text(self, completion: Completion) -> str:
        """The answer with any special token in it, which the rubric fails, but without the EOS that ends it."""
        ids = completion.token_ids
        if completion.finish_reason == "stop":
            ids = ids[:-1]
        return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def composite_reward(client: RewardClient, config: GrpoConfig) -> Callable[..., list[float]]:
    """A TRL reward function: rubric, retrieval gain, contract and length in one number, with its terms logged."""

    def reward(
        query: list[str],
        answer: list[str],
        collection: list[str | None],
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float]:
        pairs = list(zip(query, answer, strict=True))
        scores = client.score_batch(pairs)
        gains = retrieval_gains(client, pairs, collection)
        rewards = [
            composite(config.reward_weights, *pair, score.score, gain or 0.0)
            for pair, score, gain in zip(pairs, scores, gains, strict=True)
        ]
        parts = {part: [float(getattr(score, part)) for score in scores] for part in REWARD_PARTS}
        parts |= {term: [getattr(reward, term) for reward in rewards] for term in CompositeReward._fields[1:]}
        if judged := [gain for gain in gains if gain is not None]:
            parts["gain"] = judged
        for part, values in parts.items():
            for name, value in spread(values, config.generations).items():
                log_metric(f"reward/{part}/{name}", value)
        return [reward.reward for reward in rewards]

    return reward


def retrieval_gains(
    client: RewardClient, pairs: Sequence[tuple[str, str]], collections: Sequence[str | None]
) -> list[float | None]:
    """What each (query, answer) gains in the search of its collection; None for a query of no collection."""
    gains: list[float | None] = [None] * len(pairs)
    for name in {name for name in collections if name is not None}:
        places = [place for place, other in enumerate(collections) if other == name]
        found = client.score_retrievals([pairs[place] for place in places], name)
        for place, score in zip(places, found, strict=True):
            gains[place] = score.gain
    return gains


def spread(values: Sequence[float], generations: int) -> dict[str, float]:
    """Mean and standard deviation over a step, and the share of groups whose values are all the same.

    values: group after group, each of `generations`.
    """
    groups = [values[start : start + generations] for start in range(0, len(values), generations)]
    return {
        "mean": statistics.fmean(values),
        "std": statistics.pstdev(values),
        "groups_without_spread": sum(max(group) == min(group) for group in groups) / len(groups),
    }
