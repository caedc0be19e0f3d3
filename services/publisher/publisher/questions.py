"""What every file of a publication is asked: prompts whose tokens and logits are compared, queries it answers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from publisher.config import ParityConfig
from qmd_schema.config import StrictModel
from qmd_schema.errors import DataError

PROBE_QUERY = "how to back up photos from an old phone"
"""Asked of every file first; its answer is the example in the cards."""

Item = TypeVar("Item")


class Question(StrictModel):
    """A query that every file answers."""

    text: str
    judged: str | None = None
    """Its id in the collection, whose judgements tell what the answer does to the search."""


class Questions(StrictModel):
    """All that is asked, in the order it is asked in."""

    prompts: list[str]
    """Queries whose prompts are compared token by token."""
    asked: list[Question]
    seed: int


def read_questions(config: ParityConfig) -> Questions:
    """Takes queries evenly from the whole of each source. Raises DataError for a source that cannot be read."""
    texts = list(dict.fromkeys([PROBE_QUERY, *_read_queries(config.queries)]))
    asked = [Question(text=text) for text in evenly(texts, config.answers)]
    if config.collection is not None:
        from qmd_search.collections import load_collection

        judged = load_collection(config.collection.path, config.collection.split).queries
        asked += [Question(text=judged[id_], judged=id_) for id_ in evenly(list(judged), config.answers)]
    return Questions(prompts=evenly(texts, config.prompts), asked=asked, seed=config.seed)


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """`count` items from the whole of a list, or all where there are fewer; the first is always among them."""
    if len(items) <= count:
        return list(items)
    return [items[place * len(items) // count] for place in range(count)]


def _read_queries(path: Path) -> list[str]:
    if not path.is_file():
        raise DataError(f"{path}: no such file of queries. Set parity.queries to a JSONL file with a query a line.")
    queries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            queries.append(str(json.loads(line)["query"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f'{path}:{number}: wants an object with "query" ({error!r}).') from error
    if not queries:
        raise DataError(f"{path}: the file is empty; it wants at least one query.")
    return queries
