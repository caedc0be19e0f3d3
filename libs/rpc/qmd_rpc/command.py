"""The command line that every gRPC service has: its options, its log, and one message for a mistake."""

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from qmd_rpc.logs import configure_logging
from qmd_schema.config import Model, load_config
from qmd_schema.errors import UserError


def service_command(
    package: str, description: str, config_name: str, config_model: type[Model], run: Callable[[Model], None]
) -> int:
    """Reads the command line and the config, then runs the service; returns the exit code: 0, or 2 for a mistake.

    package: what `python -m` starts. config_name: the config file's name, "reward.yaml".
    config_model: has a section `server`, whose port --port replaces. run: serves until it is stopped.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {package}",
        description=description,
        epilog="Exit codes: 0 after a clean stop, 2 for a mistake in the config or a port that is in use.",
    )
    parser.add_argument("--config", type=Path, required=True, help=f"config file, such as configs/cpu/{config_name}")
    parser.add_argument(
        "--port", type=int, help="listen on this port instead of server.port of the config; 0: a free one"
    )
    parser.add_argument(
        "--insecure", action="store_true", help="listen on a public address though neither TLS nor tokens guard it"
    )
    parser.add_argument("--log-level", choices=["debug", "info", "warning"], default="info", help="default: info")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved config as YAML and stop")
    arguments = parser.parse_args()
    configure_logging(arguments.log_level)
    overrides: dict[str, Any] = {} if arguments.port is None else {"server.port": arguments.port}
    if arguments.insecure:
        overrides["server.insecure"] = True
    try:
        config = load_config(arguments.config, config_model, overrides)
        if arguments.dry_run:
            print(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), end="")
        else:
            run(config)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        logging.shutdown()
    return 0
