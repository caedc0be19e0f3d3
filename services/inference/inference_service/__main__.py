"""`python -m inference_service`: starts the inference service."""

import argparse
import contextlib
import logging
import sys
from pathlib import Path

import yaml

from inference_service.checks import check
from inference_service.config import InferenceServiceConfig
from inference_service.engines import with_engine
from inference_service.server import EngineError, run
from qmd_schema.config import load_config
from qmd_schema.errors import UserError


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m inference_service",
        description="Serves a model folder with vLLM (with transformers where vLLM does not run), or a GGUF file "
        "with llama.cpp, over HTTP until SIGTERM or Ctrl-C: completions with QMD's sampling and grammar, and policies "
        "brought in while it runs. Prints one line when the first completion came back.",
        epilog="Exit codes: 0 after a clean stop, 1 when the engine failed, 2 for a mistake in the config, the model "
        "or a port that is in use.",
    )
    parser.add_argument("--config", type=Path, required=True, help="config file, such as configs/cpu/inference.yaml")
    parser.add_argument("--model", metavar="PATH", help="serve this model folder or GGUF file instead of the config's")
    parser.add_argument("--port", type=int, help="listen on this port instead of the config's")
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="append the engine's output to this file, not to stderr"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the resolved config as YAML and stop")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    given = {"model": arguments.model, "port": arguments.port}
    try:
        config = load_config(
            arguments.config, InferenceServiceConfig, {key: value for key, value in given.items() if value is not None}
        )
        if arguments.dry_run:
            print(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), end="")
            return 0
        model = check(config)
        config = with_engine(config, model)
        if arguments.log:
            arguments.log.parent.mkdir(parents=True, exist_ok=True)
        with arguments.log.open("ab") if arguments.log else contextlib.nullcontext(sys.stderr.buffer) as log:
            run(config, model, log)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except EngineError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
