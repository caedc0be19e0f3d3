"""The foundry command: each subcommand is one task, and `foundry run` is all of them."""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from foundry import (
    data_commands,
    doctor,
    evals_commands,
    model_commands,
    qmd_commands,
    registry_commands,
    run_commands,
    score_commands,
    train_commands,
)
from foundry.config import profile_folder
from foundry.console import stderr
from foundry.services import StageError, module_command
from qmd_rpc.channel import ServiceError
from qmd_schema.errors import UserError

app = typer.Typer(
    help=(
        "Trains query-expansion models for QMD, measures what they do to retrieval, and ships one only when it is "
        "measurably better than the one deployed.\n\n"
        "Start with `foundry doctor`, then `foundry run`. Exit codes: 0 done, 1 a stage failed, 2 bad input, "
        "3 the verdict is not PASS and --require-pass was given."
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(data_commands.app, name="data")
app.add_typer(evals_commands.app, name="evals")
app.add_typer(train_commands.app, name="train")
app.add_typer(run_commands.runs_app, name="runs")
app.add_typer(qmd_commands.app, name="qmd")
app.command("run")(run_commands.run)
app.command("expand")(model_commands.expand)
app.command("search")(model_commands.search)
app.command("score")(score_commands.score)
app.command("eval")(model_commands.evaluate)
app.command("compare")(model_commands.compare)
app.command("verdicts")(model_commands.verdicts)
app.command("publish")(registry_commands.publish)
app.command("deployed")(registry_commands.deployed)
app.command("history")(registry_commands.history)
app.command("rollback")(registry_commands.rollback)
app.command("gc")(registry_commands.collect_garbage)
app.command("doctor")(doctor.doctor)

SERVICE_MODULES = {
    "reward": "reward_service",
    "inference": "inference_service",
    "evaluator": "evaluator",
    "publisher": "publisher",
}


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(
    context: typer.Context,
    name: Annotated[Literal["reward", "inference", "evaluator", "publisher"], typer.Argument(help="The service.")],
    config: Annotated[Path | None, typer.Option(help="Config file; default: the profile's.")] = None,
    profile: Annotated[str, typer.Option(help="cpu or gpu.")] = "cpu",
) -> None:
    """Start one service in the foreground; further options go to the service (see --help behind `--`)."""
    path = config or profile_folder(profile) / f"{name}.yaml"
    command = module_command(SERVICE_MODULES[name], "--config", str(path), *context.args)
    os.execv(command[0], command)


def main() -> None:
    """Runs the command line; mistakes of the user end with 2, failed stages with 1, each with one message."""
    try:
        app(standalone_mode=True)
    except UserError as error:
        stderr.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except (StageError, ServiceError) as error:
        stderr.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
