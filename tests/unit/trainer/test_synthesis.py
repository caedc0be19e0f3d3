"""Queries made from notes: what they are made of, whom they ask for, and what is left out."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmd_schema.errors import DataError
from qmd_search.collections import Document, load_collection
from trainer.config import PrepareConfig
from trainer.dataset import EvalQuery
from trainer.known_items import find_known_items
from trainer.synthesis import Synthesis, synthesise, write_synthesis

CONFIG = PrepareConfig(model="m")
NOTES = {
    "probe.md": "---\ntitle: Burying the probe\n---\n# Burying the probe\n\nA tensiometer is a tube with a porous cup. "
    "The porous cup\nneeds water; check the tensiometer weekly.\n\n```\nporous cup --code\n```\n",
    "bread.md": "# Sunday bread\n\n## Shopping list\n\nFold the rye dough. Rye dough is sticky.\n",
    "offsite.md": "# Offsite in Ghent\n\n## Shopping list\n\nPlanning poker took long; planning poker again.\n",
    "camp.md": "# Summer camp\n\n## Shopping list\n\nTent pegs.\n",
    "hut.md": "# Winter hut\n\n## Shopping list\n\nCandles, matches.\n",
}


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    for name, text in NOTES.items():
        (folder / name).write_text(text)
    return folder


def made_of(made: Synthesis) -> dict[str, tuple[str, dict[str, int]]]:
    return {query.text: (query.kind, dict(query.judgements)) for query in made.queries}


def test_headings_phrases_and_definitions_become_queries_for_their_documents(notes):
    made = made_of(synthesise(notes, [], CONFIG))
    assert made["burying the probe"] == ("heading", {"probe": 2})
    assert made["porous cup"] == ("phrase", {"probe": 2})
    assert made["what is tensiometer"] == ("definition", {"probe": 2})
    assert made["planning poker"] == ("phrase", {"offsite": 2})


def test_a_heading_that_many_documents_have_picks_none_out(notes):
    assert "shopping list" not in made_of(synthesise(notes, [], CONFIG))


def test_a_phrase_of_two_documents_is_related_in_the_other(notes):
    (notes / "cake.md").write_text("# Christmas cake\n\nRye dough needs less salt. Keep rye dough cool.\n")
    made = made_of(synthesise(notes, [], CONFIG))
    assert made["rye dough"] == ("phrase", {"bread": 2, "cake": 2})


def test_names_written_in_capitals_keep_them():
    documents = [Document("a", "LoRaWAN on the Gateway (EU868)", "Text."), Document("b", "Tea", "Text.")]
    ((_, found), _) = find_known_items(documents)
    assert found["heading"][0].text == "LoRaWAN on the gateway EU868"


def test_no_query_resembles_one_that_models_are_judged_on(notes):
    made = synthesise(notes, [EvalQuery("burying a probe", "evals/queries.jsonl:1")], CONFIG)
    assert "burying the probe" not in made_of(made)
    assert made.report["dropped"]["like an evaluation query"] == 1


def test_the_same_notes_and_seed_make_the_same_files(notes, tmp_path):
    for name in ("one", "two"):
        write_synthesis(synthesise(notes, [], CONFIG, per_document=1, seed=3), tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_no_document_gives_more_queries_than_asked_for(notes):
    made = synthesise(notes, [], CONFIG, per_document=1)
    asked = [document for query in made.queries for document, grade in query.judgements.items() if grade == 2]
    assert len(asked) == len(set(asked))


def test_what_is_written_is_a_collection_with_a_report(notes, tmp_path):
    made = synthesise(notes, [], CONFIG)
    write_synthesis(made, tmp_path / "out")
    collection = load_collection(tmp_path / "out")
    assert len(collection.documents) == len(NOTES)
    assert set(collection.queries.values()) == set(made_of(made))
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert sum(report["queries"].values()) == len(made.queries)
    assert report["examples"]["definition"] == [{"query": "what is tensiometer", "document": "probe"}]


def test_a_folder_of_another_making_is_not_replaced(notes, tmp_path):
    made = synthesise(notes, [], CONFIG)
    write_synthesis(made, tmp_path / "out")
    write_synthesis(made, tmp_path / "out")
    (tmp_path / "out/report.json").unlink()
    for folder in (notes, tmp_path / "out"):
        with pytest.raises(DataError, match="Name a new folder"):
            write_synthesis(made, folder)
    assert (notes / "probe.md").is_file()


def test_notes_that_give_no_query_are_an_error(tmp_path):
    (tmp_path / "a.md").write_text("Tea.")
    with pytest.raises(DataError, match="1 documents, but no query"):
        synthesise(tmp_path, [], CONFIG)


@given(st.lists(st.text(max_size=80), min_size=1, max_size=4))
def test_any_text_can_be_read_for_queries(texts):
    documents = [Document(str(number), "T", text) for number, text in enumerate(texts)]
    for document, found in find_known_items(documents):
        for candidates in found.values():
            assert all(document.id in candidate.judgements and candidate.text for candidate in candidates)
