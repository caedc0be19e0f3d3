"""`python -m inference_service.engine_server`: our own engine over the HTTP interface that vLLM's server has here.

It runs GGUF files with llama.cpp, and model folders with transformers where vLLM does not run.
"""

import argparse
import asyncio
import json
import os
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inference_service.engine import Answer, Engine, OpenModel, Order, RefusedError
from inference_service.policy_gate import PolicyGate
from qmd_rpc.inference import DECODE_ARGUMENT, GRAMMAR_ARGUMENT
from qmd_schema.contract import Decode

COMPLETIONS = Counter("foundry_completions", "Completions, by how they ended.", ["finish_reason"])
TOKENS = Counter("foundry_generated_tokens", "Tokens written.")
SECONDS = Histogram(
    "foundry_completion_seconds", "Time of a completion, waiting included.", buckets=(0.1, 0.3, 1, 3, 10, 30, 100, 300)
)


class EngineClient:
    """The engine as the policy gate asks vLLM's: nothing is cached between policies, and none is an adapter."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        scheduler = SimpleNamespace(max_num_seqs=engine.sequences)
        self.vllm_config = SimpleNamespace(scheduler_config=scheduler, lora_config=None)

    async def collective_rpc(self, method: str, args: tuple[str]) -> list[str | None]:
        """Loads a model. Returns why it was refused, or None."""
        assert method == "load_policy"
        (path,) = args
        try:
            await asyncio.wrap_future(self.engine.load(Path(path)))
        except RefusedError as error:
            return [str(error)]
        return [None]

    async def reset_prefix_cache(self) -> None:
        pass


async def complete(request: Request) -> JSONResponse:
    try:
        order = _order(await request.json())
        with SECONDS.time():
            answer = await asyncio.wrap_future(request.app.state.engine_client.engine.submit(order))
    except (KeyError, TypeError, ValueError, RefusedError) as error:
        COMPLETIONS.labels("refused").inc()
        return JSONResponse({"error": {"message": f"{type(error).__name__}: {error}"}}, status_code=400)
    COMPLETIONS.labels(answer.finish_reason).inc()
    TOKENS.inc(len(answer.token_ids))
    return JSONResponse({"choices": [_choice(answer)]})


async def health(request: Request) -> Response:
    return Response(status_code=200 if request.app.state.engine_client.engine.is_running else 503)


def _order(body: dict[str, Any]) -> Order:
    arguments = body["vllm_xargs"]
    return Order(
        prompt=body["prompt"],
        decode=Decode(**json.loads(arguments[DECODE_ARGUMENT])),
        max_tokens=int(body["max_tokens"]),
        seed=int(body["seed"]),
        grammar=bool(arguments[GRAMMAR_ARGUMENT]),
        logprobs=body["logprobs"] is not None,
    )


def _choice(answer: Answer) -> dict[str, Any]:
    choice = asdict(answer)
    logprobs = choice.pop("logprobs")
    return {**choice, "logprobs": None if logprobs is None else {"token_logprobs": logprobs}}


async def metrics(_: Request) -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def make_app(engine: Engine) -> Starlette:
    app = Starlette(
        routes=[
            Route("/v1/completions", complete, methods=["POST"]),
            Route("/health", health),
            Route("/metrics", metrics),
        ]
    )
    app.state.engine_client = EngineClient(engine)
    app.add_middleware(PolicyGate)
    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="GGUF file or model folder")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dtype", required=True, help="of a model folder's weights and computation")
    parser.add_argument("--sequences", type=int, required=True, help="answers written at the same time, at most")
    parser.add_argument("--context", type=int, required=True, help="tokens of a prompt and its answer together")
    parser.add_argument("--cache-bytes", type=int, required=True, help="memory for keys and values")
    parser.add_argument("--cores", required=True, help='cores to run on, such as "0,2-3"')
    arguments = parser.parse_args()
    engine = Engine(_opener(arguments, _bind(arguments.cores)), arguments.model)
    uvicorn.run(make_app(engine), host=arguments.host, port=arguments.port, log_level="warning")


def _bind(cores: str) -> int:
    """Binds this process to its cores, where the system lets it, and returns their number."""
    ends = [part.partition("-") for part in cores.split(",")]
    numbers = [core for first, _, last in ends for core in range(int(first), int(last or first) + 1)]
    if sys.platform == "linux":
        os.sched_setaffinity(0, numbers)
    torch.set_num_threads(len(numbers))
    return len(numbers)


def _opener(arguments: argparse.Namespace, threads: int) -> OpenModel:
    """How the engine opens a model; the library that runs it is imported only where it is needed."""
    room: dict[str, Any] = {
        "cache_bytes": arguments.cache_bytes,
        "sequences": arguments.sequences + 1,
        "context": arguments.context,
    }
    if arguments.model.suffix == ".gguf":
        from inference_service.gguf_model import GgufModel

        return partial(GgufModel, threads=threads, **room)
    from inference_service.transformers_model import TransformersModel

    return partial(TransformersModel, dtype=getattr(torch, arguments.dtype), **room)


if __name__ == "__main__":
    main()
