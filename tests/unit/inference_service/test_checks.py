import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from inference_service.checks import check
from inference_service.command import server_command, server_environment
from inference_service.config import InferenceServiceConfig
from qmd_schema.config import load_config
from qmd_schema.errors import UserError


@pytest.fixture
def model(tiny_llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


@pytest.fixture
def config(root: Path, model: Path, free_port: Callable[[], int]) -> InferenceServiceConfig:
    overrides = {"model": str(model), "port": free_port(), "kv_cache_gib": 0.1}
    return load_config(root / "configs/cpu/inference.yaml", InferenceServiceConfig, overrides)


def changed(config: InferenceServiceConfig, **values: object) -> InferenceServiceConfig:
    return InferenceServiceConfig(**config.model_dump() | values)


def test_a_whole_model_folder_and_a_free_port_pass(config: InferenceServiceConfig, model: Path) -> None:
    assert check(config) == model


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_a_folder_that_is_not_whole_is_named_with_what_it_lacks(
    config: InferenceServiceConfig, model: Path, missing: str
) -> None:
    (model / missing).unlink()
    with pytest.raises(UserError, match=f"{model}: .*{missing.removeprefix('model')} missing"):
        check(config)


def test_a_config_json_that_is_not_json_is_named(config: InferenceServiceConfig, model: Path) -> None:
    (model / "config.json").write_text("[")
    with pytest.raises(UserError, match=r"config\.json: not a model's config"):
        check(config)


def test_a_context_longer_than_the_model_s_is_refused(config: InferenceServiceConfig, model: Path) -> None:
    values = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(values | {"max_position_embeddings": 1024}))
    with pytest.raises(UserError, match=r"max_tokens: 2048: .* holds 1024 at most"):
        check(config)


def test_more_memory_than_there_is_is_refused(config: InferenceServiceConfig) -> None:
    with pytest.raises(UserError, match="GiB of memory are needed"):
        check(changed(config, kv_cache_gib=100_000.0))


def test_a_busy_port_is_refused(config: InferenceServiceConfig) -> None:
    with socket.socket() as listener:
        listener.bind((config.host, config.port))
        listener.listen()
        with pytest.raises(UserError, match=f"port {config.port} on 127.0.0.1 is in use"):
            check(config)


def test_no_model_is_refused_with_how_to_name_one(config: InferenceServiceConfig) -> None:
    with pytest.raises(UserError, match="pass --model FOLDER"):
        check(changed(config, model=None))


def test_cores_are_bound_only_on_a_cpu(root: Path, config: InferenceServiceConfig, model: Path) -> None:
    gpu = load_config(root / "configs/inference.yaml", InferenceServiceConfig)
    assert server_environment(changed(config, cores="0-1"))["VLLM_CPU_OMP_THREADS_BIND"] == "0-1"
    assert "VLLM_CPU_OMP_THREADS_BIND" not in server_environment(gpu)
    assert "--enforce-eager" in server_command(config, model)
    assert "--enforce-eager" not in server_command(gpu, model)


def test_a_tcmalloc_that_the_system_has_is_preloaded_before_what_the_caller_preloads(
    config: InferenceServiceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD", "libgomp.so.1")
    monkeypatch.setattr("inference_service.command.find_library", lambda name: f"lib{name}.so.4")
    assert server_environment(config)["LD_PRELOAD"] == "libtcmalloc_minimal.so.4:libgomp.so.1"


def test_adapters_have_room_for_one_more_than_answer(root: Path, config: InferenceServiceConfig, model: Path) -> None:
    gpu = load_config(root / "configs/inference.yaml", InferenceServiceConfig, {"max_adapters": 3})
    command = server_command(gpu, model)
    assert "--enable-lora" not in server_command(config, model)
    assert command[command.index("--max-loras") + 1] == "5"


def test_transformers_serves_a_folder_where_the_config_says_so(config: InferenceServiceConfig, model: Path) -> None:
    assert "inference_service.engine_server" in server_command(changed(config, engine="transformers"), model)
    assert "inference_service.engine_server" not in server_command(config, model)
