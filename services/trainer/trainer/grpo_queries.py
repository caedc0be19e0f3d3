"""The queries GRPO trains on: those of the prepared data, and those of judged collections."""

from pathlib import Path
from typing import NamedTuple

from qmd_schema.config import load_config
from qmd_schema.contract import bos_token, prompt_text
from qmd_schema.errors import DataError
from qmd_search.collections import load_collection
from trainer.config import GrpoConfig, PrepareConfig
from trainer.dataset import load_eval_queries, load_rows
from trainer.similarity import SimilarityIndex


class TrainingQuery(NamedTuple):
    """A query, and the prompt that QMD would send for it."""

    prompt: str
    query: str
    collection: str | None = None
    """The judged collection it is asked of; None where nothing is known of what it should find."""


def load_training_queries(config: GrpoConfig, data: Path, model: Path) -> list[TrainingQuery]:
    """The queries of the training rows, then those of `config.collections`.

    data: folder that `prepare` wrote. Raises DataError when a collection holds a query that models are judged on.
    """
    queries = [TrainingQuery(row.prompt, row.query) for row in load_rows(data, "train")]
    bos = bos_token(model)
    for folder in config.collections:
        collection = load_collection(folder)
        queries += [
            TrainingQuery(prompt_text(query, bos), query, collection.name) for query in collection.queries.values()
        ]
    if config.collections:
        _check_leaks(config, [query.query for query in queries])
    return queries


def _check_leaks(config: GrpoConfig, queries: list[str]) -> None:
    prepare = load_config(config.prepare, PrepareConfig)
    evaluation = load_eval_queries(prepare.evals)
    index = SimilarityIndex(query.text for query in evaluation)
    leaks = [
        f"query {query!r} is {similarity:.2f} similar to {evaluation[number].text!r} ({evaluation[number].where})"
        for query in queries
        for number, similarity in index.similar(query, prepare.near_duplicate).items()
    ]
    if leaks:
        raise DataError(
            "\n".join(leaks) + "\nA model must not be judged on what it was trained on. `foundry data synth` leaves "
            f"such queries out; take them out of these collections: {', '.join(map(str, config.collections))}."
        )
