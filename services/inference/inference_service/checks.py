"""What must hold before vLLM is started, since it finds out late and says it in many lines."""

import errno
import json
import socket
from pathlib import Path

from inference_service.command import GGUF_SUFFIX
from inference_service.config import InferenceServiceConfig
from qmd_schema.errors import ArtifactError, ConfigError, UserError

_GIB = 2**30
_PROGRAMS_GIB = 3.0
"""Resident size of vLLM's three processes without weights and KV cache, measured with the CPU build."""


def check(config: InferenceServiceConfig) -> Path:
    """The model folder or GGUF file to serve. Raises UserError for the first thing that keeps it from being served."""
    if config.model is None:
        raise ConfigError("no model to serve: pass --model FOLDER; `python -m trainer resolve REFERENCE` prints one.")
    model = Path(config.model).expanduser().resolve()
    if model.suffix == GGUF_SUFFIX:
        _check_gguf(model)
    else:
        _check_model(model, config.max_tokens)
        if config.device == "cpu":
            _check_memory(model, config.kv_cache_gib)
    _check_port(config.host, config.port)
    return model


def _check_gguf(path: Path) -> None:
    if not path.is_file():
        raise ArtifactError(f"{path}: no such GGUF file.")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ArtifactError(f"{path}: not a GGUF file; its first four bytes say so.")


def _check_model(folder: Path, max_tokens: int) -> None:
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such model folder.")
    missing = [
        name for name in ("config.json", "tokenizer.json", "tokenizer_config.json") if not (folder / name).exists()
    ]
    if not any(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise ArtifactError(f"{folder}: not a model folder, {', '.join(missing)} missing. Copy them beside the others.")
    try:
        longest = json.loads((folder / "config.json").read_bytes()).get("max_position_embeddings", max_tokens)
    except (ValueError, AttributeError) as error:
        raise ArtifactError(f"{folder}/config.json: not a model's config: {error}") from error
    if longest < max_tokens:
        raise ConfigError(f"max_tokens: {max_tokens}: {folder} holds {longest} at most. Lower max_tokens.")


def _check_memory(folder: Path, kv_cache_gib: float) -> None:
    """On CPU the weights lie in memory twice while they are loaded: as read, and packed for the kernels."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return
    fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) / 2**20
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / _GIB
    needed = 2 * weights + kv_cache_gib + _PROGRAMS_GIB
    if available < needed:
        raise UserError(
            f"{needed:.1f} GiB of memory are needed to serve {folder}, {available:.1f} GiB are available. "
            f"Lower kv_cache_gib, or stop other programs."
        )


def _check_port(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                problem = "is in use: stop the program that listens there, or choose another port with --port"
            else:
                problem = f"cannot be bound: {error.strerror}"
            raise UserError(f"port {port} on {host} {problem}.") from error
