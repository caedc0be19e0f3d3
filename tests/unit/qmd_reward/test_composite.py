import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from qmd_reward.composite import CompositeConfig, composite, length_cost, searched_share

CONFIG = CompositeConfig()
GOOD = "hyde: Steep green tea leaves at 80 C.\nlex: tea leaves\nvec: how to steep tea leaves\n"


def test_the_better_of_two_searches_earns_more_within_the_scale() -> None:
    rewards = [composite(CONFIG, "tea", GOOD, 0.9, gain).reward for gain in (-1, -0.2, 0, 0.2, 0.25, 1)]
    assert rewards == sorted(rewards) and rewards[-1] == rewards[-2]
    assert rewards[2] == pytest.approx(0.3 * 0.9 + 0.7 / 2)


def test_an_expansion_that_qmd_drops_gets_nothing_however_well_it_is_formed() -> None:
    assert composite(CONFIG, "tea", "lex: camellia\nvec: a hot drink of leaves\n", 1.0, 0.0).reward == 0
    assert composite(CONFIG, "tea", "Here you are!", 1.0, 0.0).reward == 0


def test_of_the_rubrics_score_only_the_share_of_searched_lines_is_earned() -> None:
    assert searched_share("tea", GOOD) == 1
    assert searched_share("tea", GOOD + "lex: camellia\n") == 0.75
    assert composite(CONFIG, "tea", GOOD + "lex: camellia\n", 0.8, 0).rubric == pytest.approx(0.3 * 0.8 * 0.75)


@pytest.mark.parametrize("broken", [GOOD.removesuffix("\n"), GOOD + "lex: tea leaves\n", GOOD.partition("\n")[2]])
def test_an_answer_that_breaks_a_rule_pays_for_it_once(broken: str) -> None:
    assert composite(CONFIG, "tea", GOOD, 0.9, 0).contract == 0
    assert composite(CONFIG, "tea", broken, 0.9, 0).contract == -CONFIG.contract


@pytest.mark.parametrize(("characters", "cost"), [(0, 0), (400, 0), (1_000, 0.5), (1_600, 1), (9_000, 1)])
def test_length_costs_nothing_up_to_a_usual_answer_and_then_in_proportion(characters: int, cost: float) -> None:
    assert length_cost(CONFIG, "x" * characters + "\n") == cost


@given(st.text(max_size=50), st.text(max_size=300), st.floats(0, 1), st.floats(-1.01, 1.01))
def test_the_reward_lies_between_0_and_the_sum_of_the_weights(query: str, text: str, score: float, gain: float) -> None:
    result = composite(CONFIG, query, text, score, gain)
    assert 0 <= result.reward <= 1 + 1e-9
    assert result.reward == max(0, result.rubric + result.retrieval + result.contract + result.length)


def test_a_long_answer_is_longer_than_a_free_one() -> None:
    with pytest.raises(ValidationError, match="long_characters wants to be above free_characters"):
        CompositeConfig(free_characters=500, long_characters=500)
