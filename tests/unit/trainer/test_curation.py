"""The checks of a training set: each finds its fault, and nothing in a good row."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmd_schema.examples import LoadedExample, TrainingExample
from qmd_schema.expansion import Line
from trainer.config import CurationConfig, PrepareConfig
from trainer.curation import (
    Finding,
    Pair,
    check_leaks,
    check_near_duplicates,
    check_row,
    check_rubric,
    check_skeletons,
    check_training_set,
    near_duplicates,
    skeletons,
)
from trainer.dataset import EvalQuery

CONFIG = CurationConfig()
GOOD = [
    ("hyde", "To rotate Nginx logs put daily, rotate 14 and compress into /etc/logrotate.d/nginx and signal USR1."),
    ("lex", "Nginx logrotate"),
    ("lex", "postrotate Nginx"),
    ("vec", "set up daily log rotation for an Nginx server"),
    ("vec", "keep the access logs of Nginx from filling the disk"),
]

words = st.text("abcdefghij", min_size=4, max_size=8)


def loaded(query: str = "rotate Nginx logs", output: Sequence[tuple[str, str]] = GOOD, line: int = 1) -> LoadedExample:
    return LoadedExample(TrainingExample(query=query, output=list(output)), Path("data/a.jsonl"), line)


def with_line(number: int, kind: str, text: str) -> LoadedExample:
    return loaded(output=[*GOOD[:number], (kind, text), *GOOD[number + 1 :]])


def found(example: LoadedExample) -> list[str]:
    return [finding.check for finding in check_row(example, CONFIG)]


def test_a_good_row_has_no_finding():
    assert found(loaded()) == []
    assert list(check_rubric([loaded()], CONFIG)) == []


def test_a_finding_names_file_line_and_remedy():
    finding = Finding("filler", Path("data/a.jsonl"), 41, "lex line 'tea tips' holds filler: tips", "Use another word")
    assert str(finding) == "data/a.jsonl:41: lex line 'tea tips' holds filler: tips. Use another word."


@pytest.mark.parametrize(
    ("example", "check"),
    [
        (loaded(output=[*GOOD[1:], GOOD[0]]), "contract"),
        (with_line(1, "lex", " Nginx logrotate"), "contract"),
        (with_line(2, "lex", "apache weekly"), "filter"),
        (with_line(3, "vec", "rotate Nginx logs"), "filter"),
        (loaded(output=[*GOOD[:1], *GOOD[2:]]), "lines"),
        (with_line(0, "hyde", "Nginx logs rotate daily."), "hyde length"),
        (with_line(0, "hyde", "Nginx logs rotate daily." + " daily" * 40), "hyde length"),
        (with_line(1, "lex", "Nginx logrotate daily weekly"), "lex words"),
        (with_line(2, "lex", "nginx weekly"), "lex beginnings"),
        (with_line(1, "lex", "Nginx guide"), "filler"),
        (with_line(4, "vec", "ask admin@nginx-logs.io how logs are rotated"), "personal data"),
    ],
)
def test_each_fault_of_a_row_is_found(example, check):
    assert set(found(example)) == {check}


def test_a_quoted_phrase_is_one_word_and_a_negated_word_is_none():
    assert found(with_line(1, "lex", '"log rotation daily" Nginx postrotate -apache')) == []


def test_filler_that_the_query_asks_for_is_none():
    guide = loaded("Nginx style guide", with_line(1, "lex", "Nginx guide").example.output)
    assert found(guide) == []


@pytest.mark.parametrize("kind", ["lex", "vec"])
def test_an_only_query_is_asked_for_its_kind_alone(kind):
    lines = [line for line in GOOD if line[0] == kind]
    assert found(loaded(f"rotate Nginx logs /only:{kind}", lines)) == []
    assert found(loaded(f"rotate Nginx logs /only:{kind}", lines[:1])) == ["lines"]


def test_a_row_below_the_floor_is_found_with_the_reasons():
    row = loaded(output=[GOOD[0], ("lex", "rotate Nginx logs"), *GOOD[2:]])
    floor, mean = check_rubric([row], CONFIG)
    assert (floor.check, floor.line) == ("rubric", 1)
    assert "rubric 50.0 %, wants 75 %" in floor.what and "repeats the query" in floor.what
    assert (mean.check, mean.where) == ("rubric mean", "data/a.jsonl")


def test_near_duplicate_queries_name_each_other():
    rows = [loaded("renew a passport in France"), loaded("cheese"), loaded("renew passport in France", line=3)]
    (finding,) = check_near_duplicates(rows, CONFIG.near_duplicate)
    assert finding.line == 3
    assert "'renew a passport in France' (data/a.jsonl:1)" in finding.what


@given(st.lists(st.text("abc ", min_size=1, max_size=12), max_size=8))
def test_every_pair_of_near_duplicates_is_found_once_and_in_order(queries):
    pairs = near_duplicates(queries, 0.5)
    assert len({(pair.first, pair.second) for pair in pairs}) == len(pairs)
    assert all(pair.first < pair.second for pair in pairs)
    repeated = near_duplicates([*queries, *queries], 0.5)
    expected = {(number, number + len(queries)) for number, query in enumerate(queries) if query.strip()}
    assert expected <= {(pair.first, pair.second) for pair in repeated if pair.similarity == 1}


def test_a_query_of_the_evaluation_set_is_found():
    evaluation = [EvalQuery("rotate the Nginx logs", "evals/queries.jsonl:7")]
    (finding,) = check_leaks([loaded()], evaluation, 0.6)
    assert finding.check == "leak" and "evals/queries.jsonl:7" in finding.what


def test_a_skeleton_is_what_is_left_when_the_querys_words_are_blanked():
    lines = [
        Line("hyde", "This overview of Ancient Rome covers key dates."),
        Line("lex", "ancient rome timeline"),
        Line("lex", "Rome overview"),
        Line("vec", "history of the romes"),
    ]
    assert skeletons("ancient Rome /only:lex", lines) == {
        "hyde: this overview of _ covers key dates",
        "lex: _ timeline | _ overview",
        "vec: history of the _",
    }


@given(words, words, st.lists(st.sampled_from(["understanding {}", "{} for beginners", "why {}, and how"]), min_size=1))
def test_answers_from_one_template_have_one_skeleton(first, second, templates):
    def answer(query: str) -> set[str]:
        lines = [Line("vec", template.format(query)) for template in templates]
        return skeletons(query, lines)

    assert answer(first) == answer(second)


@given(st.lists(words, min_size=1, max_size=4))
def test_lines_of_the_querys_words_alone_have_no_skeleton(query):
    assert skeletons(" ".join(query), [Line("lex", " ".join(reversed(query))), Line("lex", query[0])]) == set()


def test_a_template_is_found_from_its_first_repetition_too_many():
    names = ["Rome", "Cuba", "Peru", "Chad", "Oman", "Mali", "Fiji"]
    rows = [
        loaded(f"history {name}", [("vec", f"major events of the {name}")], line)
        for line, name in enumerate(names, start=1)
    ]
    findings = list(check_skeletons(rows, CONFIG.skeleton_repeats))
    assert [finding.line for finding in findings] == [6, 7]
    assert "'vec: major events of the _' occurs 7 times (first data/a.jsonl:1)" in findings[0].what


def test_all_checks_run_and_report_by_line():
    rows = [loaded(), with_line(1, "lex", "Nginx tips")]
    findings = check_training_set(rows, [EvalQuery("Nginx logs", "e:1")], PrepareConfig(model="m", near_duplicate=0.3))
    assert {finding.check for finding in findings} == {"leak", "filler", "near-duplicate"}
    assert [finding.line for finding in findings] == sorted(finding.line or 0 for finding in findings)


def test_pairs_are_named_by_number():
    assert near_duplicates(["tea tin", "car", "tea tin"], 0.75) == [Pair(0, 2, 1.0)]
