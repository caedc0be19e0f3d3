"""Brings a policy's weights into the running engine: mixed into vLLM's worker by `--worker-extension-cls`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

if TYPE_CHECKING:
    from vllm.v1.worker.gpu_worker import Worker
else:
    Worker = object

Shapes = dict[str, tuple[int, ...]]


class PolicyLoader(Worker):
    """Adds `load_policy` to the worker, for the engine's `collective_rpc`."""

    _served: Shapes | None = None

    def load_policy(self, folder: str) -> str | None:
        """Replaces the weights by those of a model folder. Returns why it refused and changed nothing, or None."""
        if self._served is None:
            self._served = tensor_shapes(Path(self.model_config.model))
        try:
            difference = first_difference(self._served, tensor_shapes(Path(folder)))
        except (OSError, ValueError, SafetensorError) as error:
            return f"{folder} cannot be read: {error}"
        if difference:
            return difference
        self.model_runner.reload_weights(weights_path=folder)
        # The reload passes over a tied head. On CPU the head computes with a packed copy of the embedding's
        # weights, which would stay the old one.
        if self.model_config.hf_config.tie_word_embeddings:
            head = self.model_runner.get_model().lm_head
            head.quant_method.process_weights_after_loading(head)
        return None


def tensor_shapes(folder: Path) -> Shapes:
    """Shape by name of a model folder's tensors, read from the headers alone. A tied head is left out."""
    shapes: Shapes = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    if json.loads((folder / "config.json").read_text(encoding="utf-8")).get("tie_word_embeddings"):
        shapes.pop("lm_head.weight", None)
    return shapes


def first_difference(served: Shapes, offered: Shapes) -> str | None:
    """The first tensor, by name, that two models do not have in common; None when they fit."""
    for name in sorted(served.keys() | offered.keys()):
        if served.get(name) != offered.get(name):
            return f"{name} is {_describe(offered.get(name))}, the served model's is {_describe(served.get(name))}"
    return None


def _describe(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else "×".join(map(str, shape))
