"""Preparation: duplicates, leaks, the split, rendering and tokens."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmd_schema.artifacts import read_manifest
from qmd_schema.config import CollectionConfig
from qmd_schema.contract import prompt_text
from qmd_schema.errors import ArtifactError, DataError
from qmd_schema.examples import LoadedExample, TrainingExample
from qmd_search.collections import Collection, Document
from support.searching import write_collection
from trainer.config import PrepareConfig
from trainer.dataset import (
    EvalQuery,
    Row,
    deduplicate,
    find_leaks,
    grouped_order,
    load_eval_queries,
    load_rows,
    load_training_rows,
    prepare,
    split_by_slice,
    tokenize_rows,
)
from trainer.similarity import normalise

OUTPUT = [("hyde", "Tea leaves stay dry in a tin."), ("lex", "tea tin"), ("vec", "how to keep tea leaves dry")]


def loaded(query: str, category: str = "short", line: int = 1) -> LoadedExample:
    example = TrainingExample(query=query, output=OUTPUT, category=category)
    return LoadedExample(example, Path("data/a.jsonl"), line)


def leaks(query: str, evaluation: str, threshold: float = 0.6) -> list[float]:
    found = find_leaks([loaded(query)], [EvalQuery(evaluation, "evals/queries.jsonl:1")], threshold)
    return [leak.similarity for leak in found]


@pytest.fixture
def sources(tmp_path: Path, tiny_llama: Path) -> PrepareConfig:
    """A config over 20 examples in two slices and one evaluation query."""
    (tmp_path / "data").mkdir()
    (tmp_path / "evals/collections/notes").mkdir(parents=True)
    (tmp_path / "evals/queries.jsonl").write_text('{"id": "1", "query": "zeppelin mooring", "slice": "short"}\n')
    (tmp_path / "evals/collections/notes/queries.jsonl").write_text('{"_id": "q1", "text": "lighthouse keeper pay"}\n')
    (tmp_path / "mine.jsonl").write_text('{"_id": "q1", "text": "falconry glove size"}\n')
    words = ["amber", "birch", "cobalt", "delta", "elm", "fern", "gneiss", "heron", "iris", "jade"]
    rows = [
        {"query": f"{word} tea {slice_}", "output": OUTPUT, "category": slice_}
        for word in words
        for slice_ in ("short", "facts")
    ]
    (tmp_path / "data/a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PrepareConfig(
        model=str(tiny_llama),
        data=tmp_path / "data",
        evals=tmp_path / "evals",
        judged=[tmp_path / "mine.jsonl"],
        near_duplicate=0.9,
    )


def add(config: PrepareConfig, query: str) -> None:
    with (config.data / "a.jsonl").open("a") as file:
        file.write(json.dumps({"query": query, "output": OUTPUT}) + "\n")


def test_what_a_collection_trains_on_is_no_leak(sources: PrepareConfig):
    folder = sources.evals / "collections/notes"
    with (folder / "queries.jsonl").open("a") as file:
        file.write('{"_id": "t1", "text": "harbour crane rental"}\n{"_id": "t2", "text": "ferry in fog"}\n')
    header = "query-id\tcorpus-id\tscore\n"
    (folder / "qrels_train.tsv").write_text(f"{header}t1\ta\t2\nt2\ta\t2\n")
    (folder / "qrels_test.tsv").write_text(f"{header}q1\ta\t2\nt2\ta\t1\n")
    judged = [query.text for query in load_eval_queries(sources)]
    assert judged == ["zeppelin mooring", "lighthouse keeper pay", "ferry in fog", "falconry glove size"]


@pytest.mark.parametrize("line", [b'"tea"', b'{"text": 1', b'{"name": "tea"}', b'{"query": "th\xe9"}'])
def test_a_line_that_holds_no_evaluation_query_is_told_with_its_number(sources: PrepareConfig, line: bytes):
    (sources.evals / "queries.jsonl").write_bytes(b'{"query": "ferry in fog"}\n' + line + b"\n")
    with pytest.raises(DataError, match=r'queries.jsonl:2: wants an object with "query" or "text"'):
        load_eval_queries(sources)


def test_case_and_spacing_make_no_new_query():
    kept, dropped = deduplicate([loaded("Tea tin"), loaded("tea  TIN", line=2), loaded("tea tins")])
    assert [example.example.query for example in kept] == ["Tea tin", "tea tins"]
    assert [example.line for example in dropped] == [2]


def test_signs_make_another_query():
    kept, _ = deduplicate(
        [loaded("java coffee"), loaded("java -coffee"), loaded("c templates"), loaded("c++ templates")]
    )
    assert len(kept) == 4


def test_leaks_are_found_behind_case_punctuation_and_only_endings():
    assert leaks("No space left on device!", "no space left on device /only:lex") == [1.0]


def test_reworded_queries_are_leaks():
    assert leaks("which paint color did we use in hallway", "which paint colour did i use in the hallway")


@pytest.mark.parametrize(
    ("query", "evaluation"),
    [("how to make cold brew", "how to make tempeh"), ("raft", "graft"), ("onboarding", "onboarding checklist")],
)
def test_queries_that_share_some_words_are_no_leaks(query, evaluation):
    assert not leaks(query, evaluation)


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1))
def test_every_query_with_a_word_leaks_into_itself(query):
    if normalise(query):
        assert leaks(query, query) == [1.0]


def test_the_split_takes_its_share_of_every_slice_and_loses_nothing():
    examples = [loaded(f"{name} {number}", name) for name in ("short", "facts") for number in range(50)]
    train, validation = split_by_slice(examples, 0.1, seed=3)
    assert Counter(example.example.category for example in validation) == {"short": 5, "facts": 5}
    assert sorted(e.example.query for e in train + validation) == sorted(e.example.query for e in examples)
    assert (train, validation) == split_by_slice(examples, 0.1, seed=3)
    assert validation != split_by_slice(examples, 0.1, seed=4)[1]


def test_a_slice_of_one_is_trained_on():
    train, validation = split_by_slice([loaded("tea")], 0.1, seed=0)
    assert (len(train), len(validation)) == (1, 0)


def test_rows_are_rendered_as_qmd_sends_and_expects_them(sources, tmp_path):
    prepare(sources, tmp_path / "out")
    row = load_rows(tmp_path / "out", "train")[0]
    assert row.prompt == prompt_text(row.query, "<|im_start|>")
    assert row.completion == (
        "hyde: Tea leaves stay dry in a tin.\nlex: tea tin\nvec: how to keep tea leaves dry\n<|im_end|>"
    )


def test_the_manifest_counts_and_hashes(sources, tmp_path):
    add(sources, "AMBER tea short")
    prepare(sources, tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert manifest.figures["examples"] == 21
    assert manifest.figures["duplicates"] == [f"{sources.data}/a.jsonl:21"]
    assert (manifest.figures["train"], manifest.figures["val"]) == (18, 2)
    assert set(manifest.outputs) == {"train.jsonl", "val.jsonl", "dictated.jsonl"}
    assert f"{sources.data}/a.jsonl" in manifest.inputs


@pytest.fixture
def dictating(sources: PrepareConfig, tmp_path: Path) -> PrepareConfig:
    """The same config, with a collection one of whose five queries may be learnt from."""
    note = Document("bread", "Sourdough", "Feed the rye starter the evening before.")
    texts = [
        "feed the starter",
        "Falconry glove size?",
        "Amber  Tea short",
        "rye starter /only:lex",
        "FEED the starter",
    ]
    queries = {f"q{number}": text for number, text in enumerate(texts)}
    write_collection(
        Collection("notes", (note,), queries, {query: {"bread": 2} for query in queries}), tmp_path / "n", "train"
    )
    collections = [CollectionConfig(path=tmp_path / "n", split="train")]
    return sources.model_copy(update={"dictation": collections})


def test_judged_queries_become_rows_but_for_judged_known_and_unfit_ones(dictating, tmp_path):
    prepare(dictating, tmp_path / "out")
    [row] = load_rows(tmp_path / "out", "dictated")
    assert (row.query, row.slice, row.prompt) == (
        "feed the starter",
        "n",
        prompt_text("feed the starter", "<|im_start|>"),
    )
    assert row.completion == (
        "hyde: feed the starter: Sourdough\nlex: feed starter\n"
        "vec: feed the starter: Feed the rye starter the evening before.\n<|im_end|>"
    )
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.figures["dictated"], manifest.figures["dictated_left_out"]) == (1, 4)
    assert {f"{tmp_path}/n/{name}" for name in ("corpus.jsonl", "queries.jsonl", "qrels_train.tsv")} <= set(
        manifest.inputs
    )


def test_an_epoch_has_each_dictated_row_as_often_as_wanted(dictating, sources, tmp_path):
    prepare(dictating, tmp_path / "out")
    prepare(sources, tmp_path / "plain")
    plain = load_training_rows(tmp_path / "plain", 3)
    assert plain == load_rows(tmp_path / "plain", "train")
    assert load_training_rows(tmp_path / "out", 3) == plain + load_rows(tmp_path / "out", "dictated") * 3
    (tmp_path / "plain/dictated.jsonl").unlink()
    assert load_training_rows(tmp_path / "plain", 3) == plain


@pytest.mark.parametrize("query", ["Zeppelin mooring?", "lighthouse keeper pay /only:lex", "falconry glove size"])
def test_a_leak_fails_the_run_and_writes_nothing(sources, tmp_path, query):
    add(sources, query)
    with pytest.raises(DataError, match=r"a\.jsonl:21: query .* is the same as .*\.jsonl:1"):
        prepare(sources, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_example_that_breaks_the_contract_is_named(sources, tmp_path):
    with (sources.data / "a.jsonl").open("a") as file:
        file.write(json.dumps({"query": "tea", "output": [["lex", "tea tin"]]}) + "\n")
    with pytest.raises(DataError, match=r"a\.jsonl:21: .*0 hyde lines"):
        prepare(sources, tmp_path / "out")


def test_an_empty_data_folder_and_absent_rows_are_named(sources, tmp_path):
    with pytest.raises(DataError, match=r"no \*\.jsonl file"):
        prepare(sources.model_copy(update={"data": tmp_path / "nowhere"}), tmp_path / "out")
    with pytest.raises(ArtifactError, match=r"nowhere/train\.jsonl"):
        load_rows(tmp_path / "nowhere", "train")


def test_tokens_keep_the_doubled_bos_and_mask_the_prompt(tiny_llama):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    row = Row("tea", "short", prompt_text("tea", "<|im_start|>"), "lex: tea tin\n<|im_end|>")
    (tokens,) = tokenize_rows([row], tiny_llama, 512)
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert tokens.input_ids[:2] == [start, start] and tokens.input_ids[2] != start
    assert tokens.input_ids[-1] == end
    assert tokens.input_ids == tokenizer(row.prompt + row.completion, add_special_tokens=False)["input_ids"]
    answer = [token for token, wanted in zip(tokens.input_ids, tokens.completion_mask, strict=True) if wanted]
    assert tokenizer.decode(answer) == row.completion


def test_a_row_that_is_too_long_is_an_error(tiny_llama):
    row = Row("tea", "short", prompt_text("tea", "<|im_start|>"), "lex: tea\n" * 200)
    with pytest.raises(DataError, match=r"'tea'.*tokens.*\n.*max_length is 512"):
        tokenize_rows([row], tiny_llama, 512)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=300), st.integers(1, 20), st.integers(0, 9))
def test_an_epoch_visits_every_row_once_in_an_order_of_its_own(lengths, batch, epoch):
    order = grouped_order(lengths, batch, seed=1, epoch=epoch)
    assert sorted(order) == list(range(len(lengths)))
    assert order == grouped_order(lengths, batch, seed=1, epoch=epoch)


def test_batches_hold_rows_of_like_length():
    lengths = [100 + index % 160 for index in range(1600)]
    order = grouped_order(lengths, 16, seed=0, epoch=0)
    batches = [[lengths[index] for index in order[start : start + 16]] for start in range(0, 1600, 16)]
    assert sum(max(batch) * 16 for batch in batches) < 1.08 * sum(lengths)
    assert order != grouped_order(lengths, 16, seed=0, epoch=1)


def test_checking_data_needs_no_torch():
    heavy = "{'torch', 'ray', 'transformers', 'sentence_transformers'}"
    code = f"import sys, trainer.curation, trainer.synthesis; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
