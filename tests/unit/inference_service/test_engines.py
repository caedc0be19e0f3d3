import logging
from pathlib import Path

import pytest

from inference_service import engines
from inference_service.config import InferenceServiceConfig
from inference_service.engines import obstacle_on, with_engine
from qmd_schema.config import load_config
from qmd_schema.errors import UserError


@pytest.fixture
def config(root: Path) -> InferenceServiceConfig:
    return load_config(root / "configs/cpu/inference.yaml", InferenceServiceConfig)


@pytest.mark.parametrize(
    ("system", "machine", "flags", "is_installed", "said"),
    [
        ("linux", "x86_64", ["sse", "avx2"], True, None),
        ("linux", "aarch64", ["asimd"], True, None),
        ("linux", "x86_64", ["sse", "avx"], True, "needs AVX2"),
        ("darwin", "arm64", [], False, "no build for darwin"),
        ("linux", "x86_64", ["avx2"], False, "not installed"),
    ],
)
def test_vllm_runs_where_it_has_a_build_for_the_processor(
    system: str, machine: str, flags: list[str], is_installed: bool, said: str | None
) -> None:
    found = obstacle_on(system, machine, flags, is_installed)
    assert found is None if said is None else said in str(found)


def test_vllm_is_the_engine_wherever_it_runs(config: InferenceServiceConfig) -> None:
    assert with_engine(config, Path("model")).engine == "vllm"


def test_transformers_takes_its_place_with_one_line(
    config: InferenceServiceConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engines.sys, "platform", "darwin")
    with caplog.at_level(logging.WARNING):
        assert with_engine(config, Path("model")).engine == "transformers"
    (line,) = caplog.messages
    assert line.startswith("vLLM has no build for darwin: transformers runs model folders instead")


def test_a_gpu_is_not_given_up_silently(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.sys, "platform", "darwin")
    gpu = load_config(root / "configs/inference.yaml", InferenceServiceConfig)
    with pytest.raises(UserError, match="nothing else serves from a GPU"):
        with_engine(gpu, Path("model"))


def test_a_gguf_file_needs_no_vllm(config: InferenceServiceConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.sys, "platform", "darwin")
    assert with_engine(config, Path("model.gguf")) == config
