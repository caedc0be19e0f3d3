"""The similarity of queries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.similarity import SimilarityIndex, normalise

queries = st.text(st.sampled_from("abcde fgé!-日 "), max_size=30)


def similarity(first: str, second: str) -> float:
    """The Jaccard index by its definition."""
    one, other = (
        {text[start : start + 3] for start in range(len(text) - 2)}
        for text in (f" {normalise(first)} ", f" {normalise(second)} ")
    )
    return len(one & other) / len(one | other) if one | other else 0.0


@pytest.mark.parametrize(
    ("query", "plain"),
    [("No space  left!", "no space left"), ("tea /only:lex", "tea"), ("ＡＢＣ_x", "abc x"), ("?!", "")],
)
def test_case_punctuation_spacing_and_only_endings_do_not_count(query, plain):
    assert normalise(query) == plain


@given(st.lists(queries, max_size=8), queries, st.floats(0.05, 1))
def test_the_index_finds_what_comparing_with_each_query_finds(known, query, threshold):
    expected = {number: value for number, text in enumerate(known) if (value := similarity(text, query)) >= threshold}
    assert SimilarityIndex(known).similar(query, threshold) == pytest.approx(expected)


@given(queries, queries)
def test_two_queries_are_as_alike_one_way_as_the_other(first, second):
    assert SimilarityIndex([first]).similar(second, 0.01) == SimilarityIndex([second]).similar(first, 0.01)


def test_a_query_without_letter_or_digit_is_like_none():
    assert SimilarityIndex(["?!", "tea"]).similar("?!", 0.01) == {}
