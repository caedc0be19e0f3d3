"""Which engine runs model folders on this machine: vLLM, and where it cannot, transformers."""

import logging
import platform
import sys
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path

from inference_service.command import GGUF_SUFFIX
from inference_service.config import InferenceServiceConfig
from qmd_schema.errors import UserError

NOT_INSTALLED = "vLLM is not installed"
FALLBACK = "transformers runs model folders instead, several times slower"

logger = logging.getLogger(__name__)


def with_engine(config: InferenceServiceConfig, model: Path) -> InferenceServiceConfig:
    """The config with the engine of a model folder chosen, and a line in the log where that is not vLLM.

    Raises UserError where it is to run on a GPU, which only vLLM does.
    """
    if model.suffix == GGUF_SUFFIX or config.engine != "auto":
        return config
    obstacle = vllm_obstacle()
    if obstacle is None:
        return config.model_copy(update={"engine": "vllm"})
    if config.device == "cuda":
        raise UserError(f"{obstacle}, and nothing else serves from a GPU. Install it: make setup PROFILE=gpu")
    logger.warning("%s: %s", obstacle, FALLBACK)
    return config.model_copy(update={"engine": "transformers"})


def vllm_obstacle() -> str | None:
    """Why vLLM does not run on this machine, in a few words, or None."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    return obstacle_on(sys.platform, platform.machine(), flags.split(), find_spec("vllm") is not None)


def obstacle_on(system: str, machine: str, flags: Collection[str], is_installed: bool) -> str | None:
    """system: as sys.platform; machine: as platform.machine; flags: of its processor, as in /proc/cpuinfo."""
    if system != "linux":
        return f"vLLM has no build for {system}"
    if machine == "x86_64" and "avx2" not in flags:
        return "vLLM needs AVX2, which this processor lacks"
    return None if is_installed else NOT_INSTALLED
