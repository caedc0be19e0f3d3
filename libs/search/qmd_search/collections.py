"""Judged document collections in BEIR's format, read strictly."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from qmd_schema.errors import DataError

QRELS_HEADER = ["query-id", "corpus-id", "score"]
_MAX_PROBLEMS_SHOWN = 50


@dataclass(frozen=True)
class Document:
    id: str
    title: str
    text: str


@dataclass(frozen=True)
class Collection:
    """Documents with queries and judgements; all three in the order of their files."""

    name: str
    documents: tuple[Document, ...]
    queries: dict[str, str]
    """Query id -> text, of the judged queries alone."""
    qrels: dict[str, dict[str, int]]
    """Query id -> document id -> relevance, 0 for judged not relevant. Every query has a relevant document."""


def load_documents(folder: Path) -> Collection:
    """The documents of a BEIR folder's `corpus.jsonl`, without queries and judgements.

    Raises DataError that lists every bad line with its remedy.
    """
    documents = _read_unique(folder / "corpus.jsonl", _document)
    return Collection(folder.resolve().name, tuple(documents.values()), {}, {})


def load_collection(folder: Path, split: str | None = None) -> Collection:
    """A BEIR folder: `corpus.jsonl`, `queries.jsonl` and `qrels_SPLIT.tsv`, or `qrels.tsv` without a split.

    Raises DataError that lists every bad line with its remedy: malformed, an id twice, a judgement of a document or
    query that does not exist, a query without a relevant document.
    """
    corpus = load_documents(folder)
    queries = _read_unique(folder / "queries.jsonl", _query)
    path = folder / (f"qrels_{split}.tsv" if split else "qrels.tsv")
    if not path.is_file():
        there = ", ".join(sorted(file.name for file in folder.glob("qrels*.tsv"))) or "none"
        raise DataError(f"{path}: no such file of judgements; {folder} holds {there}")
    qrels = _read_qrels(path, queries, {document.id for document in corpus.documents})
    judged = {query: text for query, text in queries.items() if query in qrels}
    return Collection(corpus.name, corpus.documents, judged, {query: qrels[query] for query in judged})


Item = TypeVar("Item")


def _read_unique(path: Path, read: Callable[[dict[str, Any]], Item]) -> dict[str, Item]:
    """The items of a JSONL file by their `_id`."""
    items: dict[str, Item] = {}
    problems: list[str] = []
    for number, raw in enumerate(_lines(path), start=1):
        try:
            value = json.loads(raw.decode("utf-8"))
            if not isinstance(value, dict):
                raise ValueError('wants an object with "_id" and "text"')
            name = _text(value, "_id")
            if name in items:
                raise ValueError(f'_id "{name}" occurs a second time; ids are unique')
            items[name] = read(value)
        except ValueError as error:
            problems.append(f"{path}:{number}: {_explain(error)}")
    _raise(problems)
    if not items:
        raise DataError(f"{path}: the file is empty; it wants at least one line")
    return items


def _document(value: dict[str, Any]) -> Document:
    title = _text(value, "title") if value.get("title") else ""
    return Document(value["_id"], title, _text(value, "text"))


def _query(value: dict[str, Any]) -> str:
    return _text(value, "text")


def _text(value: dict[str, Any], field: str) -> str:
    text = value.get(field)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f'field "{field}" is {json.dumps(text)}; it wants a non-empty string')
    text.encode("utf-8")
    return text


def _read_qrels(path: Path, queries: dict[str, str], documents: set[str]) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    problems: list[str] = []
    for number, raw in enumerate(_lines(path), start=1):
        try:
            row = raw.decode("utf-8").rstrip("\r\n").split("\t")
            if number == 1:
                if row != QRELS_HEADER:
                    raise ValueError("wants the header query-id, corpus-id, score, separated by tabs")
                continue
            query, document, relevance = _judgement(row)
            if query not in queries:
                raise ValueError(f'query "{query}" is not in queries.jsonl')
            if document not in documents:
                raise ValueError(f'document "{document}" is not in corpus.jsonl')
            if document in qrels.setdefault(query, {}):
                raise ValueError(f'query "{query}" and document "{document}" are judged a second time')
            qrels[query][document] = relevance
        except ValueError as error:
            problems.append(f"{path}:{number}: {_explain(error)}")
    if not problems:
        if not qrels:
            problems.append(f"{path}: holds no judgement; it wants at least one")
        problems += [
            f'{path}: query "{query}" has no relevant document (score 1 or more), so nothing can be measured by it'
            for query, judged in qrels.items()
            if not any(judged.values())
        ]
    _raise(problems)
    return qrels


def _judgement(row: list[str]) -> tuple[str, str, int]:
    if len(row) != len(QRELS_HEADER) or not row[2].isdecimal():
        raise ValueError("wants a query id, a document id and a whole number from 0, separated by tabs")
    return row[0], row[1], int(row[2])


def _lines(path: Path) -> list[bytes]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; a BEIR folder holds corpus.jsonl, queries.jsonl and qrels.tsv")
    return path.read_bytes().splitlines()


def _explain(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON at column {error.colno}: {error.msg}"
    if isinstance(error, UnicodeError):
        return "invalid UTF-8; save the file as UTF-8"
    return str(error)


def _raise(problems: list[str]) -> None:
    if problems:
        shown = problems[:_MAX_PROBLEMS_SHOWN]
        if len(problems) > len(shown):
            shown.append(f"… and {len(problems) - len(shown)} more")
        raise DataError("\n".join(shown))
