from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmd_schema.expansion import Line
from qmd_search.collections import Document
from trainer.lex_teacher import Lesson, Lines, Rarity, teach

DOCUMENTS = [
    Document("a", "Oak shelf", "A bracket of steel holds the oak shelf."),
    Document("b", "Steel", "Steel rusts on the shelf."),
    Document("c", "Tea", "Green tea and steel kettles."),
]
QUERY = "which steel bracket holds an oak shelf"
RARITY = Rarity(DOCUMENTS)
WORDS = ("steel", "bracket", "holds", "oak", "shelf", "granite", "an", "which")
VEC: Lines = (Line("vec", "how is an oak shelf held"),)


def lex(text: str) -> Line:
    return Line("lex", text)


def taught(worth: dict[str, float], contexts: Sequence[Lines] = ((),), rarity_weight: float = 0.0) -> Lines:
    """What is taught where a search gains the sum of what its lex lines are worth, by text."""

    def measure(asked: Sequence[tuple[int, Lines]]) -> list[float]:
        assert all(lesson == 0 for lesson, _ in asked)
        return [sum(worth.get(line.text, 0.0) for line in lines) for _, lines in asked]

    return teach([Lesson(QUERY, contexts)], [RARITY], measure, 1.0, rarity_weight)[0]


def test_a_word_is_the_rarer_the_fewer_documents_hold_it():
    assert RARITY["bracket"] == 1 and RARITY["steel"] == 0 and RARITY["granite"] == 0
    assert RARITY.of_line(lex("bracket steel")) == 0.5


def test_the_line_that_gains_most_is_first_and_the_next_begins_with_another_word():
    worth = {"bracket shelf": 0.5, "bracket oak": 0.4, "oak shelf": 0.2, "shelf": 0.1}
    assert taught(worth) == (lex("bracket shelf"), lex("oak shelf"))


def test_lessons_of_the_same_query_are_measured_each_by_itself():
    def measure(asked: Sequence[tuple[int, Lines]]) -> list[float]:
        telling = (lex("bracket"), lex("shelf"))
        return [0.5 * (telling[lesson] in lines) for lesson, lines in asked]

    first, second = teach([Lesson(QUERY, [()])] * 2, [RARITY] * 2, measure, 1.0, 0.0)
    assert first[0] == lex("bracket") and second[0] == lex("shelf")


def test_above_the_cap_a_gain_does_not_count():
    def first(gain_cap: float) -> Line:
        def measure(asked: Sequence[tuple[int, Lines]]) -> list[float]:
            return [0.9 * (lex("shelf") in lines) + 0.2 * (lex("bracket") in lines) for _, lines in asked]

        return teach([Lesson(QUERY, [()])], [RARITY], measure, gain_cap, 0.1)[0][0]

    assert first(1.0) == lex("shelf") and first(0.1) == lex("bracket")


def test_a_line_that_takes_something_away_beside_other_lines_is_luck():
    def measure(asked: Sequence[tuple[int, Lines]]) -> list[float]:
        return [0.4 * (lex("bracket") in lines) - 0.5 * (len(lines) > 1) for _, lines in asked]

    assert teach([Lesson(QUERY, [()])], [RARITY], measure, 1.0, 0.0) == [(lex("bracket"),)]
    assert teach([Lesson(QUERY, [(), VEC])], [RARITY], measure, 1.0, 0.0) == [()]


def test_of_lines_that_gain_the_same_the_rarer_one_is_taken():
    worth = {"shelf": 0.2, "bracket": 0.2}
    assert taught(worth, rarity_weight=0.02)[0] == lex("bracket")


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=9))
def test_lines_are_of_the_querys_own_words_that_the_collection_holds(words: list[str]) -> None:
    query = " ".join(words)
    seen: list[Line] = []

    def measure(asked: Sequence[tuple[int, Lines]]) -> list[float]:
        seen.extend(line for _, lines in asked for line in lines)
        return [0.0] * len(asked)

    [written] = teach([Lesson(query, [()])], [RARITY], measure, 1.0, 0.0)
    assert set(written) <= set(seen) and len(written) <= 2
    for line in seen:
        own = line.text.split()
        assert (
            set(own) <= set(words) - {"steel", "granite", "an", "which"} and 1 <= len(own) <= 3 and line.text != query
        )


@pytest.mark.parametrize("query", ["granite", "which an"])
def test_a_query_without_a_word_of_the_collection_gets_no_line(query: str) -> None:
    assert teach([Lesson(query, [()])], [RARITY], lambda asked: [1.0] * len(asked), 1.0, 0.0) == [()]
