"""A model that can be measured: a merged folder, which vLLM runs, or a GGUF file, which llama.cpp runs."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evaluator.gguf_metadata import read_metadata
from qmd_schema.artifacts import sha256_file, sha256_folder
from qmd_schema.contract import QMD_DECODE, bos_token
from qmd_schema.errors import ArtifactError

GGUF_SUFFIX = ".gguf"
_CONTROL = 3
"""llama.cpp's type of a token that belongs to the template."""

Engine = Literal["vLLM", "llama.cpp"]


@dataclass(frozen=True)
class Model:
    path: Path
    sha256: str
    bos: str | None
    special_ids: frozenset[int]
    """Tokens that belong to the template and never into an answer."""
    weight_bytes: int
    cache_bytes: int
    """Keys and values of QMD's whole context in 16 bits: with the weights, the memory that a user's machine gives."""

    @property
    def version(self) -> str:
        """Its name as a policy of the inference service."""
        return self.sha256[:16]

    @property
    def engine(self) -> Engine:
        return "llama.cpp" if self.path.suffix == GGUF_SUFFIX else "vLLM"


def open_model(path: Path) -> Model:
    """Raises ArtifactError, naming what is missing, for what is no whole model."""
    return _open_gguf(path) if path.suffix == GGUF_SUFFIX else _open_folder(path)


def _open_folder(folder: Path) -> Model:
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ArtifactError(f"{folder}: no {name}; give a merged model folder with its tokenizer, or a GGUF file.")
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if not weights:
        raise ArtifactError(f"{folder}: no *.safetensors; give a merged model folder with its weights.")
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    special = frozenset(token["id"] for token in tokenizer.get("added_tokens", ()) if token["special"])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    try:
        heads = config["num_attention_heads"]
        head_size = config.get("head_dim") or config["hidden_size"] // heads
        cache = _cache_bytes(config["num_hidden_layers"], config.get("num_key_value_heads") or heads, head_size)
    except LookupError as error:
        raise ArtifactError(f"{folder}/config.json: has no {error}, as the config of a language model has.") from error
    return Model(folder, sha256_folder(folder), bos_token(folder), special, weights, cache)


def _open_gguf(path: Path) -> Model:
    if not path.is_file():
        raise ArtifactError(f"{path}: no such GGUF file.")
    try:
        metadata = read_metadata(path)
        types = metadata["tokenizer.ggml.token_type"]
        bos = metadata.get("tokenizer.ggml.bos_token_id")
        token = None if bos is None else metadata["tokenizer.ggml.tokens"][bos].decode()
        shape = {key.partition(".")[2]: value for key, value in metadata.items()}
        heads = shape["attention.head_count"]
        head_size = shape.get("attention.key_length") or shape["embedding_length"] // heads
        cache = _cache_bytes(shape["block_count"], shape.get("attention.head_count_kv") or heads, head_size)
    except (ValueError, LookupError) as error:
        raise ArtifactError(f"{path}: not a GGUF file of a model with its tokenizer: {error}.") from error
    special = frozenset(number for number, kind in enumerate(types) if kind == _CONTROL)
    return Model(path, sha256_file(path), token, special, path.stat().st_size, cache)


def _cache_bytes(layers: int, heads: int, head_size: int) -> int:
    """heads: that keys and values have, which may be fewer than those of the queries."""
    return 2 * layers * heads * head_size * QMD_DECODE.context_tokens * 2
