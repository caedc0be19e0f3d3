"""Training data: one row a query, no duplicates, nothing of the evaluation sets, split and rendered."""

import json
import random
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from qmd_schema.artifacts import folder_written_atomically, sha256_file, write_manifest
from qmd_schema.contract import bos_token, prompt_text
from qmd_schema.errors import ArtifactError, DataError
from qmd_schema.examples import LoadedExample, load_examples
from qmd_schema.expansion import render
from trainer.base_models import resolve_model
from trainer.config import PrepareConfig
from trainer.dictation import dictated_answers
from trainer.similarity import SimilarityIndex

UNSLICED = "other"
"""The slice of examples without a category."""


class Row(NamedTuple):
    """One line of train.jsonl, val.jsonl or dictated.jsonl."""

    query: str
    slice: str
    prompt: str
    """All that QMD sends, up to where the answer begins."""
    completion: str
    """The answer, each line ended by a newline, then the tokenizer's EOS."""


class TokenizedRow(NamedTuple):
    """A row as the model sees it."""

    input_ids: list[int]
    completion_mask: list[int]
    """1 on the answer's tokens and its EOS, 0 on the prompt's."""


@dataclass(frozen=True)
class EvalQuery:
    """A query that models are judged on."""

    text: str
    where: str


@dataclass(frozen=True)
class Leak:
    """A training query that is an evaluation query, or nearly one."""

    training: LoadedExample
    evaluation: EvalQuery
    similarity: float
    """Jaccard index of character trigrams, 1.0 for the same text."""

    def __str__(self) -> str:
        how = "the same as" if self.similarity == 1 else f"{self.similarity:.2f} similar to"
        return (
            f"{self.training.where}: query {self.training.example.query!r} is {how} "
            f"{self.evaluation.text!r} ({self.evaluation.where})"
        )


def deduplicate(examples: Iterable[LoadedExample]) -> tuple[list[LoadedExample], list[LoadedExample]]:
    """The first example of each query, and the later ones that are dropped.

    Queries are the same when they differ in case and spacing only: a sign may be meant (`c++`, `java -coffee`).
    """
    kept: dict[str, LoadedExample] = {}
    dropped: list[LoadedExample] = []
    for loaded in examples:
        key = _same(loaded.example.query)
        if key in kept:
            dropped.append(loaded)
        else:
            kept[key] = loaded
    return list(kept.values()), dropped


def _same(query: str) -> str:
    """The same text for queries that count as the same."""
    return " ".join(unicodedata.normalize("NFKC", query).casefold().split())


def load_eval_queries(config: PrepareConfig) -> list[EvalQuery]:
    """The queries that models are judged on: of a judged collection all but those of its training split alone.

    Raises DataError for a file that is not there or cannot be read.
    """
    own = [config.evals / "queries.jsonl", *sorted(config.evals.glob("collections/*/queries.jsonl"))]
    queries = []
    for path in own + config.judged:
        if not path.is_file():
            raise DataError(f"{path}: no such file; training data cannot be checked for leaks without it.")
        training = _training_ids(path.parent)
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            try:
                value = json.loads(line.decode("utf-8"))
                query = EvalQuery(value["query"] if "query" in value else value["text"], f"{path}:{number}")
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f'{path}:{number}: wants an object with "query" or "text": {error!r}') from error
            if value.get("_id") not in training:
                queries.append(query)
    return queries


def _training_ids(folder: Path) -> set[str]:
    """Ids of the queries that a collection in BEIR's format judges in its training split and in no other."""
    splits = {
        path.name: {line.split("\t")[0] for line in path.read_text(encoding="utf-8").splitlines()[1:]}
        for path in folder.glob("qrels_*.tsv")
    }
    return splits.pop("qrels_train.tsv", set()).difference(*splits.values())


def find_leaks(examples: Iterable[LoadedExample], evaluation: Iterable[EvalQuery], threshold: float) -> list[Leak]:
    """Training queries whose character trigrams overlap with an evaluation query's by `threshold` or more."""
    queries = list(evaluation)
    index = SimilarityIndex(query.text for query in queries)
    return [
        Leak(loaded, queries[number], similarity)
        for loaded in examples
        for number, similarity in index.similar(loaded.example.query, threshold).items()
    ]


