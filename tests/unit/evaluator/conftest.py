"""A tiny eval set: gardening notes with judged queries, and a few eval queries in two slices."""

import json
from pathlib import Path

import pytest

from evaluator.config import EvaluatorConfig
from evaluator.evalset import EvalSet, load_eval_set
from qmd_schema.config import CollectionConfig

DOCUMENTS = {
    "tomato": ("Tomato blight", "Late blight on tomato leaves: remove them, water the soil and not the leaf."),
    "compost": ("Compost heap", "Turn the compost heap every two weeks; layers of straw keep it airy."),
    "greenhouse": (
        "Greenhouse frost",
        "An alarm rings when the greenhouse falls below three degrees; Greta set it up.",
    ),
    "pruning": ("Pruning apples", "Prune the apple tree in February, before the buds swell."),
    "rain": ("Rain barrel", "The rain barrel overflows in April; a second tap leads to the bed of lettuce."),
}
JUDGED = {
    "n1": ("spots on tomato leaves", "tomato"),
    "n2": ("Greta frost alarm", "greenhouse"),
    "n3": ("when to prune", "pruning"),
}
EVAL_QUERIES = {
    "short-1": ("mulch", "short"),
    "short-2": ("graft", "short"),
    "entity-1": ("Kubernetes ingress on Hetzner", "named_entity"),
    "entity-2": ("Postgres WAL archiving", "named_entity"),
    "only-1": ("bleeding radiators /only:lex", "only"),
    "only-2": ("slug traps /only:hyde", "only"),
}


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> EvaluatorConfig:
    folder = tmp_path_factory.mktemp("evaluator")
    garden = folder / "garden"
    garden.mkdir()
    write_lines(garden / "corpus.jsonl", [{"_id": i, "title": t, "text": x} for i, (t, x) in DOCUMENTS.items()])
    write_lines(garden / "queries.jsonl", [{"_id": i, "text": text} for i, (text, _) in JUDGED.items()])
    judgements = "".join(f"{query}\t{document}\t1\n" for query, (_, document) in JUDGED.items())
    (garden / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + judgements)
    write_lines(
        folder / "queries.jsonl", [{"id": i, "query": text, "slice": name} for i, (text, name) in EVAL_QUERIES.items()]
    )
    return EvaluatorConfig(
        queries=folder / "queries.jsonl",
        collections=[CollectionConfig(path=garden)],
        seeds=[1, 2],
        ungrammared_seeds=1,
        store=folder / "store.sqlite",
        signing_key=folder / "verdict.key",
        search_cache=folder / "search",
    )


@pytest.fixture(scope="session")
def eval_set(tiny_config: EvaluatorConfig) -> EvalSet:
    return load_eval_set(tiny_config)


def write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
