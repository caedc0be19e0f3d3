"""Advantages of GRPO token by token: the tokens of a line share what the search loses without that line."""

from collections.abc import Sequence
from statistics import fmean

from qmd_reward.composite import CompositeConfig, relative_gain
from qmd_schema.expansion import parse
from trainer.rewards import Batch, Group, Sample


def token_advantages(batch: Batch, weights: CompositeConfig, pieces: Sequence[Sequence[str]]) -> list[list[float]]:
    """One list a sample, one number a token, not yet scaled; 0 for a missing sample.

    A token's advantage is what its answer earns apart from retrieval, less the group's mean of that, plus half of
    `weights.retrieval` for each `gain_scale` that its line is credited with. A credit needs no mean taken off: it is
    already a difference, to the same answer without the line.
    pieces: the text of each sample's tokens.
    """
    advantages: list[list[float]] = []
    for group in batch.groups:
        mean = _mean_form(group)
        for sample, texts in zip(group, pieces[len(advantages) : len(advantages) + len(group)], strict=True):
            form = sample.form - mean if sample.reward is not None else 0.0
            credits_ = _credit_of_line(sample)
            lines = line_numbers(texts)
            advantages.append(
                [form + weights.retrieval * relative_gain(weights, credits_.get(line, 0.0)) / 2 for line in lines]
            )
    return advantages


def line_numbers(pieces: Sequence[str]) -> list[int]:
    """The line that each token stands in, from 0; a newline belongs to the line that it ends."""
    numbers = []
    line = 0
    for piece in pieces:
        numbers.append(line)
        line += piece.count("\n")
    return numbers


def _mean_form(group: Group) -> float:
    scored = [sample.form for sample in group if sample.reward is not None]
    return fmean(scored) if scored else 0.0


def _credit_of_line(sample: Sample) -> dict[int, float]:
    """By the line's number in the answer's text; lines that cannot be read have none."""
    readable = [number for number, raw in enumerate(sample.answer.split("\n")) if parse(raw).expansion.lines]
    return dict(zip(readable, sample.credits, strict=True)) if sample.credits else {}
