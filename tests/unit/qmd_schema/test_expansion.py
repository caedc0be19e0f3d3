import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmd_schema.expansion import KINDS, Expansion, Line, contract_problems, parse, render, split_only

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Z"]), min_size=1).filter(str.strip)


def lines_of(kind: str, most: int) -> st.SearchStrategy[list[Line]]:
    return st.lists(words.map(lambda text: Line(kind, text)), min_size=1, max_size=most, unique=True)


whole = st.tuples(lines_of("hyde", 1), lines_of("lex", 3), lines_of("vec", 3)).map(
    lambda parts: Expansion(tuple(line for part in parts for line in part))
)


@given(whole)
def test_parse_reads_back_what_render_wrote(expansion: Expansion) -> None:
    parsed = parse(render("some query", expansion))
    assert parsed.expansion == expansion
    assert parsed.problems == ()


@given(st.text())
def test_parse_never_raises_and_its_lines_are_clean(text: str) -> None:
    for line in parse(text).expansion.lines:
        assert line.kind in KINDS
        assert line.text and line.text == line.text.strip() and "\n" not in line.text


def test_lines_in_another_order_render_hyde_first() -> None:
    expansion = Expansion((Line("vec", "v v"), Line("lex", "l"), Line("hyde", "h")))
    assert render("q", expansion) == "hyde: h\nlex: l\nvec: v v\n"


def test_parse_names_each_line_that_it_left_out() -> None:
    parsed = parse("Sure!\nlex: a b\nvec:\nhyde: c")
    assert parsed.expansion.lines == (Line("lex", "a b"), Line("hyde", "c"))
    assert parsed.problems == (
        "line 1: starts with none of lex:, vec:, hyde:",
        "line 3: vec has no text",
        "the text does not end in a newline",
    )


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        (["hyde", "hyde", "lex", "vec"], "2 hyde lines, wants 1 to 1"),
        (["hyde", "vec"], "0 lex lines, wants 1 to 3"),
        (["hyde", "lex", "vec", "vec", "vec", "vec"], "4 vec lines, wants 1 to 3"),
        (["lex", "hyde", "vec"], "hyde is not first"),
    ],
)
def test_a_broken_rule_is_named(kinds: list[str], said: str) -> None:
    expansion = Expansion(tuple(Line(kind, f"text {n}") for n, kind in enumerate(kinds)))
    assert said in contract_problems("q", expansion)


def test_render_refuses_what_breaks_the_rules() -> None:
    with pytest.raises(ValueError, match="0 vec lines"):
        render("q", Expansion((Line("hyde", "h"), Line("lex", "l"))))
    with pytest.raises(ValueError, match="more than one line"):
        render("q", Expansion((Line("hyde", "h\nh"), Line("lex", "l"), Line("vec", "v"))))


def test_an_only_query_wants_lines_of_its_kind_alone() -> None:
    assert split_only("tea /only:lex") == ("tea", "lex")
    assert split_only("tea /ONLY:Vec ") == ("tea", "vec")
    assert split_only("tea/only:lex") == ("tea/only:lex", None)
    assert render("tea /only:lex", Expansion((Line("lex", "tea leaf"),))) == "lex: tea leaf\n"
    assert contract_problems("tea /only:lex", Expansion((Line("hyde", "tea"),)))
