"""Trackers of a stage's metrics, by the names that Transformers gives them (`report_to`)."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from qmd_schema.errors import UserError

PROJECT = "qmd-foundry"


def check_trackers(trackers: Sequence[str]) -> None:
    """Raises UserError for a tracker whose package, which has the tracker's name, is not installed."""
    missing = [name for name in trackers if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"trackers: {', '.join(missing)}: not installed. Run: pip install {' '.join(missing)}, or take it out of "
            "`trackers` in the stage's config."
        )


def tracker_environment(folder: Path) -> dict[str, str]:
    """Variables by which every tracker writes into a stage's folder and nowhere else.

    What the environment sets already stays: WANDB_MODE=online or MLFLOW_TRACKING_URI=http://… name a server.
    """
    local = {
        "TENSORBOARD_LOGGING_DIR": str(folder / "tensorboard"),
        "TRACKIO_DIR": str(folder / "trackio"),
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(folder),
        "WANDB_PROJECT": PROJECT,
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "MLFLOW_EXPERIMENT_NAME": PROJECT,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
    }
    return {name: os.environ.get(name, value) for name, value in local.items()}
