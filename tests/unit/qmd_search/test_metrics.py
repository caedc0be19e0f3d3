from math import log2

import pytest

from qmd_search.metrics import mean, measure


def test_values_agree_with_a_case_worked_by_hand() -> None:
    values = measure({"q": ["x", "best", "y", "good"]}, {"q": {"best": 2, "good": 1, "missed": 1}})["q"]
    gain = 2 / log2(3) + 1 / log2(5)
    ideal = 2 / log2(2) + 1 / log2(3) + 1 / log2(4)
    assert values == pytest.approx({"ndcg@10": gain / ideal, "recall@20": 2 / 3, "mrr@10": 1 / 2})


def test_documents_beyond_the_cut_offs_do_not_count() -> None:
    ranking = [f"other {rank}" for rank in range(1, 11)] + ["eleventh"]
    assert measure({"q": ranking}, {"q": {"eleventh": 1}})["q"] == {"ndcg@10": 0, "recall@20": 1, "mrr@10": 0}
    ranking = [f"other {rank}" for rank in range(1, 21)] + ["twenty-first"]
    assert measure({"q": ranking}, {"q": {"twenty-first": 1}})["q"]["recall@20"] == 0


def test_documents_judged_not_relevant_count_as_unjudged() -> None:
    assert measure({"q": ["no", "yes"]}, {"q": {"no": 0, "yes": 1}})["q"]["mrr@10"] == 1 / 2


def test_a_query_that_found_nothing_counts_zero() -> None:
    values = measure({"hit": ["a"], "miss": []}, {"hit": {"a": 1}, "miss": {"b": 1}})
    assert values["miss"] == {"ndcg@10": 0, "recall@20": 0, "mrr@10": 0}
    assert mean(values, "ndcg@10") == 0.5


def test_queries_that_differ_from_the_judged_ones_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in 1 queries, first 'q2'"):
        measure({"q1": []}, {"q1": {"a": 1}, "q2": {"a": 1}})


def test_a_document_ranked_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="'q' holds a document twice"):
        measure({"q": ["a", "a"]}, {"q": {"a": 1}})
