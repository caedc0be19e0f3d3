"""The queries that rewards train on: those of the prepared data, and those of judged collections."""

import logging
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from qmd_rpc.reward import RewardClient
from qmd_schema.config import CollectionConfig, load_config
from qmd_schema.contract import bos_token, prompt_text
from qmd_schema.errors import DataError, UserError
from qmd_search.collections import load_collection
from trainer.config import GrpoConfig, PrepareConfig
from trainer.dataset import load_eval_queries, load_rows
from trainer.services import CALLS_IN_FLIGHT
from trainer.similarity import SimilarityIndex

logger = logging.getLogger(__name__)


class TrainingQuery(NamedTuple):
    """A query, and the prompt that QMD would send for it."""

    prompt: str
    query: str
    collection: str | None = None
    """The judged collection it is asked of; None where nothing is known of what it should find."""


def load_training_queries(config: GrpoConfig, data: Path, model: Path) -> list[TrainingQuery]:
    """The queries of the training rows, then those of `config.collections`.

    data: folder that `prepare` wrote. Raises DataError for a collection of which models are judged on every query.
    """
    queries = [TrainingQuery(row.prompt, row.query) for row in load_rows(data, "train")]
    return queries + load_judged_queries(config.collections, config.prepare, model)


def in_training_order(queries: Sequence[TrainingQuery], count: int, seed: int) -> list[TrainingQuery]:
    """`count` queries: the whole set in a random order, then in another one, and so on."""
    chance = random.Random(seed)
    order: list[TrainingQuery] = []
    while len(order) < count:
        order += chance.sample(queries, len(queries))
    return order[:count]


def load_judged_queries(collections: Sequence[CollectionConfig], prepare: Path, model: Path) -> list[TrainingQuery]:
    """The queries of collections to train on, in their order, without those that models are judged on, or nearly.

    prepare: the config that says which these are. Raises DataError for a collection of which no query is left.
    """
    if not collections:
        return []
    bos = bos_token(model)
    settings = load_config(prepare, PrepareConfig)
    judged = SimilarityIndex(query.text for query in load_eval_queries(settings))
    queries: list[TrainingQuery] = []
    for config in collections:
        texts = dict.fromkeys(load_collection(config.path, config.split).queries.values())
        kept = [text for text in texts if not judged.similar(text, settings.near_duplicate)]
        if not kept:
            raise DataError(
                f"{config.path}: models are judged on all of its {len(texts):,} queries, or nearly, and must not be "
                "trained on these. Name another split or collection."
            )
        if len(kept) < len(texts):
            logger.warning(
                "%s: %d of %d queries left out, which models are judged on, or nearly",
                config.path,
                len(texts) - len(kept),
                len(texts),
            )
        queries += [TrainingQuery(prompt_text(text, bos), text, config.name) for text in kept]
    return queries


def expanded_queries(queries: Sequence[TrainingQuery], reward: RewardClient) -> list[TrainingQuery]:
    """The queries without those of collections where keywords find a clear winner: QMD does not expand these.

    Raises DataError where none is left.
    """

    def is_expanded(query: TrainingQuery) -> bool:
        if query.collection is None:
            return True
        return not reward.score_retrieval(query.query, f"vec: {query.query}\n", query.collection).is_strong_signal

    with ThreadPoolExecutor(CALLS_IN_FLIGHT) as threads:
        expanded = [query for query, keep in zip(queries, threads.map(is_expanded, queries), strict=True) if keep]
    if not expanded:
        raise DataError(f"nothing to train on: QMD expands none of the {len(queries):,} queries")
    return expanded


def check_searched(collections: Sequence[CollectionConfig], reward: RewardClient) -> None:
    """Raises UserError for a collection to train on that the reward service does not search, ServiceError if away."""
    searched = {collection.name for collection in reward.collections()} if collections else set()
    if missing := [str(collection.path) for collection in collections if collection.name not in searched]:
        raise UserError(
            f"reward service at {reward.address}: does not search {', '.join(missing)}, which is to be trained on. "
            "Name it under `collections` in the service's config as well, and start it again."
        )
