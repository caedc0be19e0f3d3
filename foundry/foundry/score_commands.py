"""`foundry score`: how good expansions are, by the rubric and by what they do to the search of a collection."""

import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict

from foundry.console import print_json, print_table, stderr, stdout
from foundry.progress import StageProgress
from qmd_reward.composite import CompositeConfig, composite
from qmd_reward.pairs import read_pairs
from qmd_reward.rubric import score as score_in_process
from qmd_rpc.reward import RewardClient
from qmd_rpc.scores import as_row, kind_name
from qmd_rpc.security import Access
from qmd_rpc.v1 import reward_pb2
from qmd_schema.errors import UserError

TOGETHER = 64
"""Pairs that are measured before the first of them is printed: many at a time are much faster."""
PARTS = ("format", "diversity", "hyde", "quality", "entity", "think_bonus")


@dataclass(frozen=True)
class Service:
    """Where to ask, and with what."""

    address: str
    access: Access
    collection: str | None

    def client(self) -> RewardClient:
        return RewardClient(self.address, access=self.access)


def score(
    query: Annotated[str | None, typer.Option(help="Score one expansion of this query, read from stdin.")] = None,
    file: Annotated[
        Path | None, typer.Option(help='Score a file of {"query": …, "expansion": …} lines; one JSON line each.')
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Reward service to ask, HOST:PORT; default: score here, the same without its limits."),
    ] = None,
    collection: Annotated[
        str | None, typer.Option(help="Measure also what each adds to the search of this collection of the service.")
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="PEM file of the CA of the service's certificate.")] = None,
    certificate: Annotated[Path | None, typer.Option(help="PEM file of a client certificate.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of that certificate's key.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with the bearer token in its first line.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Score expansions: one from stdin, or a file of them.

    `foundry score --query "green tea" < expansion.txt`, `foundry score --file pairs.jsonl > scores.jsonl`.
    """
    if (query is None) == (file is None):
        raise UserError("give either --query, with the expansion on stdin, or --file.")
    if collection and not address:
        raise UserError("--collection needs the service that has loaded it: name it with --address.")
    service = Service(address, Access(ca, certificate, key, token_file), collection) if address else None
    if file is not None:
        _score_file(file, service)
        return
    assert query is not None
    row = _score_one(query, typer.get_text_stream("stdin").read(), service)
    if as_json:
        print_json(row)
    else:
        _print_score(query, row)


def _score_one(query: str, expansion: str, service: Service | None) -> dict[str, Any]:
    if service is None:
        return score_in_process(query, expansion).as_row()
    with service.client() as client:
        row = as_row(client.score(query, expansion))
        if service.collection:
            retrieval = client.score_retrieval(query, expansion, service.collection)
            row |= _retrieval_row(query, expansion, row["score"], retrieval)
    return row


def _score_file(path: Path, service: Service | None) -> None:
    total = _count_lines(path)
    percentages: list[float] = []
    ratings: list[str] = []
    opened: AbstractContextManager[RewardClient | None] = service.client() if service else nullcontext()
    with StageProgress(stderr, "score") as progress, opened as client:
        for row in _rows(path, client, service.collection if service else None):
            sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
            percentages.append(row["percentage"])
            ratings.append(row["rating"])
            progress.update("pairs", len(percentages), total)
    sys.stdout.flush()
    if percentages:
        share = ratings.count("Excellent") / len(ratings)
        summary = f"{len(percentages)} pairs: rubric mean {mean(percentages):.1f} %, {share:.0%} Excellent"
        stderr.print(summary, highlight=False)


def _count_lines(path: Path) -> int:
    """0 where there is no such file, which reading it will tell."""
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _rows(path: Path, client: RewardClient | None, collection: str | None) -> Iterator[dict[str, Any]]:
    if client is None:
        for pair in read_pairs(path):
            yield score_in_process(pair.query, pair.expansion).as_row()
        return
    pairs = ((pair.query, pair.expansion) for pair in read_pairs(path))
    if collection is None:
        yield from map(as_row, client.score_stream(pairs))
        return
    while together := list(islice(pairs, TOGETHER)):
        retrievals = client.score_retrievals(together, collection)
        scores = client.score_batch(together)
        for (query, expansion), found, retrieval in zip(together, scores, retrievals, strict=True):
            yield as_row(found) | _retrieval_row(query, expansion, found.score, retrieval)


def _retrieval_row(query: str, expansion: str, score: float, retrieval: reward_pb2.RetrievalScore) -> dict[str, Any]:
    """What the search says, and the composite of both scores with the default weights."""
    row = MessageToDict(retrieval, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    for line, message in zip(row["lines"], retrieval.lines, strict=True):
        line["kind"] = kind_name(message.kind)
    both = composite(CompositeConfig(), query, expansion, score, retrieval.gain)
    return {"retrieval": row, "composite": both._asdict()}


def _print_score(query: str, row: dict[str, Any]) -> None:
    rows = [[name.replace("_", " "), row[name]] for name in PARTS]
    rows += [["total", f"{row['total']} of {row['max_possible']}"], ["percentage", f"{row['percentage']} %"]]
    print_table(f"{query}: {row['rating']}", ["part", "points"], rows)
    for sentence in row["deductions"]:
        stdout.print(f"- {sentence}", markup=False, highlight=False, soft_wrap=True)
    if retrieval := row.get("retrieval"):
        lines = [
            [
                line["kind"],
                line["text"],
                "dropped" if line["is_dropped"] else line["found"],
                ", ".join(f"{found['id']} #{found['rank']}" for found in line["relevant"]),
                f"{line['credit']:+.4f}",
            ]
            for line in retrieval["lines"]
        ]
        print_table(f"search: gain {retrieval['gain']:+.4f}", ["kind", "line", "found", "relevant", "credit"], lines)
        rows = [[name, f"{value:+.4f}"] for name, value in row["composite"].items()]
        print_table("composite", ["term", "value"], rows)