def check_leaks(examples: Iterable[LoadedExample], evaluation: Iterable[EvalQuery], threshold: float) -> None:
    """Raises DataError that lists every leak with its remedy."""
    leaks = find_leaks(examples, evaluation, threshold)
    if leaks:
        raise DataError(
            "\n".join(map(str, leaks)) + "\nA model must not be judged on what it was trained on: remove or reword "
            f"these training queries ({len(leaks)})."
        )


def split_by_slice(
    examples: Iterable[LoadedExample], validation_share: float, seed: int
) -> tuple[list[LoadedExample], list[LoadedExample]]:
    """Training and validation examples; every slice of two or more gives its share, at least one, to each."""
    slices: dict[str, list[LoadedExample]] = defaultdict(list)
    for loaded in examples:
        slices[slice_of(loaded)].append(loaded)
    train: list[LoadedExample] = []
    validation: list[LoadedExample] = []
    draw = random.Random(seed)
    for name in sorted(slices):
        members = slices[name]
        draw.shuffle(members)
        held_out = min(max(1, round(len(members) * validation_share)), len(members) - 1)
        validation += members[:held_out]
        train += members[held_out:]
    draw.shuffle(train)
    return train, validation


def slice_of(loaded: LoadedExample) -> str:
    return loaded.example.category or UNSLICED


def render_rows(examples: Iterable[LoadedExample], bos: str | None, eos: str) -> list[Row]:
    """Raises DataError that lists every example whose lines break the contract."""
    rows, problems = [], []
    for loaded in examples:
        query = loaded.example.query
        try:
            answer = render(query, loaded.example.expansion)
        except ValueError as error:
            problems.append(f"{loaded.where}: {error}")
        else:
            rows.append(Row(query, slice_of(loaded), prompt_text(query, bos), answer + eos))
    if problems:
        raise DataError("\n".join(problems))
    return rows


def dictated_rows(
    config: PrepareConfig, known: Iterable[LoadedExample], evaluation: Iterable[EvalQuery], bos: str | None, eos: str
) -> tuple[list[Row], int]:
    """A row for each query of the collections of `config.dictation`, and how many queries were left out.

    These are queries that models are judged on, or nearly; those of `known` examples; and those whose document dictates
    nothing that keeps the contract. Raises DataError for a collection that cannot be read.
    """
    index = SimilarityIndex(query.text for query in evaluation)
    taken = {_same(loaded.example.query) for loaded in known}
    rows: list[Row] = []
    dictated = dictated_answers(config.dictation)
    for name, query, expansion in dictated:
        if _same(query) in taken or index.similar(query, config.near_duplicate):
            continue
        taken.add(_same(query))
        with suppress(ValueError):
            rows.append(Row(query, name, prompt_text(query, bos), render(query, expansion) + eos))
    return rows, len(dictated) - len(rows)


def prepare(config: PrepareConfig, output: Path) -> None:
    """Writes a file for each part and the manifest into `output`, or raises and leaves it untouched."""
    started = time.monotonic()
    files = sorted(config.data.glob("*.jsonl"))
    if not files:
        raise DataError(f"{config.data}: no *.jsonl file with training examples. Name another folder with `data`.")
    loaded = load_examples(files)
    kept, dropped = deduplicate(loaded)
    evaluation = load_eval_queries(config)
    check_leaks(kept, evaluation, config.near_duplicate)
    train, validation = split_by_slice(kept, config.validation_share, config.seed)
    if not validation:
        raise DataError(f"{config.data}: {len(kept)} examples are too few to hold some out. Add examples.")
    model = resolve_model(config.model)
    bos, eos = bos_token(model), eos_token(model)
    parts = {"train": render_rows(train, bos, eos), "val": render_rows(validation, bos, eos)}
    dictated, left_out = dictated_rows(config, kept, evaluation, bos, eos)
    parts["dictated"] = dictated
    with folder_written_atomically(output) as folder:
        for part, rows in parts.items():
            write_rows(folder, part, rows)
        write_manifest(
            folder,
            "prepare",
            config,
            inputs={str(path): sha256_file(path) for path in files + config.dictating_files}
            | {name: sha256_file(model / name) for name in ("tokenizer.json", "tokenizer_config.json")},
            seconds=time.monotonic() - started,
            packages=["qmd-schema", "qmd-trainer"],
            seed=config.seed,
            figures={
                "examples": len(loaded),
                "duplicates": [where.where for where in dropped],
                "evaluation_queries": len(evaluation),
                "dictated": len(dictated),
                "dictated_left_out": left_out,
                "train": len(train),
                "val": len(validation),
                "slices": dict(sorted(Counter(map(slice_of, kept)).items())),
            },
        )


