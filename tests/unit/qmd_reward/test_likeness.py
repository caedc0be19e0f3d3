from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmd_reward.features import Lines, Query, read_query
from qmd_reward.likeness import alike_pairs

texts = st.lists(st.sampled_from(["tea", "green", "pot", "a", "b", "c", "teapot", "é"]), max_size=18).map(" ".join)


def are_alike(query: Query, first: str, second: str) -> bool:
    if first in second or second in first:
        return True
    return len(set(first.split()) ^ set(second.split())) < (3 if len(query.words) >= 5 else 2)


@pytest.mark.parametrize(
    ("query", "first", "second", "alike"),
    [
        ("tea", "green tea", "black tea", False),
        ("how to brew a tea", "green tea", "black tea", True),
        ("tea", "green tea", "Green Tea leaves", True),
        ("tea", "green tea", "tea green", True),
    ],
)
def test_lines_are_alike_when_one_holds_the_other_or_too_few_words_differ(
    query: str, first: str, second: str, alike: bool
) -> None:
    assert alike_pairs(read_query(query), Lines([first, second]), 9) == ([(1, 2)] if alike else [])


@given(st.sampled_from(["tea", "how to brew a tea"]), st.lists(texts, max_size=60))
def test_pairs_found_among_many_lines_are_those_found_by_comparing_each_with_each(query: str, lines: list[str]) -> None:
    numbered = list(enumerate(lines, start=1))
    expected = [
        (i, j) for (i, first), (j, second) in combinations(numbered, 2) if are_alike(read_query(query), first, second)
    ]
    assert alike_pairs(read_query(query), Lines(lines), 10_000) == expected


def test_no_more_pairs_are_returned_than_wanted() -> None:
    assert len(alike_pairs(read_query("tea"), Lines(["same"] * 2_000), 100)) == 100
