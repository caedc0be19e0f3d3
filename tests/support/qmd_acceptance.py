"""Models judged by the real QMD client: what is left of their expansions, and what these do to its search.

`python -m support.qmd_acceptance --model base=base.gguf --model published=new.gguf --output FOLDER` writes
FOLDER/acceptance.md. Answers are kept in FOLDER, so the same command goes on where it stopped.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from qmd_schema.artifacts import sha256_file, write_text_atomically
from qmd_schema.contract import QMD_DECODE, serve
from qmd_schema.expansion import parse
from qmd_search.collections import Collection, load_collection
from qmd_search.metrics import measure
from support.qmd_client import convert_minilm, install_client, node_command, node_environment

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = (
    "model",
    "collection",
    "queries",
    "lines dropped",
    "fallbacks",
    f"cut at {QMD_DECODE.max_tokens}",
    "ms an expansion",
    "tokens",
    "nDCG@10",
    "without",
    "recall@20",
    "without",
)


@dataclass(frozen=True)
class Row:
    """One model on one collection; shares are 0 to 1."""

    queries: int
    dropped: float
    """Of the lines that the model wrote."""
    fallbacks: float
    """Of the queries: no line was left."""
    cut: float
    """Of the queries: the answer ran into QMD's limit."""
    milliseconds: float
    tokens: float
    expanded: Mapping[str, float]
    """Metric -> mean, of searches with the expansion."""
    plain: Mapping[str, float]
    """The same without."""


def judge_model(
    name: str, gguf: Path, collections: Mapping[str, Collection], limit: int, output: Path
) -> list[dict[str, Any]]:
    """Asks QMD about the first queries of each collection, as far as the folder of this model has no answers yet."""
    # QMD keeps expansions by the model's path, and deletes a local file that is no GGUF: it gets a copy of its own.
    folder = output / f"{name}-{sha256_file(gguf)[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model.gguf"
    if not model.is_file():
        shutil.copyfile(gguf, folder / "partial")
        (folder / "partial").rename(model)
    _write_pages(output, collections)
    embedder = output / "minilm.gguf"
    if not embedder.is_file():
        convert_minilm(embedder)
    config = {
        "collections": {each: {"path": str(output / "pages" / each), "pattern": "**/*.md"} for each in collections},
        "models": {"embed": str(embedder), "generate": str(model)},
    }
    (folder / "index.yml").write_text(yaml.safe_dump(config, sort_keys=False))
    queries = [
        {"collection": each, "id": id_, "text": text}
        for each, collection in collections.items()
        for id_, text in list(collection.queries.items())[:limit]
    ]
    index = output / "index.sqlite"
    if index.is_file() and not (folder / "index.sqlite").is_file():
        shutil.copyfile(index, folder / "index.sqlite")
    rows = ask(folder, queries)
    if not index.is_file():
        _keep_index(folder / "index.sqlite", index)
    asked = {(query["collection"], query["id"]) for query in queries}
    return [row for row in rows if (row["collection"], row["id"]) in asked]


def ask(folder: Path, queries: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """All answers of a folder whose index.yml names collections and models; files and rows as in qmd_acceptance.mjs."""
    (folder / "requests.json").write_text(json.dumps({"queries": queries}))
    command = node_command(install_client(), Path(__file__).with_suffix(".mjs"), folder)
    subprocess.run(command, env=node_environment(folder), check=True)
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()]


def summarise(answers: Sequence[Mapping[str, Any]], collection: Collection) -> Row:
    """One model's answers to the queries of one collection."""
    served = [(serve(collection.queries[a["id"]], a["raw"]), len(parse(a["raw"]).expansion.lines)) for a in answers]
    qrels = {a["id"]: collection.qrels[a["id"]] for a in answers}
    metrics = {side: measure({a["id"]: a[side] for a in answers}, qrels).values() for side in ("expanded", "plain")}
    means = {
        side: {metric: fmean(row[metric] for row in rows) for metric in ("ndcg@10", "recall@20")}
        for side, rows in metrics.items()
    }
    return Row(
        queries=len(answers),
        dropped=sum(len(expansion.dropped) for expansion, _ in served) / max(1, sum(count for _, count in served)),
        fallbacks=fmean(expansion.is_fallback for expansion, _ in served),
        cut=fmean(a["tokens"] >= QMD_DECODE.max_tokens - 1 or not a["raw"].endswith("\n") for a in answers),
        milliseconds=fmean(a["ms"] for a in answers),
        tokens=fmean(a["tokens"] for a in answers),
        expanded=means["expanded"],
        plain=means["plain"],
    )


def table(rows: Mapping[tuple[str, str], Row]) -> str:
    """A Markdown table, a line for each model and collection."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    for (model, collection), row in rows.items():
        cells = [model, collection, str(row.queries)]
        cells += [f"{share:.1%}" for share in (row.dropped, row.fallbacks, row.cut)]
        cells += [f"{row.milliseconds:,.0f}", f"{row.tokens:.0f}"]
        cells += [f"{side[metric]:.3f}" for metric in ("ndcg@10", "recall@20") for side in (row.expanded, row.plain)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _write_pages(output: Path, collections: Mapping[str, Collection]) -> None:
    for name, collection in collections.items():
        folder = output / "pages" / name
        folder.mkdir(parents=True, exist_ok=True)
        for document in collection.documents:
            path = folder / f"{document.id}.md"
            if not path.is_file():
                path.write_text(document.text, encoding="utf-8")


def _keep_index(made: Path, kept: Path) -> None:
    """Keeps the first model's index for the next ones, without the expansions that QMD cached in it."""
    import sqlite3
    from contextlib import closing

    partial = kept.with_suffix(".partial")
    with closing(sqlite3.connect(made)) as source, closing(sqlite3.connect(partial)) as target:
        source.backup(target)
        target.execute("DELETE FROM llm_cache")
        target.commit()
    partial.rename(kept)


def _model(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not name or not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=FILE.gguf, of a file that exists")
    return name, Path(path).resolve()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=_model, action="append", required=True, metavar="NAME=FILE", dest="models")
    parser.add_argument("--collections", type=Path, nargs="+", help="BEIR folders; default: evals/collections/*")
    parser.add_argument("--split", default="test", help="of the judgements (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=60, help="of each collection (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("runs/qmd-acceptance"), help="default: %(default)s")
    given = parser.parse_args()
    output = given.output.resolve()
    folders = given.collections or sorted((ROOT / "evals" / "collections").glob("*/"))
    loaded = [load_collection(folder, given.split) for folder in folders]
    collections = {collection.name: collection for collection in loaded}
    rows: dict[tuple[str, str], Row] = {}
    for name, gguf in given.models:
        answers = judge_model(name, gguf, collections, given.queries, output)
        for each, collection in collections.items():
            rows[name, each] = summarise([a for a in answers if a["collection"] == each], collection)
        write_text_atomically(output / "acceptance.md", table(rows))
    print(table(rows), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
