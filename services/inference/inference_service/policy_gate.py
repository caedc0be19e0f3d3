"""Which policy answers: ASGI middleware in vLLM's API server, so that a version is never switched inside an answer."""

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference_service.adapters import SPARE_SLOTS, base_difference, load_adapter
from qmd_rpc.inference import ADAPTER_CONFIG, POLICY_HEADER, POLICY_PATH, SERVED_MODEL

logger = logging.getLogger("vllm.policy_gate")


@dataclass(eq=False)
class _Policy:
    """Weights that answer as a version."""

    version: str
    adapter: int | None = None
    """The engine's number of an adapter on the model; None for the model itself."""
    answering: int = 0
    """Completions under way."""

    @property
    def model(self) -> str:
        """What a completion request calls it."""
        return SERVED_MODEL if self.adapter is None else self.version


class PolicyGate:
    """Brings policies in, and keeps each the same from an answer's first token to its last.

    GET /policy tells of what `kind` policies are, the newest `policy`, the model that a request has to name for each
    one loaded, and how many completions are under way. POST /policy {"version", "folder", "timeout"} brings one in and
    answers 422 where the folder does not fit. A model folder takes the place of all policies: it waits for the
    completions under way and holds new ones back. An adapter's folder comes beside them; of more adapters than the
    engine computes at once the oldest goes, and makes room when its last completion has ended. A completion that names
    a version in the header x-policy is answered by that version or with 409, and its answer names it there.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._policies = {"base": _Policy("base")}
        self._retired: list[_Policy] = []
        self._weights: str | None = None
        self._numbers = itertools.count(1)
        self._loading = asyncio.Lock()
        self._replacing = False
        self._changed = asyncio.Condition()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in (POLICY_PATH, "/v1/completions", "/v1/chat/completions"):
            await self._app(scope, receive, send)
        elif scope["path"] != POLICY_PATH:
            await self._complete(scope, receive, send)
        elif scope["method"] == "POST":
            await (await self._load(Request(scope, receive)))(scope, receive, send)
        else:
            await JSONResponse(self._state(scope["app"].state.engine_client))(scope, receive, send)

    def _state(self, engine: Any) -> dict[str, Any]:
        return {
            "kind": "adapter" if engine.vllm_config.lora_config else "merged",
            "policy": next(reversed(self._policies), None),
            "models": {version: policy.model for version, policy in self._policies.items()},
            "max_sequences": engine.vllm_config.scheduler_config.max_num_seqs,
            "answering": self._answering(),
        }

    def _answering(self) -> int:
        return sum(policy.answering for policy in (*self._policies.values(), *self._retired))

    async def _complete(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._replacing)
            version = Headers(scope=scope).get(POLICY_HEADER) or next(iter(self._policies), "any")
            policy = self._policies.get(version)
            if policy:
                policy.answering += 1
        if policy is None:
            loaded = ", ".join(self._policies) or "a part of one"
            await _refuse(409, f"policy {version} is not loaded, only {loaded}")(scope, receive, send)
            return

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[POLICY_HEADER] = version
            await send(message)

        try:
            await self._app(scope, receive, send_with_policy)
        finally:
            async with self._changed:
                policy.answering -= 1
                self._changed.notify_all()

    async def _load(self, request: Request) -> Response:
        order, started = await request.json(), time.monotonic()
        version, folder, state = order["version"], order["folder"], request.app.state
        bring_in = self._add if (Path(folder) / ADAPTER_CONFIG).is_file() else self._replace
        try:
            async with asyncio.timeout(order["timeout"]), self._loading:
                refusal = await bring_in(state, version, folder)
        except TimeoutError:
            return _refuse(503, f"not done in time, {self._answering()} completions are under way")
        if refusal:
            return _refuse(422, refusal)
        logger.info("policy %s loaded from %s in %.1f s", version, folder, time.monotonic() - started)
        return JSONResponse({"policy": version})

    async def _add(self, state: Any, version: str, folder: str) -> str | None:
        """Brings an adapter in beside the other policies. Returns why it was refused, or None."""
        engine = state.engine_client
        if engine.vllm_config.lora_config is None:
            return f"{folder} is an adapter, and this service takes merged weights alone"
        if version in self._policies and self._policies[version].adapter is None:
            return f"{version} is what the loaded model answers as"
        difference = base_difference(Path(folder), Path(self._weights or engine.vllm_config.model_config.model))
        if difference:
            return difference
        async with self._changed:
            await self._changed.wait_for(lambda: not any(policy.answering for policy in self._retired))
        while self._retired:
            await engine.remove_lora(self._retired[-1].adapter)
            self._retired.pop()
        number = next(self._numbers)
        policy = _Policy(version, number)
        self._retired.append(policy)  # until it answers: a load that broke off is undone by the next
        refusal = await load_adapter(state, version, number, folder)
        if refusal is None:
            self._retired.remove(policy)
            if version in self._policies:
                self._retired.append(self._policies.pop(version))
            self._policies[version] = policy
            adapters = [name for name, loaded in self._policies.items() if loaded.adapter]
            for oldest in adapters[: SPARE_SLOTS - engine.vllm_config.lora_config.max_loras]:
                del state.openai_serving_models.lora_requests[oldest]
                self._retired.append(self._policies.pop(oldest))
        return refusal

    async def _replace(self, state: Any, version: str, folder: str) -> str | None:
        """Loads a model folder in place of all policies. Returns why it was refused, or None."""
        engine = state.engine_client
        async with self._silence():
            before, self._policies = self._policies, {}
            refusals = await engine.collective_rpc("load_policy", args=(folder,))
            refusal = next(filter(None, refusals), None)
            if refusal:
                self._policies = before
                return refusal
            await engine.reset_prefix_cache()
            if engine.vllm_config.lora_config:
                state.openai_serving_models.lora_requests.clear()
            self._policies, self._weights = {version: _Policy(version)}, folder
            return None

    @asynccontextmanager
    async def _silence(self) -> AsyncIterator[None]:
        """Holds new completions back while the block runs, which starts once those under way have ended."""
        self._replacing = True
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: not self._answering())
            yield
        finally:
            async with self._changed:
                self._replacing = False
                self._changed.notify_all()


def _refuse(status: int, problem: str) -> Response:
    return JSONResponse({"error": {"message": problem}}, status_code=status)
