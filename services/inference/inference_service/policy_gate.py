"""Which policy answers: ASGI middleware in vLLM's API server, so that a version is never switched inside an answer."""

import asyncio
import logging
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qmd_rpc.inference import POLICY_HEADER, POLICY_PATH

logger = logging.getLogger("vllm.policy_gate")


class PolicyGate:
    """Holds completions back while another policy is brought in, which waits for those under way to end.

    GET /policy tells what is loaded and how many completions are under way. POST /policy {"version", "folder",
    "timeout"} loads the weights of a folder and answers 422 where they do not fit. A completion that names a version
    in the header x-policy is answered by that version or with 409; every answer names its version there.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._policy: str | None = "base"
        self._answering = 0
        self._loading = False
        self._changed = asyncio.Condition()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in (POLICY_PATH, "/v1/completions", "/v1/chat/completions"):
            await self._app(scope, receive, send)
        elif scope["path"] != POLICY_PATH:
            await self._complete(scope, receive, send)
        elif scope["method"] == "POST":
            await (await self._load(Request(scope, receive)))(scope, receive, send)
        else:
            sequences = scope["app"].state.engine_client.vllm_config.scheduler_config.max_num_seqs
            state = {"policy": self._policy, "max_sequences": sequences, "answering": self._answering}
            await JSONResponse(state)(scope, receive, send)

    async def _complete(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._loading)
            self._answering += 1
        try:
            policy = self._policy
            if policy is None or policy != Headers(scope=scope).get(POLICY_HEADER, policy):
                await _refuse(409, f"the loaded policy is {policy}")(scope, receive, send)
                return

            async def send_with_policy(message: Message) -> None:
                if message["type"] == "http.response.start":
                    MutableHeaders(scope=message)[POLICY_HEADER] = policy
                await send(message)

            await self._app(scope, receive, send_with_policy)
        finally:
            async with self._changed:
                self._answering -= 1
                self._changed.notify_all()

    async def _load(self, request: Request) -> Response:
        order = await request.json()
        deadline = asyncio.get_running_loop().time() + order["timeout"]
        try:
            async with asyncio.timeout_at(deadline), self._changed:
                await self._changed.wait_for(lambda: not self._loading)
                self._loading = True
        except TimeoutError:
            return _refuse(503, "another policy is still being loaded")
        try:
            async with asyncio.timeout_at(deadline), self._changed:
                await self._changed.wait_for(lambda: not self._answering)
            return await self._switch(request.app.state.engine_client, order["version"], order["folder"])
        except TimeoutError:
            return _refuse(503, f"{self._answering} completions are still under way")
        finally:
            async with self._changed:
                self._loading = False
                self._changed.notify_all()

    async def _switch(self, engine: Any, version: str, folder: str) -> Response:
        started, before, self._policy = time.monotonic(), self._policy, None
        refusals = await engine.collective_rpc("load_policy", args=(folder,))
        refusal = next(filter(None, refusals), None)
        if refusal:
            self._policy = before
            return _refuse(422, refusal)
        await engine.reset_prefix_cache()
        self._policy = version
        logger.info("policy %s loaded from %s in %.1f s", version, folder, time.monotonic() - started)
        return JSONResponse({"policy": version})


def _refuse(status: int, problem: str) -> Response:
    return JSONResponse({"error": {"message": problem}}, status_code=status)
