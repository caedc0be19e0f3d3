from pathlib import Path

import pytest
from pydantic import ValidationError

from publisher.config import PublisherConfig, name_problem
from publisher.registry import open_registry
from qmd_schema.config import load_config
from support.publishing import publisher_config


@pytest.mark.parametrize("profile", ["configs", "configs/cpu"])
def test_the_configs_of_both_profiles_load(root: Path, profile: str) -> None:
    config = load_config(root / profile / "publisher.yaml", PublisherConfig)
    assert config.repository == f"qmd-foundry/qmd-query-expansion-{config.size}"


@pytest.mark.parametrize(
    "name", ["qmd-query-expansion-1.7B", "qmd-query-expansion-135M-gguf", "qmd-1B", "Qwen3", "sft", "r2d2"]
)
def test_a_name_with_a_size_is_a_repository_name(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize(
    "name",
    [
        *("qmd-v2", "qmd-1.0.3", "sft-V1.2", "grpo-rev3", "model-20260101", "run_7", "v2", "2024-06", "qmd-2024.06"),
        *("qmd-1.0rc1", "qmd-v1beta", "qmd.v2", "qmd-release2", "qmd-2.0.dev1"),
    ],
)
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
        ({"namespace": "acme-v2"}, "holds the version 'v2'"),
        ({"size": "2024-1.7B"}, "holds the version '2024'"),
        ({"data_licence": "cc-by-nd-4.0"}, "allows no changed work to be passed on"),
        ({"data_licence": "unknown"}, "does not say what is allowed"),
        (
            {"base": {"name": "a/b", "licence": "Apache 2.0", "attribution": "x"}},
            r"unknown; did you mean apache-2\.0\?",
        ),
        ({"base": {"name": "a/b", "licence": "", "attribution": "x"}}, "does not say what is allowed"),
        ({"base": {"name": "a/b", "licence": "apple-amlr", "attribution": "x"}}, "for research alone"),
        ({"base": {"name": "a/b", "attribution": "x"}}, "licence\n  Field required"),
        ({"hub": {"endpoint": "http://hub.example"}}, "wants https"),
        ({"hub": {"endpoint": "hub.example"}}, "wants an address"),
        ({"hub": {"attempts": 0}}, "greater than or equal to 1"),
        ({"hub": {"token": "hf_x"}}, "Extra inputs"),
    ],
)
def test_a_config_that_could_not_be_published_with_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        publisher_config(tmp_path, **changes)


def test_the_kind_of_registry_is_the_configs_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub = publisher_config(tmp_path, registry="hub", hub={"cache": tmp_path / "cache"})
    assert type(open_registry(hub)).__name__ == "HubRegistry"
    assert hub.working_folder == tmp_path / "cache"
    local = publisher_config(tmp_path)
    assert type(open_registry(local)).__name__ == "LocalRegistry"
    assert local.working_folder == tmp_path / "registry"
