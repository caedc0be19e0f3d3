import json
from pathlib import Path

import pytest

from foundry.runs import STAGES, Run, find_run, list_runs, start_run, unfinished_run
from qmd_schema.artifacts import write_manifest
from qmd_schema.config import StrictModel
from qmd_schema.errors import UserError


def finish(run: Run, *stages: str) -> None:
    for stage in stages:
        run.stage(stage).mkdir(parents=True)
        write_manifest(run.stage(stage), stage, StrictModel(), {}, seconds=1.0, packages=[])


def test_runs_are_numbered_in_order(tmp_path: Path) -> None:
    assert [start_run(tmp_path, "cpu", "a").id for _ in range(3)] == ["0001", "0002", "0003"]
    assert [run.id for run in list_runs(tmp_path)] == ["0001", "0002", "0003"]


def test_a_stage_is_done_when_its_manifest_exists(tmp_path: Path) -> None:
    run = start_run(tmp_path, "cpu", "a")
    run.stage("prepare").mkdir()
    assert run.done_stages() == []
    finish(run, "sft")
    assert run.done_stages() == ["sft"]
    assert not run.is_finished


def test_an_unfinished_run_is_gone_on_with_when_its_inputs_are_the_same(tmp_path: Path) -> None:
    run = start_run(tmp_path, "cpu", "a")
    assert unfinished_run(tmp_path, "cpu", "a") == run
    assert unfinished_run(tmp_path, "cpu", "b") is None
    assert unfinished_run(tmp_path, "gpu", "a") is None
    finish(run, *STAGES)
    assert unfinished_run(tmp_path, "cpu", "a") is None


def test_two_processes_do_not_walk_one_run(tmp_path: Path) -> None:
    run = start_run(tmp_path, "cpu", "a")
    with run.locked(), pytest.raises(UserError, match="another process"), Run(run.folder).locked():
        pass
    with run.locked():
        pass


def test_an_unknown_run_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    start_run(tmp_path, "cpu", "a")
    assert find_run(tmp_path, "0001").id == "0001"
    assert find_run(tmp_path, str(tmp_path / "0001")).id == "0001"
    with pytest.raises(UserError, match="Runs there: 0001"):
        find_run(tmp_path, "0002")


def test_the_record_tells_profile_and_inputs(tmp_path: Path) -> None:
    run = start_run(tmp_path, "cpu", "abc")
    assert json.loads((run.folder / "run.json").read_text())["inputs_sha256"] == "abc"
    assert run.record["profile"] == "cpu"
