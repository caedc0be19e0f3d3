"""Advantages of GRPO by line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmd_reward.composite import CompositeConfig
from qmd_rpc.inference import Completion
from trainer.grpo_queries import TrainingQuery
from trainer.line_credits import line_numbers, token_advantages
from trainer.rewards import Batch, Sample

WEIGHTS = CompositeConfig(retrieval=1.0, gain_scale=0.2)
PIECES = ["hyde", ": tea", " keeps", "\n", "lex", ": tea\n", "vec", ": tins\n", ""]
"""The last is the end token."""
ANSWER = "".join(PIECES)


def sample(credits_=(0.0, 0.0, 0.0), rubric=0.2, answer=ANSWER, contract=0.0):
    parts = {"rubric": rubric, "retrieval": 0.5, "contract": contract, "length": 0.0}
    completion = Completion(answer, [1] * len(PIECES), [-1.0] * len(PIECES), "stop")
    return Sample(TrainingQuery("prompt", "tea"), 0, completion, answer, 0.7, parts, credits_)


def advantages(*group, pieces=PIECES):
    return token_advantages(Batch([list(group)], [list(group)]), WEIGHTS, [pieces] * len(group))


def test_a_newline_belongs_to_the_line_it_ends():
    assert line_numbers(PIECES) == [0, 0, 0, 0, 1, 1, 2, 2, 3]


@given(st.text("ab:\n", min_size=1), st.lists(st.integers(1, 4), min_size=40, max_size=40))
def test_a_token_stands_in_the_line_of_its_first_character(text, lengths):
    starts = [0]
    for length in lengths:
        starts.append(min(starts[-1] + length, len(text)))
    pieces = [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
    assert line_numbers(pieces) == [text[:start].count("\n") for start in starts]


def test_the_tokens_of_a_line_share_its_credit():
    (earned,) = advantages(sample((0.1, -0.04, 0.0)))
    assert earned == pytest.approx([0.25] * 4 + [-0.1] * 2 + [0.0] * 3)


def test_a_credit_counts_no_more_than_the_gain_scale():
    (earned,) = advantages(sample((0.9, -0.9, 0.0)))
    assert earned == pytest.approx([0.5] * 4 + [-0.5] * 2 + [0.0] * 3)


def test_form_is_compared_with_that_of_the_group():
    better, worse = advantages(sample(rubric=0.2), sample(rubric=0.3, contract=-0.3))
    assert better == pytest.approx([0.1] * len(PIECES))
    assert worse == pytest.approx([-0.1] * len(PIECES))


def test_a_line_that_cannot_be_read_has_no_credit():
    pieces = ["tea\n", "\n", "lex", ": tea\n", "vec: tins"]
    (earned,) = advantages(sample((0.1, -0.1), answer="".join(pieces)), pieces=pieces)
    assert earned == pytest.approx([0, 0, 0.25, 0.25, -0.25])


def test_a_missing_sample_has_none_and_does_not_count_in_the_mean():
    missing = Sample(TrainingQuery("prompt", "tea"), 0, None)
    group = [missing, sample(rubric=0.2)]
    nothing, alone = token_advantages(Batch([group], [group]), WEIGHTS, [[], PIECES])
    assert nothing == []
    assert alone == pytest.approx([0.0] * len(PIECES))


def test_a_query_that_is_not_searched_with_has_no_credits():
    assert advantages(sample(())) == [[0.0] * len(PIECES)]
