import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmd_search.fts import FullTextIndex, Row, any_term_expression, lex_expression


def index(*bodies: str, title: str = "untitled") -> FullTextIndex:
    connection = sqlite3.connect(":memory:")
    FullTextIndex.build(connection, [Row(f"{number}.md", title, body) for number, body in enumerate(bodies)])
    return FullTextIndex(connection)


def found(search: FullTextIndex, line: str) -> set[int]:
    return {number for number, _ in search.search(lex_expression(line), 20)}


@pytest.mark.parametrize(
    ("line", "expression"),
    [
        ("Retry backoff", '"retry"* AND "backoff"*'),
        ("performance -sports", '"performance"* NOT "sports"*'),
        ('"machine learning" gpu', '"machine learning" AND "gpu"*'),
        ('java -"coffee beans" -tea', '"java"* NOT "coffee beans" NOT "tea"*'),
        ("multi-agent memory", '"multi agent" AND "memory"*'),
        ("DEC-0054", '"dec 0054"'),
        ("notes -multi-agent", '"notes"* NOT "multi agent"'),
        ("python 3.14.0", '"python"* AND "3"* AND "14"* AND "0"*'),
        ("python -3.14", '"python"* NOT ("3"* AND "14"*)'),
        ('"python 3.14"', '"python 3 14"'),
        ("what's new? (C++)", '"what\'s"* AND "new"* AND "c"*'),
        ('retry "exponential backoff', '"retry"* AND "exponential backoff"'),
        ("深度学习 notes", '"深 度 学 习" AND "notes"*'),
        ("retry - backoff", '"retry"* AND "backoff"*'),
    ],
)
def test_a_lex_line_becomes_the_expression_that_qmd_builds(line: str, expression: str) -> None:
    assert lex_expression(line) == expression


@pytest.mark.parametrize("line", ["", "  ", "-java", '-"coffee beans" -tea', '""', "?! … - --", '"'])
def test_a_line_without_a_positive_term_searches_nothing(line: str) -> None:
    assert lex_expression(line) is None
    assert not found(index("java"), line)


@given(st.text(st.sampled_from("ab-\"'.*()^:+_ 3é深한\t\0") | st.characters(exclude_categories=["Cs"]), max_size=40))
def test_no_lex_line_is_a_syntax_error(line: str) -> None:
    assert found(index("ab 3.14"), line) <= {1}
    assert index("ab 3.14").search(any_term_expression(line), 20) is not None


def test_every_term_of_a_lex_line_must_occur() -> None:
    search = index("retry with backoff", "retry at once")
    assert found(search, "retry backoff") == {1}
    assert not found(search, "retry backoff unicorn")


def test_terms_match_as_prefixes_and_by_their_stems() -> None:
    search = index("exponentially retrying clients")
    assert found(search, "expo") == found(search, "retries") == {1}


def test_quoted_phrases_match_whole_words_in_order() -> None:
    search = index("exponential backoff", "backoff exponential", "exponential backoffice")
    assert found(search, '"exponential backoff"') == {1}


def test_negated_terms_and_phrases_exclude_documents() -> None:
    search = index("java heap", "java coffee beans", "java tea")
    assert found(search, "java -coffee") == {1, 3}
    assert found(search, 'java -"coffee beans" -tea') == {1}


def test_dotted_and_hyphenated_terms_find_what_the_tokenizer_split() -> None:
    search = index("upgraded to 3.14.0", "the multi-agent planner", "agent, then multi")
    assert found(search, "3.14.0") == {1}
    assert found(search, "multi-agent") == {2}


def test_cjk_text_is_found_by_its_characters() -> None:
    assert found(index("我在学习深度学习的笔记", "度深"), "深度") == {1}


def test_a_title_outweighs_a_body() -> None:
    connection = sqlite3.connect(":memory:")
    rows = [Row("a.md", "x", "tomato soup"), Row("b.md", "tomato", "soup soup"), *[Row("c.md", "y", "z")] * 4]
    FullTextIndex.build(connection, rows)
    hits = FullTextIndex(connection).search(lex_expression("tomato"), 20)
    assert [number for number, _ in hits] == [2, 1]
    assert 1 > hits[0][1] > hits[1][1] > 0


def test_any_term_needs_one_whole_word_only() -> None:
    search = index("retry with backoff", "a timeout", "retrospective")
    numbers = {number for number, _ in search.search(any_term_expression("Retry the timeout?"), 20)}
    assert numbers == {1, 2}
    assert any_term_expression("?!") is None


def test_no_more_hits_come_back_than_asked_for() -> None:
    assert len(index(*["same words"] * 30).search(lex_expression("same"), 20)) == 20
