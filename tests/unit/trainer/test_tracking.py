import sys
from pathlib import Path

import pytest

from qmd_schema.errors import UserError
from trainer.tracking import check_trackers, tracker_environment


def test_a_tracker_that_is_not_installed_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"wandb: not installed\. Run: pip install wandb"):
        check_trackers(["tensorboard", "wandb"])


def test_the_default_tracker_is_installed():
    check_trackers(["tensorboard"])


def test_trackers_stay_in_the_stages_folder_unless_the_environment_names_a_server(monkeypatch):
    for name in tracker_environment(Path("/stage")):
        monkeypatch.delenv(name, raising=False)
    assert tracker_environment(Path("/stage"))["WANDB_MODE"] == "offline"
    assert tracker_environment(Path("/stage"))["MLFLOW_TRACKING_URI"] == "sqlite:////stage/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert tracker_environment(Path("/stage"))["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"
