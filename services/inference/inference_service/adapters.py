"""Adapters brought into a running vLLM, beside the model that they were trained on."""

import json
from pathlib import Path
from typing import Any

from qmd_rpc.inference import ADAPTER_CONFIG

SPARE_SLOTS = 2
"""Of vLLM's slots for adapters. One is for the newest, since the oldest is unloaded after it has come. The last one
stays empty: vLLM's CPU kernels compute it for a request without an adapter that runs beside one with."""


async def load_adapter(state: Any, version: str, number: int, folder: str) -> str | None:
    """Loads an adapter that a completion asks for as model `version`. Returns why vLLM refused it, or None.

    state: of vLLM's API server. number: never used before: vLLM's prefix cache goes by the adapter's name, so one that
    is loaded again under its old name would answer with the keys and values of its old weights.
    """
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.exceptions import EngineDeadError

    request = LoRARequest(f"{version}.{number}", number, folder)
    try:
        await state.engine_client.add_lora(request)
    except EngineDeadError:
        raise
    except Exception as error:  # whatever the engine says of the adapter
        return f"{folder}: {error}"
    state.openai_serving_models.lora_requests[version] = request
    return None


def base_difference(adapter: Path, served: Path) -> str | None:
    """Why an adapter is not of the served model, or None. A base that cannot be seen from here is taken on trust."""
    try:
        settings = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        base = Path(settings["base_model_name_or_path"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        return f"{adapter} cannot be read: {error!r}"
    if base.is_dir() and base.resolve() != served.resolve():
        return f"{adapter} was trained on {base}, the loaded weights are those of {served}: load the adapter's first"
    return None
