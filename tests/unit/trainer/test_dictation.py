from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmd_schema.config import CollectionConfig
from qmd_schema.contract import keeps
from qmd_search.collections import Collection, Document
from support.searching import write_collection
from trainer.dictation import MOST_CHARACTERS, dictated_hydes, hyde_line

NOTE = Document(
    "bread", "Sourdough", "# Sourdough\n\nFeed the `rye` starter **the evening before**.\n\n- fold the dough\n"
)


def test_the_query_comes_first_and_then_what_the_document_begins_with():
    line = hyde_line("When is the starter fed?", NOTE)
    assert line.kind == "hyde"
    assert line.text == "When is the starter fed: Feed the rye starter the evening before. fold the dough"


def test_a_document_without_prose_gives_its_title():
    table = Document("sizes", "Shoe sizes", "| EU | UK |\n|---|---|\n| 42 | 8 |\n")
    assert hyde_line("boots for Greta", table).text == "boots for Greta: Shoe sizes"


def test_a_document_without_any_words_leaves_the_query():
    assert hyde_line("boots for Greta", Document("sizes", "", "| EU | UK |\n")).text == "boots for Greta:"


def test_a_script_without_spaces_is_cut_at_the_last_character_that_fits():
    line = hyde_line("東京 winter", Document("tokyo", "", "東京の冬は乾燥して晴れる日が多い。" * 20))
    assert len(line.text) == MOST_CHARACTERS
    assert line.text.startswith("東京 winter: 東京の冬は乾燥して")


@given(st.from_regex(r"[a-z]{1,9}( [a-z]{1,9}){0,20}\??", fullmatch=True), st.text(max_size=400))
def test_a_line_is_one_line_of_bounded_length_that_qmd_keeps(query: str, text: str):
    line = hyde_line(query, Document("note", "A note", text))
    assert len(line.text) <= MOST_CHARACTERS
    assert "\n" not in line.text and line.text == line.text.strip() and keeps(query, line.text)


def test_the_document_that_answers_best_is_taken(tmp_path: Path):
    hint = Document("hint", "Hint", "The starter is mentioned here.")
    notes = Collection("notes", (hint, NOTE), {"q1": "feed starter"}, {"q1": {"hint": 1, "bread": 2}})
    write_collection(notes, tmp_path / "notes", "train")
    lines = dictated_hydes([CollectionConfig(path=tmp_path / "notes", split="train")])
    assert lines == {("notes", "feed starter"): hyde_line("feed starter", NOTE)}


@pytest.mark.parametrize("name", ["notes", "docs", "reference"])
def test_every_training_query_of_a_shipped_collection_gets_a_line_that_qmd_keeps(root: Path, name: str):
    lines = dictated_hydes([CollectionConfig(path=root / "evals/collections" / name, split="train")])
    assert len(lines) > 500
    assert [query for (_, query), line in lines.items() if not keeps(query, line.text)] == []
    assert [line.text for line in lines.values() if not 50 <= len(line.text) <= MOST_CHARACTERS] == []
