from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmd_reward.rubric import score
from qmd_schema.config import CollectionConfig
from qmd_schema.contract import keeps
from qmd_schema.expansion import render
from qmd_search.collections import Collection, Document
from support.searching import write_collection
from trainer.dictation import MOST_CHARACTERS, dictated_answers, dictated_lines

NOTE = Document(
    "bread", "Sourdough", "# Sourdough\n\nFeed the `rye` starter **the evening before**.\n\n- fold the dough\n"
)


def texts(query: str, document: Document) -> list[str]:
    return [line.text for line in dictated_lines(query, document)]


def test_a_document_gives_its_title_the_words_it_shares_with_the_query_and_its_beginning():
    hyde, lex, vec = dictated_lines("When is the starter fed, or feed bought?", NOTE)
    assert (hyde.kind, lex.kind, vec.kind) == ("hyde", "lex", "vec")
    assert hyde.text == "When is the starter fed, or feed bought: Sourdough"
    assert lex.text == "starter feed"
    assert vec.text == (
        "When is the starter fed, or feed bought: Feed the rye starter the evening before. fold the dough"
    )


def test_a_word_that_begins_one_of_the_document_is_shared_since_keywords_match_beginnings():
    assert texts("start some fine dough", NOTE)[1] == "start dough"


@pytest.mark.parametrize("query", ["feed starter", "Feed starter?", "starter"])
def test_keywords_are_never_the_query_again(query: str):
    first = query.lower().split()[0].rstrip("?")
    assert texts(query, NOTE)[1] == f"{first} sourdough"


def test_of_a_query_that_shares_nothing_the_first_word_stands_with_the_title():
    assert texts("how to bake", NOTE)[1] == "bake sourdough"


def test_a_document_without_prose_gives_its_title_twice_and_one_without_title_its_beginning():
    table = Document("sizes", "Shoe sizes", "| EU | UK |\n|---|---|\n| 42 | 8 |\n")
    again = "boots for Greta: Shoe sizes"
    assert texts("boots for Greta", table) == [again, "boots shoe sizes", again]
    untitled = Document("sizes", "", "Boots come in whole sizes.")
    assert texts("boots for Greta", untitled)[0] == "boots for Greta: Boots come in whole sizes."


def test_a_script_without_spaces_is_cut_at_the_last_character_that_fits():
    hyde, _, vec = dictated_lines("東京 winter", Document("tokyo", "", "東京の冬は乾燥して晴れる日が多い。" * 20))
    assert len(vec.text) == len(hyde.text) == MOST_CHARACTERS
    assert vec.text.startswith("東京 winter: 東京の冬は乾燥して")


@given(st.from_regex(r"[a-z]{1,9}( [a-z]{1,9}){0,20}\??", fullmatch=True), st.text(max_size=40), st.text(max_size=400))
def test_every_line_is_one_line_of_bounded_length_that_qmd_keeps(query: str, title: str, text: str):
    for line in dictated_lines(query, Document("note", title, text)):
        assert len(line.text.splitlines()) == 1
        assert line.text == line.text.strip()
        assert keeps(query, line.text)
        if line.kind != "lex":
            assert len(line.text) <= MOST_CHARACTERS


def test_the_document_that_answers_best_is_taken(tmp_path: Path):
    hint = Document("hint", "Hint", "The starter is mentioned here.")
    notes = Collection("notes", (hint, NOTE), {"q1": "feed starter"}, {"q1": {"hint": 1, "bread": 2}})
    write_collection(notes, tmp_path / "notes", "train")
    [answer] = dictated_answers([CollectionConfig(path=tmp_path / "notes", split="train")])
    assert (answer.collection, answer.query) == ("notes", "feed starter")
    assert answer.expansion.lines == dictated_lines("feed starter", NOTE)


@pytest.mark.parametrize("name", ["notes", "docs", "reference"])
def test_answers_for_a_shipped_collection_keep_the_contract_and_score_as_training_rows_should(root: Path, name: str):
    dictated = dictated_answers([CollectionConfig(path=root / "evals/collections" / name, split="train")])
    scores = [score(query, render(query, expansion)).percentage for _, query, expansion in dictated]
    assert len(scores) > 500
    assert sum(scores) / len(scores) > 90
