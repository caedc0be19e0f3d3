import json
from pathlib import Path

import pytest
import yaml

from qmd_rpc.v1 import reward_pb2
from qmd_schema.config import CollectionConfig
from qmd_schema.contract import bos_token, prompt_text
from qmd_schema.errors import DataError
from trainer.config import GrpoConfig, LoraSettings, RaySettings
from trainer.dataset import Row
from trainer.grpo_queries import TrainingQuery, expanded_queries, in_training_order, load_training_queries


@pytest.fixture
def config(tmp_path: Path, tiny_llama: Path) -> GrpoConfig:
    """A config with one collection of notes, and one query that models are judged on."""
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals/queries.jsonl").write_text('{"query": "lighthouse keeper pay"}\n')
    prepare = tmp_path / "prepare.yaml"
    prepare.write_text(yaml.safe_dump({"model": str(tiny_llama), "evals": str(tmp_path / "evals")}))
    return GrpoConfig(
        prepare=prepare,
        collections=[CollectionConfig(path=tmp_path / "notes")],
        lora=LoraSettings(rank=4, alpha=8, targets=["q_proj"]),
        ray=RaySettings(),
        steps=1,
        queries=2,
        generations=2,
        rows_per_forward=4,
        learning_rate=1e-5,
        save_steps=1,
    )


def write_collection(folder: Path, *queries: str) -> None:
    folder.mkdir()
    (folder / "corpus.jsonl").write_text('{"_id": "a", "title": "A", "text": "text"}\n')
    rows = [json.dumps({"_id": f"q{number}", "text": query}) + "\n" for number, query in enumerate(queries)]
    (folder / "queries.jsonl").write_text("".join(rows))
    judgements = "".join(f"q{number}\ta\t2\n" for number in range(len(queries)))
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + judgements)


def write_data(folder: Path) -> Path:
    folder.mkdir()
    row = Row("tea storage", "short", "prompt of tea storage", "lex: tea\n")
    (folder / "train.jsonl").write_text(json.dumps(row._asdict()) + "\n")
    return folder


def test_the_queries_of_a_collection_come_after_those_of_the_data(config, tmp_path, tiny_llama):
    write_collection(tmp_path / "notes", "oak shelf bracket")
    queries = load_training_queries(config, write_data(tmp_path / "data"), tiny_llama)
    assert [query.query for query in queries] == ["tea storage", "oak shelf bracket"]
    assert queries[0].prompt == "prompt of tea storage"
    assert queries[1].prompt == prompt_text("oak shelf bracket", bos_token(tiny_llama))


def test_queries_that_models_are_judged_on_are_left_out(config, tmp_path, tiny_llama, caplog):
    write_collection(tmp_path / "notes", "Lighthouse keeper pay?", "oak shelf bracket")
    queries = load_training_queries(config, write_data(tmp_path / "data"), tiny_llama)
    assert [query.query for query in queries] == ["tea storage", "oak shelf bracket"]
    assert "1 of 2 queries left out" in caplog.text


def test_a_collection_that_models_are_judged_on_is_refused(config, tmp_path, tiny_llama):
    write_collection(tmp_path / "notes", "Lighthouse keeper pay?")
    with pytest.raises(DataError, match="notes: models are judged on all of its 1 queries"):
        load_training_queries(config, write_data(tmp_path / "data"), tiny_llama)


def test_every_query_comes_once_before_one_comes_again():
    queries = [TrainingQuery(word, word) for word in ("tea", "dune", "fjord")]
    order = in_training_order(queries, 8, seed=0)
    assert sorted(order[:3]) == sorted(order[3:6]) == sorted(queries)
    assert order == in_training_order(queries, 9, seed=0)[:8] != in_training_order(queries, 8, seed=1)


def test_queries_that_qmd_does_not_expand_are_left_out():
    class ClearWinner:
        """A reward service whose search finds a clear winner for queries of one word."""

        def score_retrieval(self, query, expansion, collection):  # noqa: ARG002
            assert collection == "notes"
            return reward_pb2.RetrievalScore(is_strong_signal=" " not in query)

    queries = [TrainingQuery("", "tea"), TrainingQuery("", "tea", "notes"), TrainingQuery("", "tea tins", "notes")]
    assert expanded_queries(queries, ClearWinner()) == [queries[0], queries[2]]
    with pytest.raises(DataError, match="nothing to train on: QMD expands none of the 1 queries"):
        expanded_queries(queries[1:2], ClearWinner())
