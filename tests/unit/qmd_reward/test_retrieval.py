import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmd_reward.retrieval import Quality, gain, quality, reward
from qmd_search.metrics import measure

documents = st.sampled_from([f"d{number}" for number in range(40)])
rankings = st.lists(documents, unique=True, max_size=40)
judgements = st.dictionaries(documents, st.integers(0, 3), max_size=30).filter(lambda judged: any(judged.values()))


@given(rankings, judgements)
def test_a_rankings_quality_is_what_the_usual_measures_give(ranking: list[str], judged: dict[str, int]) -> None:
    measured = measure({"q": ranking}, {"q": judged})["q"]
    found = quality(ranking, judged)
    assert found.ndcg == pytest.approx(measured["ndcg@10"])
    assert found.recall == pytest.approx(measured["recall@20"])


def test_recall_decides_between_expansions_of_the_same_ndcg_and_no_others() -> None:
    plain = Quality(0.5, 0.5)
    assert gain(Quality(0.5, 1.0), plain) == pytest.approx(0.005)
    assert gain(Quality(0.52, 0.0), plain) > gain(Quality(0.5, 1.0), plain) > 0 > gain(Quality(0.49, 1.0), plain)


def test_a_line_is_credited_with_what_is_lost_without_it_and_a_dropped_one_with_nothing() -> None:
    plain, expanded = Quality(0.4, 1), Quality(0.7, 1)
    result = reward(plain, expanded, [Quality(0.5, 1), None, Quality(0.8, 1), expanded])
    assert result.gain == pytest.approx(0.3)
    assert result.credits == pytest.approx((0.2, 0, -0.1, 0))


def test_an_expansion_that_is_not_searched_with_is_worth_nothing_whatever_the_fallback_finds() -> None:
    assert reward(Quality(0.4, 1), None, [None, None]) == (0.0, (0.0, 0.0))
