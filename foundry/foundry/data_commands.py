"""`foundry data`: prepare, check, describe, exchange and make training data."""

from collections import Counter, defaultdict
from pathlib import Path
from statistics import mean, quantiles
from typing import Annotated, Any

import typer

from foundry import hub_commands
from foundry.config import profile_folder
from foundry.console import print_json, print_table, stdout
from foundry.plots import Panel, save_histograms
from foundry.train_commands import run_stage
from qmd_reward.rubric import RubricScore
from qmd_schema.artifacts import write_text_atomically
from qmd_schema.config import load_config
from qmd_schema.contract import keeps
from qmd_schema.errors import DataError, UserError
from qmd_schema.examples import LoadedExample, load_examples
from trainer.config import PrepareConfig
from trainer.curation import check_contract, check_training_set, score_row
from trainer.dataset import load_eval_queries
from trainer.synthesis import synthesise, write_synthesis

app = typer.Typer(help="Prepare, check, look at, exchange and make training data.", no_args_is_help=True)

Files = Annotated[list[Path] | None, typer.Argument(help="JSONL files; default: data/*.jsonl.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Profile = Annotated[str, typer.Option(help="cpu or gpu; its prepare.yaml holds the thresholds.")]
REPORTS = Path("runs/reports")
FINDINGS_SHOWN = 100


@app.command()
def prepare(
    output: Annotated[Path, typer.Option(help="Folder that receives train.jsonl, val.jsonl and the manifest.")],
    profile: Annotated[str, typer.Option(help="cpu or gpu; chooses the config and so the tokenizer.")] = "cpu",
    config: Annotated[Path | None, typer.Option(help="Config file; default: the profile's.")] = None,
) -> None:
    """Load, deduplicate, check for leaks, split and render the training data as QMD sends it."""
    run_stage("prepare", output, "prepare", "--config", str(config or profile_folder(profile) / "prepare.yaml"))


@app.command()
def validate(files: Files = None, as_json: AsJson = False) -> None:
    """Check every row against the format, the contract and QMD's term filter; exit 2 if one is off.

    The quick check of a file that is being written. `foundry data lint` checks all that makes a set worth training on.
    """
    examples = _load(files)
    findings = [finding for loaded in examples for finding in check_contract(loaded)]
    if findings:
        raise DataError("\n".join(map(str, findings)))
    if as_json:
        print_json({"rows": len(examples), "problems": []})
    else:
        stdout.print(f"{len(examples)} rows, every one keeps the contract.", highlight=False)


@app.command()
def lint(files: Files = None, profile: Profile = "cpu", as_json: AsJson = False) -> None:
    """Check all that makes a set worth training on; exit 2 if anything is off.

    Row by row: format, contract, QMD's term filter, rubric score, length of hyde lines, number and words of lex lines,
    filler, personal data. Over the set: mean score, near-duplicate queries, repeated skeletons, queries of evals/.
    Each finding names file, line and remedy. The thresholds are the section `curation` of the profile's prepare.yaml.
    """
    examples = _load(files)
    config = _prepare_config(profile)
    findings = check_training_set(examples, load_eval_queries(config), config)
    if as_json:
        fields = ("check", "path", "line", "what", "remedy")
        rows = [{name: getattr(finding, name) for name in fields} | {"path": str(finding.path)} for finding in findings]
        print_json({"rows": len(examples), "findings": rows})
        raise typer.Exit(2 if findings else 0)
    if findings:
        counts = Counter(finding.check for finding in findings).most_common()
        number = f"{len(findings)} finding{'s' if len(findings) > 1 else ''}"
        lines = [str(finding) for finding in findings[:FINDINGS_SHOWN]]
        if len(findings) > FINDINGS_SHOWN:
            lines.append(f"… and {len(findings) - FINDINGS_SHOWN} more; --json lists them all")
        lines.append(f"{number} in {len(examples)} rows: {', '.join(f'{count} {check}' for check, count in counts)}")
        raise DataError("\n".join(lines))
    average = mean(score_row(loaded.example).percentage for loaded in examples)
    stdout.print(f"{len(examples)} rows, rubric mean {average:.1f} %: nothing to mend.", highlight=False)


@app.command()
def report(
    files: Files = None,
    output: Annotated[Path, typer.Option(help="HTML file that is written.")] = REPORTS / "data.html",
    profile: Profile = "cpu",
) -> None:
    """Draw a set on one HTML page: slices, lengths, scores, near-duplicates, skeletons, the worst rows.

    The page needs nothing but itself and reads well in light and dark.
    """
    from foundry.data_report import render_data_report

    config = _prepare_config(profile)
    write_text_atomically(output, render_data_report(_load(files), load_eval_queries(config), config))
    stdout.print(f"report: {output}", highlight=False, soft_wrap=True)


@app.command()
def synth(
    collection: Annotated[Path, typer.Option(help="Folder of markdown files, or BEIR folder with corpus.jsonl.")],
    output: Annotated[Path, typer.Option(help="Folder that receives a BEIR collection and report.json.")],
    per_document: Annotated[int, typer.Option(min=1, help="Queries made of one document, at most.")] = 4,
    seed: Annotated[int, typer.Option(help="Chooses among headings and definitions where there are more.")] = 0,
    profile: Profile = "cpu",
    as_json: AsJson = False,
) -> None:
    """Make training queries with judgements from your own notes, so that a model can be trained for them.

    Headings, telling phrases and definitions become queries that the document they stem from must answer. The folder
    it writes (corpus.jsonl, queries.jsonl, qrels.tsv) is a BEIR collection like those in evals/collections, without
    queries that resemble one of evals/. The same notes and seed always make the same queries.
    """
    config = _prepare_config(profile)
    made = synthesise(collection, load_eval_queries(config), config, per_document, seed)
    write_synthesis(made, output)
    if as_json:
        print_json(made.report)
        return
    counts = made.report["queries"]
    rows = [
        [kind, counts[kind], example["query"], example["document"]]
        for kind, examples in made.report["examples"].items()
        for example in examples
    ]
    print_table(f"{sum(counts.values())} queries in {output}", ["kind", "of this kind", "such as", "answered by"], rows)
    dropped = ", ".join(f"{count} {reason}" for reason, count in made.report["dropped"].items())
    silent = made.report["documents_without_query"]
    stdout.print(f"{made.report['documents']} documents, {silent} gave no query. Left out: {dropped}.", highlight=False)


@app.command("score")
def score_rows(
    files: Files = None,
    plot: Annotated[Path, typer.Option(help="PNG that receives the histograms.")] = REPORTS / "data-score.png",
    worst: Annotated[int, typer.Option(help="How many of the worst rows to list.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Score every row with the rubric: a table by slice, the worst rows, and a plot."""
    examples = _load(files)
    scores = [score_row(loaded.example) for loaded in examples]
    by_slice: dict[str, list[RubricScore]] = defaultdict(list)
    for loaded, result in zip(examples, scores, strict=True):
        by_slice[loaded.example.category or loaded.path.stem].append(result)
    rows = [_score_row(name, results) for name, results in sorted(by_slice.items())]
    rows.append(_score_row("all", scores))
    order = sorted(range(len(scores)), key=lambda index: scores[index].percentage)[:worst]
    low = [
        [
            examples[index].where,
            examples[index].example.query,
            scores[index].percentage,
            "; ".join(scores[index].deductions),
        ]
        for index in order
    ]
    panels = [Panel(name, [result.percentage for result in results]) for name, results in sorted(by_slice.items())]
    save_histograms(plot, "Rubric percentage by slice", panels, bounds=(0, 100))
    columns = ["slice", "rows", "mean %", "10th percentile %", "min %", "excellent"]
    if as_json:
        slices = [dict(zip(columns, row, strict=True)) for row in rows]
        worst_rows = [dict(zip(["where", "query", "percentage", "deductions"], row, strict=True)) for row in low]
        print_json({"slices": slices, "worst": worst_rows, "plot": str(plot)})
        return
    print_table("rubric by slice", columns, rows)
    print_table(f"the {len(low)} worst rows", ["where", "query", "%", "why"], low)
    stdout.print(f"plot: {plot}", highlight=False)


def _score_row(name: str, results: list[RubricScore]) -> list[Any]:
    percentages = [result.percentage for result in results]
    tenth = quantiles(percentages, n=10)[0] if len(percentages) > 1 else percentages[0]
    excellent = sum(result.rating == "Excellent" for result in results) / len(results)
    return [name, len(results), mean(percentages), tenth, min(percentages), excellent]


@app.command()
def analyze(
    files: Files = None,
    plot: Annotated[Path, typer.Option(help="PNG that receives the histograms.")] = REPORTS / "data-analyze.png",
    as_json: AsJson = False,
) -> None:
    """Describe the data: rows and lines by slice, lengths, repeated queries, lines QMD would drop."""
    examples = _load(files)
    slices: dict[str, list[LoadedExample]] = defaultdict(list)
    for loaded in examples:
        slices[loaded.example.category or loaded.path.stem].append(loaded)
    columns = ["slice", "rows", "hyde", "lex", "vec", "words a lex line", "characters a hyde", "dropped lines"]
    rows = [_shape_row(name, members) for name, members in sorted(slices.items())]
    rows.append(_shape_row("all", examples))
    queries = Counter(" ".join(loaded.example.query.lower().split()) for loaded in examples)
    repeated = [[query, count] for query, count in queries.most_common() if count > 1]
    lengths = {
        "words a query": [len(loaded.example.query.split()) for loaded in examples],
        "words a lex line": [len(text.split()) for loaded in examples for text in loaded.example.expansion.lex],
        "words a vec line": [len(text.split()) for loaded in examples for text in loaded.example.expansion.vec],
        "characters a hyde": [len(text) for loaded in examples for text in loaded.example.expansion.hyde],
    }
    save_histograms(plot, "Lengths", [Panel(name, values) for name, values in lengths.items()])
    if as_json:
        shapes = [dict(zip(columns, row, strict=True)) for row in rows]
        print_json({"slices": shapes, "repeated_queries": repeated, "plot": str(plot)})
        return
    print_table("shape by slice", columns, rows)
    if repeated:
        print_table("queries that occur more than once", ["query", "rows"], repeated)
    stdout.print(f"plot: {plot}", highlight=False)


def _shape_row(name: str, members: list[LoadedExample]) -> list[Any]:
    lines = [(loaded.example.query, line) for loaded in members for line in loaded.example.expansion.lines]
    counts = Counter(line.kind for _, line in lines)
    lex_words = [len(line.text.split()) for _, line in lines if line.kind == "lex"]
    hyde_lengths = [len(line.text) for _, line in lines if line.kind == "hyde"]
    return [
        name,
        len(members),
        *(counts[kind] for kind in ("hyde", "lex", "vec")),
        mean(lex_words) if lex_words else 0.0,
        mean(hyde_lengths) if hyde_lengths else 0.0,
        sum(not keeps(query, line.text) for query, line in lines),
    ]


def _load(files: list[Path] | None) -> list[LoadedExample]:
    paths = files or sorted(Path("data").glob("*.jsonl"))
    if not paths:
        raise UserError("data/*.jsonl: no data files here. Name files, or run from the project's root.")
    return load_examples(paths)


def _prepare_config(profile: str) -> PrepareConfig:
    return load_config(profile_folder(profile) / "prepare.yaml", PrepareConfig)


app.command()(hub_commands.pull)
app.command()(hub_commands.push)
