"""`python -m evaluator`: starts the evaluation service."""

import logging
import os
import sys

from evaluator.config import EvaluatorConfig
from qmd_rpc.command import service_command

DESCRIPTION = (
    "Measures and compares models over gRPC (foundry.v1.EvaluationService) until SIGTERM or Ctrl-C. "
    "Its answers come from the inference service that the config names."
)


def serve(config: EvaluatorConfig) -> None:
    from evaluator.server import run

    logging.getLogger("httpx").setLevel(logging.WARNING)
    run(config)
    # Python would wait for answers that the inference service is still writing, for up to minutes.
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(service_command("evaluator", DESCRIPTION, "evaluator.yaml", EvaluatorConfig, serve))
