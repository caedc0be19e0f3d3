import json
from pathlib import Path

import pytest

from evaluator.evalset import load_eval_queries, load_eval_set, spread
from qmd_schema.config import CollectionConfig
from qmd_schema.errors import DataError


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines))
    return path


def row(id_: str, query: str, slice_: str = "short") -> str:
    return json.dumps({"id": id_, "query": query, "slice": slice_})


def test_keys_name_the_source_of_a_query(eval_set):
    assert eval_set.texts["queries/short-1"] == "mulch"
    assert eval_set.texts["garden/n2"] == "Greta frost alarm"
    assert eval_set.slices["queries/only-1"] == "only"
    assert not eval_set.slices.keys() & {key for key in eval_set.texts if key.startswith("garden/")}


def test_the_hash_changes_with_any_word_of_a_document(tiny_config, eval_set, tmp_path):
    garden = tiny_config.collections[0].path
    other = tmp_path / "garden"
    other.mkdir()
    for file in garden.iterdir():
        (other / file.name).write_text(file.read_text().replace("lettuce", "cabbage"))
    changed = tiny_config.model_copy(update={"collections": [CollectionConfig(path=other)]})
    assert load_eval_set(tiny_config).sha256 == eval_set.sha256 != load_eval_set(changed).sha256


def test_a_limit_takes_the_same_queries_of_each_slice_in_the_order_of_the_file(root, tiny_config):
    limited = tiny_config.model_copy(update={"queries": root / "evals/queries.jsonl", "queries_per_slice": 8})
    first, again = load_eval_set(limited).queries, load_eval_set(limited).queries
    assert first == again
    everything = [query.id for query in load_eval_queries(root / "evals/queries.jsonl")]
    assert [query.id for query in first] == [id_ for id_ in everything if id_ in {query.id for query in first}]
    slices = [query.slice for query in first]
    assert {slices.count(name) for name in slices} == {8}


def test_a_limit_takes_judged_queries_with_their_judgements(tiny_config):
    (collection,) = load_eval_set(tiny_config.model_copy(update={"queries_per_collection": 2})).collections
    assert len(collection.queries) == 2
    assert collection.queries.keys() == collection.qrels.keys()
    assert len(collection.documents) == 5


def test_spreading_has_nothing_to_do_with_the_given_order():
    keys = [f"queries/{i}" for i in range(100)]
    assert spread(keys) == spread(keys[::-1]) != sorted(keys)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "the file is empty"),
        (["not json"], "queries.jsonl:1: not JSON"),
        ([row("a", "tea"), json.dumps({"id": "b", "query": "milk"})], "queries.jsonl:2: slice: Field required"),
        ([row("a", "tea"), row("b", "")], "queries.jsonl:2: query: String should have at least 1 character"),
        ([row("a", "tea"), row("a", "milk")], "queries.jsonl:2: id a or its query occurs a second time"),
        ([row("a", "tea"), row("b", "tea")], "queries.jsonl:2: id b or its query occurs a second time"),
        ([row("a", "tea"), row("b", "milk"), row("c", "egg", "odd")], "slice odd has one query"),
        (['{"id": "a", "query": "tea", "slice": "short", "weight": 2}'], "weight: Extra inputs are not permitted"),
    ],
)
def test_a_bad_file_of_queries_is_named_with_line_and_remedy(tmp_path, lines, message):
    path = write(tmp_path / "queries.jsonl", *lines)
    with pytest.raises(DataError, match=message):
        load_eval_queries(path)


def test_all_bad_lines_are_reported_at_once(tmp_path):
    path = write(tmp_path / "queries.jsonl", "{", row("a", "tea"), row("b", ""))
    with pytest.raises(DataError) as caught:
        load_eval_queries(path)
    assert ":1:" in str(caught.value) and ":3:" in str(caught.value)


def test_a_missing_collection_is_named(tiny_config, tmp_path):
    config = tiny_config.model_copy(update={"collections": [CollectionConfig(path=tmp_path / "nowhere")]})
    with pytest.raises(DataError, match="nowhere"):
        load_eval_set(config)


def test_two_collections_of_one_name_are_refused(tiny_config):
    config = tiny_config.model_copy(update={"collections": tiny_config.collections * 2})
    with pytest.raises(DataError, match="garden is taken"):
        load_eval_set(config)


def test_an_eval_set_without_entities_is_refused(tiny_config, tmp_path):
    queries = write(tmp_path / "queries.jsonl", row("a", "warm tea"), row("b", "cold milk"))
    garden = tmp_path / "plain"
    garden.mkdir()
    for file in tiny_config.collections[0].path.iterdir():
        (garden / file.name).write_text(file.read_text().replace("Greta", "greta"))
    config = tiny_config.model_copy(update={"queries": queries, "collections": [CollectionConfig(path=garden)]})
    with pytest.raises(DataError, match="fewer than 2 queries name an entity"):
        load_eval_set(config)
