"""What models are asked: the eval queries with their slices, and the judged collections."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from evaluator.config import EvaluatorConfig
from qmd_reward.features import find_entities
from qmd_schema.artifacts import sha256_json
from qmd_schema.config import StrictModel
from qmd_schema.errors import DataError
from qmd_schema.expansion import split_only
from qmd_search.collections import Collection, load_collection

SOURCE = "queries"
"""The first part of an eval query's key, where a judged query has the name of its collection."""


class EvalQuery(StrictModel):
    """One query that is not judged: its expansion is looked at, not what it finds."""

    id: str = Field(min_length=1)
    query: str = Field(min_length=1)
    slice: str = Field(min_length=1)

    @property
    def key(self) -> str:
        return f"{SOURCE}/{self.id}"


@dataclass(frozen=True)
class EvalSet:
    """Everything that is asked. A query's key is "queries/ID" or "COLLECTION/ID"."""

    queries: tuple[EvalQuery, ...]
    collections: tuple[Collection, ...]

    @cached_property
    def eval_texts(self) -> dict[str, str]:
        """Key -> text of the eval queries."""
        return {query.key: query.query for query in self.queries}

    @cached_property
    def texts(self) -> dict[str, str]:
        """Key -> text of every query."""
        judged = {f"{c.name}/{id_}": text for c in self.collections for id_, text in c.queries.items()}
        return self.eval_texts | judged

    @property
    def slices(self) -> dict[str, str]:
        return {query.key: query.slice for query in self.queries}

    @property
    def sha256(self) -> str:
        """The hash of queries, documents and judgements."""
        queries = [[query.id, query.query, query.slice] for query in self.queries]
        collections = [
            [c.name, [[d.id, d.title, d.text] for d in c.documents], c.queries, c.qrels] for c in self.collections
        ]
        return sha256_json([queries, collections])


def load_eval_set(config: EvaluatorConfig) -> EvalSet:
    """Reads what the config names. Raises DataError that says file, line and remedy."""
    collections = tuple(load_collection(collection.path, collection.split) for collection in config.collections)
    names = [collection.name for collection in collections]
    for name in names:
        if names.count(name) > 1 or name == SOURCE:
            raise DataError(f"collections: the name {name} is taken; rename the folder of one collection.")
    for collection in collections:
        if len(collection.queries) < 2:
            raise DataError(f"collection {collection.name}: one judged query; an interval wants at least 2.")
    queries = load_eval_queries(config.queries)
    eval_set = EvalSet(
        _choose(queries, config.queries_per_slice),
        tuple(_choose_judged(collection, config.queries_per_collection) for collection in collections),
    )
    if sum(bool(find_entities(split_only(text)[0].split())) for text in eval_set.texts.values()) < 2:
        raise DataError("the eval set: fewer than 2 queries name an entity, so dropped entities cannot be measured.")
    return eval_set


def load_eval_queries(path: Path) -> tuple[EvalQuery, ...]:
    """Reads eval queries, JSONL. Raises DataError that lists every bad line."""
    if not path.is_file():
        raise DataError(f"{path}: no such file of eval queries.")
    queries: list[EvalQuery] = []
    problems: list[str] = []
    ids: set[str] = set()
    texts: set[str] = set()
    for number, raw in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            query = EvalQuery.model_validate(json.loads(raw))
        except ValidationError as error:
            problems += [f"{path}:{number}: {_describe(dict(entry))}" for entry in error.errors()]
            continue
        except ValueError as error:
            problems.append(f"{path}:{number}: not JSON in UTF-8: {error}.")
            continue
        if query.id in ids or query.query in texts:
            problems.append(f"{path}:{number}: id {query.id} or its query occurs a second time; remove one.")
        ids.add(query.id)
        texts.add(query.query)
        queries.append(query)
    sizes = {query.slice: sum(q.slice == query.slice for q in queries) for query in queries}
    problems += [
        f"{path}: slice {name} has one query; an interval wants at least 2." for name in sizes if sizes[name] < 2
    ]
    if problems or not queries:
        raise DataError("\n".join(problems) or f"{path}: the file is empty; it wants eval queries.")
    return tuple(queries)


def spread(keys: list[str]) -> list[str]:
    """The keys in an order that is always the same and has nothing to do with their meaning."""
    return sorted(keys, key=lambda key: hashlib.sha256(key.encode()).digest())


def _choose(queries: tuple[EvalQuery, ...], per_slice: int | None) -> tuple[EvalQuery, ...]:
    """At most `per_slice` queries of each slice, always the same ones, in the order of the file."""
    if per_slice is None:
        return queries
    chosen: set[str] = set()
    for name in {query.slice for query in queries}:
        chosen.update(spread([query.key for query in queries if query.slice == name])[:per_slice])
    return tuple(query for query in queries if query.key in chosen)


def _choose_judged(collection: Collection, limit: int | None) -> Collection:
    """The collection with at most `limit` of its judged queries, always the same ones."""
    chosen = set(spread(list(collection.queries))[:limit])
    queries = {id_: text for id_, text in collection.queries.items() if id_ in chosen}
    return replace(collection, queries=queries, qrels={id_: collection.qrels[id_] for id_ in queries})


def _describe(entry: dict[str, Any]) -> str:
    field = ".".join(str(part) for part in entry["loc"]) or "the line"
    return f'{field}: {entry["msg"]}; a line is {{"id": …, "query": …, "slice": …}}.'
