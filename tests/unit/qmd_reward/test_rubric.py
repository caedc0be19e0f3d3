import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmd_reward.cases import CASES, Case, Points
from qmd_reward.parts import MAX_DEDUCTIONS
from qmd_reward.rubric import score

queries = st.builds(
    str.__add__,
    st.text(max_size=60) | st.lists(st.sampled_from(["How", "to", "AWS", "pod", "v2.1", "C++", "tea"])).map(" ".join),
    st.sampled_from(["", " /only:lex", " /only:vec", " /only:hyde", "\t/ONLY:Lex "]),
)
lines = st.builds(
    str.__add__,
    st.sampled_from(["lex: ", "vec: ", "hyde: ", "lex:", " vec:", ""]),
    st.text(alphabet=st.characters(exclude_characters="\n"), max_size=60) | st.sampled_from(["tea", "aws pod", ""]),
)
expansions = st.text(max_size=300) | st.lists(lines, max_size=8).map("\n".join)


def test_every_published_case_agrees_in_every_field(shared: Path) -> None:
    with (shared / "data/rubric/vectors.jsonl").open(encoding="utf-8") as file:
        for line in file:
            expected = json.loads(line)
            query, expansion = expected.pop("query"), expected.pop("expansion")
            found = score(query, expansion).as_row()
            found["deductions"] = len(found["deductions"])
            found["entities"] = list(found["entities"])
            assert found == expected, line


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_scored_by_hand_agrees(case: Case) -> None:
    result = score(case.query, case.expansion)
    assert Points(*(getattr(result, field) for field in Points._fields)) == case.expected


def test_the_reward_is_the_reported_total_over_the_maximum_and_is_not_capped_by_an_echo() -> None:
    result = score("sourdough starter", "lex: sourdough starter\nvec: how to keep a sourdough starter alive\n")
    assert (result.score, result.percentage, result.rating) == (100 / 120, 50.0, "Acceptable")


def test_an_entity_loss_enters_the_total_with_its_sign_but_is_reported_as_zero() -> None:
    result = score("conversation with Lisa about rent", "lex: rent increase\nvec: the new rent for the flat\n")
    parts = result.format + result.diversity + result.hyde + result.quality + result.think_bonus
    assert result.entity == 0 and result.total == parts - 50


def test_each_loss_that_is_named_is_a_sentence() -> None:
    result = score("Go modules", "lex: what is go\nlex: go modules\nhyde: Short.\n")
    assert result.deductions == (
        "There is no vec line.",
        "Lex and vec lines do not complement each other: one kind is missing.",
        "lex line 2 repeats the query.",
        "The hyde line has 6 characters; 50 to 200 are best.",
        "Lex lines that say nothing of the subject: what is go.",
        "A lex line repeats the query, so the percentage is capped at 50.",
    )


def test_a_total_failure_says_which_line_was_wrong() -> None:
    assert score("tea", "lex: green tea\n\nsure!\n").deductions == ("Line 3 begins with none of lex:, vec:, hyde:.",)


def test_a_line_without_text_counts_as_a_line() -> None:
    assert score("tea", "lex:\nvec: how long to steep green tea").format == 30


def test_an_end_marker_that_appears_by_removing_another_one_fails() -> None:
    assert score("tea", "lex: green tea<|im_<|im_end|>end|>").rating == "Failed"


def test_thinking_without_an_end_fails_as_a_line_without_a_kind() -> None:
    assert score("tea", "<think>hm\nlex: green tea").rating == "Failed"


def test_text_between_two_thoughts_is_kept() -> None:
    thoughtful = "<think>a</think>lex: postgres pool\n<think>\n</think>lex: pgbouncer connection\n"
    plain = "lex: postgres pool\nlex: pgbouncer connection\n"
    assert score("postgres", thoughtful).total == score("postgres", plain).total - 20


def test_hostile_text_neither_takes_long_nor_yields_endless_reasons() -> None:
    for expansion in ("lex:a\n" * 20_000, "</think>" + "<think>" * 200_000, "<think>" * 50_000 + "</think>"):
        assert len(score("a b C", expansion).deductions) <= MAX_DEDUCTIONS


@given(queries, expansions)
def test_any_text_is_scored_within_the_ranges(query: str, expansion: str) -> None:
    result = score(query, expansion)
    assert 0 <= result.score <= 1 and 0 <= result.percentage <= 100
    assert 0 <= result.format <= 30 and 0 <= result.hyde <= 20 and 0 <= result.entity <= 20
    assert result.diversity <= 30 and result.quality <= 23 and result.think_bonus in (0, 20)
    assert result.max_possible in (100, 120, 140)
    assert result.score == min(1, result.total / result.max_possible)
    assert len(result.deductions) <= MAX_DEDUCTIONS and all(reason.endswith(".") for reason in result.deductions)
    assert list(result.entities) == sorted(set(result.entities))


@given(queries, expansions)
def test_the_same_text_always_gets_the_same_score(query: str, expansion: str) -> None:
    assert score(query, expansion) == score(query, expansion)


@given(queries, expansions)
def test_an_end_marker_and_white_space_around_the_answer_change_nothing(query: str, expansion: str) -> None:
    assert score(query, f"\n {expansion.strip()} <|im_end|>\n") == score(query, expansion.strip())


def test_the_fields_come_in_the_order_of_the_file_format() -> None:
    assert list(score("tea", "lex: green tea").as_row()) == [
        *("score", "format", "diversity", "hyde", "quality", "entity", "think_bonus", "total", "max_possible"),
        *("percentage", "rating", "only_mode", "deductions", "entities"),
    ]
