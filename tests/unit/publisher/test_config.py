from pathlib import Path

import pytest
from pydantic import ValidationError

from publisher.config import PublisherConfig, name_problem
from qmd_schema.config import load_config
from support.publishing import publisher_config


@pytest.mark.parametrize("profile", ["configs", "configs/cpu"])
def test_the_configs_of_both_profiles_load(root: Path, profile: str) -> None:
    config = load_config(root / profile / "publisher.yaml", PublisherConfig)
    assert config.repository == f"qmd-foundry/qmd-query-expansion-{config.size}"


@pytest.mark.parametrize("name", ["qmd-query-expansion-1.7B", "qmd-query-expansion-135M-gguf", "sft", "acme_labs"])
def test_a_name_with_a_size_is_a_repository_name(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize("name", ["qmd-v2", "qmd-1.0.3", "sft-V1.2", "grpo-rev3", "model-20260101", "run_7", "v2"])
def test_a_name_with_a_version_is_none(name: str) -> None:
    assert "holds the version" in (name_problem(name) or "")


@pytest.mark.parametrize("name", ["", "a/b", "..", "-sft", "a b"])
def test_a_name_with_odd_characters_is_none(name: str) -> None:
    assert "wants letters" in (name_problem(name) or "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": "135M-v2"}, "holds the version 'v2'"),
        ({"namespace": "acme/labs"}, "wants letters"),
        ({"quantisations": ["Q8_0"]}, "wants bf16"),
        ({"quantisations": ["bf16", "Q8_0", "Q8_0"]}, "none twice"),
        ({"quantisations": ["bf16", "Q9_X"]}, "Q4_K_M"),
        ({"default_quantisation": "Q6_K"}, "none of quantisations"),
        ({"registry": "s3"}, "local"),
    ],
)
def test_a_config_that_could_not_be_published_with_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        publisher_config(tmp_path, **changes)