def eos_token(model: Path) -> str:
    """The EOS text of a model folder's tokenizer. Raises ArtifactError without one."""
    token = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8")).get("eos_token")
    text = token["content"] if isinstance(token, dict) else token
    if not text:
        raise ArtifactError(f"{model}/tokenizer_config.json: no eos_token; every answer is trained to end in it.")
    return str(text)


def write_rows(data: Path, part: str, rows: Iterable[Row]) -> None:
    """Writes the rows that `load_rows` reads."""
    lines = (json.dumps(row._asdict(), ensure_ascii=False) + "\n" for row in rows)
    (data / f"{part}.jsonl").write_text("".join(lines), encoding="utf-8")


def load_rows(data: Path, part: str) -> list[Row]:
    """Rows that `prepare` wrote; part: "train", "val" or "dictated"."""
    path = data / f"{part}.jsonl"
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file. Write it with: python -m trainer prepare --output {data}")
    try:
        with path.open(encoding="utf-8") as file:
            return [Row(**json.loads(line)) for line in file]
    except (ValueError, TypeError) as error:
        raise ArtifactError(f"{path}: not as `prepare` writes it: {error}. Prepare the data again.") from error


def load_training_rows(data: Path, dictated_copies: int) -> list[Row]:
    """The rows of an epoch. Those that no document dictated come once, as do all where there are no others."""
    dictated = load_rows(data, "dictated") if (data / "dictated.jsonl").is_file() else []
    return load_rows(data, "train") + dictated * dictated_copies


def tokenize_rows(rows: Sequence[Row], model: Path, max_length: int) -> list[TokenizedRow]:
    """Token ids without added special tokens, prompt and answer each by itself, as they meet when QMD samples.

    Raises DataError that lists the rows of more than `max_length` tokens: a cut answer would never learn to end.
    """
    encode = _encoder(model)
    tokenized, problems = [], []
    for row in rows:
        prompt, completion = encode(row.prompt), encode(row.completion)
        if len(prompt) + len(completion) > max_length:
            problems.append(f"query {row.query!r}: {len(prompt) + len(completion)} tokens with its answer")
        tokenized.append(TokenizedRow(prompt + completion, [0] * len(prompt) + [1] * len(completion)))
    if problems:
        raise DataError("\n".join(problems) + f"\nmax_length is {max_length}: shorten the examples or raise it.")
    return tokenized


def grouped_order(lengths: Sequence[int], batch: int, seed: int, epoch: int) -> list[int]:
    """Row indices of one epoch: random, but with rows of like length in the same batch, so that little is padded.

    Rows are drawn into pools of 16 batches, each pool is sorted, and its batches are shuffled.
    """
    draw = random.Random(seed * 1_000_003 + epoch)
    indices = draw.sample(range(len(lengths)), len(lengths))
    pools = [indices[start : start + 16 * batch] for start in range(0, len(indices), 16 * batch)]
    batches = []
    for pool in pools:
        ordered = sorted(pool, key=lambda index: lengths[index])
        batches += [ordered[start : start + batch] for start in range(0, len(ordered), batch)]
    short = [part for part in batches if len(part) < batch]
    whole = [part for part in batches if len(part) == batch]
    draw.shuffle(whole)
    return [index for part in whole + short for index in part]


def _encoder(model: Path) -> Callable[[str], list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)
