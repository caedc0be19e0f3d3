"""What completions earn. Each is scored by calls of its own, so that a failed one leaves out one sample, not a step."""

import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from qmd_reward.composite import CompositeConfig, composite
from qmd_rpc.channel import ServiceError
from qmd_rpc.inference import Completion
from qmd_rpc.reward import RewardClient
from trainer.grpo_queries import TrainingQuery
from trainer.services import CALLS_IN_FLIGHT

RUBRIC_PARTS = ("format", "diversity", "hyde", "quality", "entity", "think_bonus")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """One completion of a query, and what it earned."""

    query: TrainingQuery
    policy_step: int
    """The optimizer steps of the policy that wrote it."""
    completion: Completion | None
    """None where its call failed."""
    answer: str = ""
    reward: float | None = None
    """None where a call for it, or for the completion, failed: the sample is missing then."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """The rubric's parts, the reward's terms, the gain of a query that is searched with, and the tokens written."""
    credits: Sequence[float] = ()
    """What the search loses without each readable line of the answer; of a query that is searched with."""

    @property
    def form(self) -> float:
        """What the answer earns apart from retrieval. Raises KeyError for a missing sample."""
        return self.parts["rubric"] + self.parts["contract"] + self.parts["length"]


Group = list[Sample]
"""The samples of one query, over which advantages are normalised."""


@dataclass(frozen=True, repr=False)
class Batch:
    """The rollouts that one worker trains on in one step. Without a repr: TRL logs it for each missing sample."""

    groups: list[Group]
    drawn: list[Group]
    """These groups, and those in whose place some of them were drawn."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """What the parts of the step before training took: `generate` and `score`, then `sync` of the policy and `wait`
    for these rollouts."""

    @property
    def samples(self) -> list[Sample]:
        """Group after group."""
        return [sample for group in self.groups for sample in group]

    @property
    def missing(self) -> int:
        """Samples of those drawn that are missing."""
        return sum(sample.reward is None for group in self.drawn for sample in group)

    @property
    def size(self) -> int:
        """Samples drawn."""
        return sum(map(len, self.drawn))


def has_spread(group: Group) -> bool:
    """Whether rewards differ within a group; it tells the policy nothing otherwise."""
    return len({sample.reward for sample in group} - {None}) > 1


def score_samples(client: RewardClient, weights: CompositeConfig, samples: Sequence[Sample]) -> list[Sample]:
    """The samples with what their answers earn: rubric, retrieval gain, contract and length in one number.

    A sample stays without reward where a call for it fails after the client's bounded retries.
    """

    def score(sample: Sample) -> Sample:
        if sample.completion is None:
            return sample
        query, answer, collection = sample.query.query, sample.answer, sample.query.collection
        try:
            rubric = client.score(query, answer)
            search = client.score_retrieval(query, answer, collection) if collection else None
        except ServiceError as error:
            logger.warning("a sample is left out: %s", error)
            return sample
        earned = composite(weights, query, answer, rubric.score, search.gain if search else 0.0)
        parts = {part: float(getattr(rubric, part)) for part in RUBRIC_PARTS}
        parts |= {term: getattr(earned, term) for term in earned._fields[1:]}
        parts["tokens"] = len(sample.completion.token_ids)
        if search:
            parts["gain"] = search.gain
        credits_ = [line.credit for line in search.lines] if search else []
        return replace(sample, reward=earned.reward, parts=parts, credits=credits_)

    with ThreadPoolExecutor(CALLS_IN_FLIGHT) as threads:
        return list(threads.map(score, samples))


def reward(batch: Sequence[Batch], trainer_state: Any, log_metric: Callable[[str, float], None], **_: Any) -> list[Any]:
    """The reward function that TRL calls: what the samples earned already. TRL leaves a None out of its group.

    batch: the same one, once a sample.
    """
    for name, value in batch_metrics(batch[0], trainer_state.global_step).items():
        log_metric(name, value)
    return [sample.reward for sample in batch[0].samples]


def batch_metrics(batch: Batch, step: int) -> dict[str, float]:
    """Each part of the reward with its spread, and how the batch of a step came about.

    `reward/tokens` is the length of the answers; TRL's own `completions/mean_length` counts what is left out as 0.
    """
    metrics = {
        "missing": batch.missing / batch.size,
        "groups_redrawn": len(batch.drawn) / len(batch.groups) - 1,
        "groups_without_spread": statistics.fmean(not has_spread(group) for group in batch.groups),
        "staleness": statistics.fmean(step - sample.policy_step for sample in batch.samples),
    }
    metrics |= {f"seconds/{part}": value for part, value in batch.seconds.items()}
    for part in sorted({part for sample in batch.samples for part in sample.parts}):
        groups = [[sample.parts[part] for sample in group if part in sample.parts] for group in batch.groups]
        metrics |= {f"reward/{part}/{name}": value for name, value in spread(list(filter(None, groups))).items()}
    return metrics


def spread(groups: Sequence[Sequence[float]]) -> dict[str, float]:
    """Mean and standard deviation over a step, and the share of groups whose values are all the same."""
    values = [value for group in groups for value in group]
    return {
        "mean": statistics.fmean(values),
        "std": statistics.pstdev(values),
        "groups_without_spread": statistics.fmean(max(group) == min(group) for group in groups),
    }
