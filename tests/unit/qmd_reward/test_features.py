import pytest

from qmd_reward.features import (
    Lines,
    find_echoes,
    find_entities,
    find_filler,
    find_generic,
    keeping_key_terms,
    read_query,
    repetition_penalty,
)


@pytest.mark.parametrize(
    ("query", "entities"),
    [
        ("AWS lambda cold start", {"aws", "lambda"}),
        ("notes on Project atlas launch", {"project", "atlas"}),
        ("Configure nginx", set()),
        ("nginx Configure", {"configure"}),
        ("How to use C++ templates", {"c++", "templates"}),
        ("upgrade to v2.1", {"v2.1"}),
        ("The meeting with Bob", {"bob"}),
        ("I like tea", set()),
        ("ask Bob the plan", {"bob"}),
        ("Bob ?! plan", {"bob"}),
        ("(GraphQL)", {"graphql"}),
        ("deploy to k8s", set()),
        ("", set()),
    ],
)
def test_entities_are_names_acronyms_and_marked_words_and_one_word_after_them(query: str, entities: set[str]) -> None:
    assert find_entities(query.split()) == entities


def test_a_lex_line_keeps_key_terms_when_it_holds_one_or_there_are_none() -> None:
    assert keeping_key_terms(read_query("how to brew tea"), Lines(["Tea leaves", "teapot leaves"])) == 1
    assert keeping_key_terms(read_query("how to get there"), Lines(["anything"])) == 1


def test_filler_is_forgiven_when_the_query_holds_it() -> None:
    lex = Lines(["tea basics overview", "tea basics", "tea"])
    assert find_filler(read_query("tea basics"), lex) == [{"overview"}]


@pytest.mark.parametrize(
    ("line", "generic"),
    [("what is go", True), ("learn about", True), ("What is it", True), ("what is tea", False), ("tea", False)],
)
def test_a_lex_line_is_generic_when_a_phrase_leaves_fewer_than_three_characters(line: str, generic: bool) -> None:
    assert find_generic(Lines(["green tea", line])) == ([line] if generic else [])


def test_a_generic_phrase_is_looked_for_behind_its_first_word_alone() -> None:
    assert find_generic(Lines(["search ab"]))


def test_a_line_echoes_the_query_when_it_adds_fewer_than_ten_characters() -> None:
    lines = Lines(["Green Tea", "the green tea now", "x" * 10, "green tea with milk"])
    assert find_echoes(read_query("green tea"), lines) == [1, 2]


def test_the_third_occurrence_of_a_word_costs_two_points_and_each_further_one_two_more() -> None:
    assert repetition_penalty("tea tea, and the the the it") == 0
    assert repetition_penalty("Tea tea: tea! pot pot pot pot") == 2 + 4
    assert repetition_penalty("Thé thé: thé! pot-pot pot_pot") == 2
