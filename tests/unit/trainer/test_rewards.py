"""What completions earn, and what of it is logged."""

import pytest

from qmd_reward.composite import CompositeConfig
from qmd_rpc.inference import Completion
from qmd_rpc.reward import RewardClient
from qmd_rpc.v1 import reward_pb2
from trainer.grpo_queries import TrainingQuery
from trainer.rewards import Batch, Sample, batch_metrics, has_spread, score_samples, spread

GOOD = "hyde: Green tea keeps best in a cool tin.\nlex: tea storage\nvec: storing tea\n"
WEIGHTS = CompositeConfig()


class LengthReward:
    """A reward service whose search in "notes" gains by the length of the answer."""

    def score(self, query, answer):  # noqa: ARG002
        return reward_pb2.Score(score=0.5, format=len(answer))

    def score_retrieval(self, query, answer, collection):  # noqa: ARG002
        assert collection == "notes"
        lines = [reward_pb2.LineScore(credit=len(line) / 100) for line in answer.splitlines()]
        return reward_pb2.RetrievalScore(gain=len(answer) / 100, lines=lines)


def sample(answer: str = GOOD, collection: str | None = None, reward: float | None = None, policy_step: int = 0):
    completion = Completion(answer, [5, 6, 2], [-1.0, -1.0, -1.0], "stop")
    return Sample(TrainingQuery("prompt", "tea storage tin", collection), policy_step, completion, answer, reward)


def test_what_a_search_gains_and_what_breaks_a_rule_enter_the_reward():
    samples = [sample(), sample(GOOD + "lex: tea storage\n"), sample(collection="notes")]
    plain, twice, searched = score_samples(LengthReward(), WEIGHTS, samples)
    assert plain.reward - twice.reward == pytest.approx(WEIGHTS.contract)
    assert searched.reward - plain.reward == pytest.approx(WEIGHTS.retrieval / 2)
    assert (plain.parts["contract"], twice.parts["contract"]) == (0, -WEIGHTS.contract)


def test_each_answer_is_searched_in_the_collection_its_query_is_asked_of():
    answers = ["lex: tea\n", "lex: dunes\n"]
    scored = score_samples(LengthReward(), WEIGHTS, [sample(answers[0]), sample(answers[1], "notes")])
    assert [one.parts.get("gain") for one in scored] == [None, 0.11]
    assert [list(one.credits) for one in scored] == [[], [0.1]]


def test_a_sample_has_no_reward_where_the_service_is_away(free_port):
    with RewardClient(f"127.0.0.1:{free_port()}", deadline=1) as client:
        assert [one.reward for one in score_samples(client, WEIGHTS, [sample(), sample()])] == [None, None]


def test_a_missing_completion_is_not_scored():
    missing = Sample(TrainingQuery("prompt", "tea"), 0, None)
    assert score_samples(LengthReward(), WEIGHTS, [missing]) == [missing]


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [([0.5, 0.5], False), ([0.5, 0.4], True), ([0.5, None], False), ([None, None], False), ([0.5, None, 0.4], True)],
)
def test_a_group_has_spread_when_its_rewards_differ(rewards, expected):
    assert has_spread([sample(reward=reward) for reward in rewards]) is expected


def test_missing_samples_of_groups_that_were_replaced_count_as_well():
    groups = [[sample(reward=0.1), sample(reward=0.2)]]
    replaced = [sample(reward=0.1), sample(reward=None)]
    metrics = batch_metrics(Batch(groups, [*groups, replaced]), step=0)
    assert (metrics["missing"], metrics["groups_redrawn"]) == (0.25, 1)


def test_staleness_is_that_of_each_sample():
    group = [sample(policy_step=2), sample(policy_step=3)]
    assert batch_metrics(Batch([group], [group]), step=3)["staleness"] == 0.5


def test_parts_are_logged_of_the_samples_that_have_them():
    groups = [score_samples(LengthReward(), WEIGHTS, [sample(), sample(GOOD[:-1])]), [sample(), sample()]]
    metrics = batch_metrics(Batch(groups, groups), step=0)
    assert metrics["reward/format/mean"] == pytest.approx(len(GOOD) - 0.5)
    assert metrics["reward/tokens/mean"] == 3
    assert metrics["reward/format/groups_without_spread"] == 0
    assert metrics["missing"] == 0.5
    assert "reward/gain/mean" not in metrics


def test_groups_whose_values_are_all_the_same_are_counted():
    assert spread([[1.0, 1.0], [0.0, 2.0]]) == {
        "mean": 1.0,
        "std": pytest.approx(0.7071, abs=1e-4),
        "groups_without_spread": 0.5,
    }
