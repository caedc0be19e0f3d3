"""vLLM's command line and environment, worked out from the config."""

import os
import sys
from ctypes.util import find_library
from pathlib import Path

from inference_service.adapters import SPARE_SLOTS
from inference_service.config import InferenceServiceConfig
from qmd_rpc.inference import SERVED_MODEL
from qmd_rpc.processes import BRIEF_WAITS

GGUF_SUFFIX = ".gguf"


def server_command(config: InferenceServiceConfig, model: Path) -> list[str]:
    """How the server is started that runs a model: vLLM's, or ours for a GGUF file and where vLLM does not run."""
    is_ours = model.suffix == GGUF_SUFFIX or config.engine == "transformers"
    return _own_command(config, model) if is_ours else _vllm_command(config, model)


def _own_command(config: InferenceServiceConfig, model: Path) -> list[str]:
    command = [sys.executable, "-m", "inference_service.engine_server", "--model", str(model)]
    command += ["--host", config.host, "--port", str(config.port), "--cores", config.cores or _allowed_cores()]
    command += ["--dtype", config.dtype, "--context", str(config.max_tokens)]
    command += ["--sequences", str(config.max_sequences)]
    return [*command, "--cache-bytes", str(int(config.kv_cache_gib * 2**30))]


def _vllm_command(config: InferenceServiceConfig, model: Path) -> list[str]:
    """Not by `vllm serve`, which wants the metadata of a package named vllm."""
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(model), "--served-model-name", SERVED_MODEL]
    command += ["--host", config.host, "--port", str(config.port), "--disable-uvicorn-access-log"]
    command += ["--dtype", config.dtype, "--max-model-len", str(config.max_tokens)]
    command += ["--max-num-seqs", str(config.max_sequences)]
    command += ["--kv-cache-memory-bytes", str(int(config.kv_cache_gib * 2**30))]
    command += ["--block-size", str(config.block_tokens)]
    command += ["--logits-processors", "inference_service.qmd_sampling:QmdSampling"]
    command += ["--worker-extension-cls", "inference_service.worker_extension.PolicyLoader"]
    command += ["--middleware", "inference_service.policy_gate.PolicyGate"]
    if config.policies == "adapter":
        command += ["--enable-lora", "--max-lora-rank", str(config.max_adapter_rank)]
        command += ["--max-loras", str(config.max_adapters + SPARE_SLOTS)]
    if config.device == "cpu":
        command += ["--enforce-eager"]
    return command


def server_environment(config: InferenceServiceConfig) -> dict[str, str]:
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        # The logits processor is written for the V1 runner; the V2 runner, the default on CUDA, wants another kind.
        "VLLM_USE_V2_MODEL_RUNNER": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_LOGGING_COLOR": "never",
    }
    if config.device == "cpu":
        environment |= BRIEF_WAITS
        # Not even the one kernel that --enforce-eager leaves to be compiled: it saves 1.4 ms a step of 65 ms, and
        # takes 4 s at every start and a C++ compiler.
        environment["TORCH_COMPILE_DISABLE"] = "1"
        # All of them: left to itself vLLM keeps one for its other processes, which need a twentieth of one.
        environment["VLLM_CPU_OMP_THREADS_BIND"] = config.cores or _allowed_cores()
        # torch's OpenMP vLLM preloads itself, a tcmalloc only where its wheel holds one.
        if tcmalloc := find_library("tcmalloc_minimal"):
            environment["LD_PRELOAD"] = ":".join(filter(None, (tcmalloc, os.environ.get("LD_PRELOAD"))))
    return environment


def _allowed_cores() -> str:
    cores = os.sched_getaffinity(0) if sys.platform == "linux" else range(os.cpu_count() or 1)
    return ",".join(map(str, sorted(cores)))
