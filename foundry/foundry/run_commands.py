"""`foundry run` and `foundry runs`: the main job, and what came of it."""

import signal
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from foundry.config import load_profile
from foundry.console import print_json, print_table, stderr, stdout
from foundry.curves import panels, read_course
from foundry.memory import PeakMemory
from foundry.pipeline import Pipeline
from foundry.plots import save_curves
from foundry.runs import STAGES, Run, find_run, list_runs, start_run, unfinished_run
from qmd_schema.client_config import generate_lines, index_path
from qmd_schema.verdicts import Verdict

CURVES_NAME = "curves.png"

runs_app = typer.Typer(help="Look at runs: what they did, measured and decided.", no_args_is_help=True)

Profile = Annotated[str, typer.Option(help="cpu (SmolLM2-135M, two cores) or gpu (Qwen3-1.7B).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def run(
    profile: Profile = "cpu",
    run_id: Annotated[str | None, typer.Option("--run", help="Go on with this run.")] = None,
    new: Annotated[
        bool, typer.Option("--new", help="Start afresh even if a run of this profile is unfinished.")
    ] = False,
    require_pass: Annotated[bool, typer.Option(help="Exit with 3 when the verdict is not PASS.")] = False,
    as_json: AsJson = False,
) -> None:
    """The main job: data, SFT, GRPO, verdict, published GGUF. A killed run goes on where it was."""
    console = stderr if as_json else stdout
    configs = load_profile(profile)
    runs = configs.pipeline.runs
    found = find_run(runs, run_id) if run_id else None
    resumed = found or (None if new else unfinished_run(runs, profile, configs.inputs_sha256))
    chosen = resumed or start_run(runs, profile, configs.inputs_sha256)
    for stop in (signal.SIGINT, signal.SIGTERM):  # a shell that starts a program in the background has SIGINT ignored
        signal.signal(stop, signal.default_int_handler)
    console.print(f"run {chosen.id} ({'going on with it' if resumed else 'new'}) in {chosen.folder}", highlight=False)
    pipeline = Pipeline(chosen, configs, console)
    started = time.monotonic()
    memory = PeakMemory()
    try:
        with chosen.locked(), memory:
            pipeline.check_machine()
            pipeline.walk()
    except KeyboardInterrupt:
        stderr.print("stopped, and everything it had started too; the same command goes on where it was")
        raise typer.Exit(130) from None
    summary = _summary(chosen, pipeline) | {
        "seconds": time.monotonic() - started,
        "peak_memory_bytes": memory.bytes,
    }
    verdict = pipeline.verdict().verdict
    if as_json:
        print_json(summary)
    else:
        _print_outcome(chosen, verdict, summary)
    if require_pass and verdict.outcome != "PASS":
        raise typer.Exit(3)


def _summary(chosen: Run, pipeline: Pipeline) -> dict[str, Any]:
    publication = chosen.manifest("publish")
    published = publication.figures if publication else {}
    deployed = pipeline.deployed() if published.get("published") else None
    return {
        "run": chosen.id,
        "stages": {stage: manifest.seconds for stage in STAGES if (manifest := chosen.manifest(stage))},
        "verdict": pipeline.verdict().verdict.model_dump(mode="json"),
        "report": str(chosen.stage("evaluate") / "report.html"),
        "published": published,
        "gguf": str(deployed.gguf[deployed.default_quantisation]) if deployed else None,
    }


def _print_outcome(chosen: Run, verdict: Verdict, summary: dict[str, Any]) -> None:
    print_verdict(verdict)
    minutes, gib = summary["seconds"] / 60, summary["peak_memory_bytes"] / 2**30
    stdout.print(f"\ntook {minutes:.1f} minutes and at most {gib:.1f} GiB of memory", highlight=False)
    stdout.print(f"report: {summary['report']}", highlight=False, soft_wrap=True)
    if summary["gguf"] is None:
        stdout.print(f"Nothing was published: the verdict of run {chosen.id} is {verdict.outcome}.", highlight=False)
        return
    stdout.print(f"GGUF:   {summary['gguf']}", highlight=False, soft_wrap=True)
    stdout.print(
        f"To use it, run `foundry qmd install --write`, or put this into {index_path()}:\n",
        highlight=False,
        soft_wrap=True,
    )
    stdout.print(generate_lines(summary["gguf"]), markup=False, highlight=False, soft_wrap=True)


def print_verdict(verdict: Verdict) -> None:
    """A verdict as tables: gains with intervals, guards with limits, figures side by side, and the reasons."""
    gains = [[name, gain.mean, gain.lower, gain.upper, gain.queries] for name, gain in verdict.gains.items()]
    print_table(f"gain in nDCG@10 (verdict {verdict.id})", ["over", "mean", "lower", "upper", "queries"], gains)
    guards = [
        [guard.name, guard.value, guard.limit, "held" if guard.held else ("broken" if guard.decides else "warns")]
        for guard in verdict.guards
    ]
    print_table("guards", ["guard", "value", "limit", ""], guards)
    sides = list(verdict.figures)
    names = sorted({name for figures in verdict.figures.values() for name in figures})
    rows = [[name, *(verdict.figures[side].get(name, "") for side in sides)] for name in names]
    print_table("figures", ["figure", *sides], rows)
    stdout.print(f"\n[bold]{verdict.outcome}[/bold]")
    for reason in verdict.reasons:
        stdout.print(f"- {reason}", markup=False, highlight=False, soft_wrap=True)


@runs_app.command("list")
def list_all(profile: Profile = "cpu", as_json: AsJson = False) -> None:
    """All runs, oldest first, with how far they came and their verdicts."""
    rows = []
    for each in list_runs(load_profile(profile).pipeline.runs):
        signed = each.verdict()
        done = each.done_stages()
        rows.append(
            {
                "run": each.id,
                "profile": each.record["profile"],
                "created": each.record["created"],
                "stages": f"{len(done)}/{len(STAGES)}",
                "verdict": signed.verdict.outcome if signed else "",
            }
        )
    if as_json:
        print_json(rows)
    else:
        print_table("runs", ["run", "profile", "created", "stages", "verdict"], [list(row.values()) for row in rows])


@runs_app.command()
def show(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Id of the run, or its folder.")],
    profile: Profile = "cpu",
    as_json: AsJson = False,
) -> None:
    """One run: its stages with time and figures, its verdict, and the curves of its training as a picture."""
    chosen = find_run(load_profile(profile).pipeline.runs, run_id)
    manifests = {stage: chosen.manifest(stage) for stage in STAGES}
    signed = chosen.verdict()
    curves = _plot_curves(chosen)
    if as_json:
        stages = {stage: manifest and manifest.model_dump(mode="json") for stage, manifest in manifests.items()}
        verdict = signed and signed.verdict.model_dump(mode="json")
        shown = {"run": chosen.id, **chosen.record, "stages": stages, "verdict": verdict}
        print_json(shown | {"curves": curves and str(curves)})
        return
    rows = [
        [stage, f"{manifest.seconds:.0f} s" if manifest else "not done", _figures(manifest.figures if manifest else {})]
        for stage, manifest in manifests.items()
    ]
    print_table(f"run {chosen.id} in {chosen.folder}", ["stage", "time", "figures"], rows)
    if signed:
        print_verdict(signed.verdict)
    told = f"curves: {curves}" if curves else "no curves: no stage of this run has logged metrics yet"
    stdout.print(told, highlight=False, soft_wrap=True)


def _plot_curves(chosen: Run) -> Path | None:
    """Draws what the run's stages logged while they trained; None where they logged nothing."""
    drawn = [panel for stage in STAGES for panel in panels(stage, read_course(chosen.stage(stage) / "progress.jsonl"))]
    if not drawn:
        return None
    path = chosen.folder / CURVES_NAME
    save_curves(path, f"run {chosen.id}", drawn)
    return path


def _figures(figures: dict[str, Any]) -> str:
    shown = {name: value for name, value in figures.items() if isinstance(value, int | float | str)}
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())
