"""The client of the inference service: completions of a named policy over vLLM's HTTP interface."""

import hashlib
import json
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import httpx

from qmd_rpc.channel import ServiceError
from qmd_schema.contract import QMD_DECODE, Decode

SERVICE = "inference"
SERVED_MODEL = "policy"
"""What a completion request calls the model itself; a policy that is an adapter on it goes by its version."""
ADAPTER_CONFIG = "adapter_config.json"
"""The file that tells an adapter's folder from a model's."""
POLICY_PATH = "/policy"
POLICY_HEADER = "x-policy"
"""On a completion request the version that must answer, on its response the version that did."""
PolicyKind = Literal["merged", "adapter"]
"""A policy's weights: a whole model, which takes the place of the one before, or an adapter on the served model."""
DECODE_ARGUMENT = "qmd_decode"
GRAMMAR_ARGUMENT = "qmd_grammar"
"""Keys of a completion's `vllm_xargs`: a Decode as JSON, and 1 for QMD's grammar."""

# httpx logs every request at INFO: a line for every completion.
logging.getLogger("httpx").setLevel(logging.WARNING)

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 0.5
_LOAD_HINT = "Load the wanted policy, or name a loaded one."


class PolicyMismatch(ServiceError):  # noqa: N818
    """The policy that should answer is not loaded."""


@dataclass(frozen=True)
class Completion:
    """One answer to a prompt."""

    text: str
    token_ids: list[int]
    """With the end token when `finish_reason` is `stop`."""
    logprobs: list[float] | None
    """Of each token under the model's softmax at temperature 1, whatever it was drawn with."""
    finish_reason: str
    """`stop` at the end token, `length` at the limit."""


class InferenceClient:
    """Completes prompts and brings policies in. Thread-safe. Calls raise ServiceError."""

    def __init__(self, address: str, deadline: float = 900.0, patience: float = 120.0) -> None:
        """address: "127.0.0.1:8011"; deadline: seconds a call may take.

        patience: seconds of it that a server which does not answer, such as one that restarts, is waited for.
        """
        self.address = address
        self.deadline = deadline
        self.patience = patience
        # An idle connection is given up before the server does so, after 5 s.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=2.0)
        self._http = httpx.Client(base_url=f"http://{address}", limits=limits, trust_env=False)

    def wait_ready(self, timeout: float) -> None:
        """Returns when a completion came back. Raises ServiceError after `timeout` seconds."""
        # Asks for all that an answer may need, so that nothing is left to compile at the first real request.
        body = _completion_request(SERVED_MODEL, "ready", QMD_DECODE, 2, grammar=True, logprobs=True, seed=0)
        self._request("POST", "/v1/completions", time.monotonic() + timeout, patience=timeout, json=body)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        n: int = 1,
        decode: Decode = QMD_DECODE,
        max_tokens: int | None = None,
        grammar: bool = True,
        logprobs: bool = False,
        seed: int | None = None,
        policy: str | None = None,
        missing: int = 0,
        on_done: Callable[[int], None] | None = None,
    ) -> list[list[Completion]]:
        """`n` completions of each prompt, in the prompts' order, all by one policy.

        prompts: texts of `prompt_text`, tokenized without added special tokens.
        decode: a `top_k` of 0, `top_p` of 1 and no penalty is plain temperature sampling.
        max_tokens: the decode's where absent. grammar: QMD's.
        seed: every sample of every prompt gets its own random numbers from it, so that a call can be repeated, but
        for how the model's arithmetic rounds in batches of another size.
        policy: the version that must answer; PolicyMismatch where it is not loaded. None: the newest loaded.
        missing: how many completions of the call may fail; a prompt has fewer than `n` then. One more raises.
        on_done: called with the number of prompts finished so far.
        """
        ends = time.monotonic() + self.deadline
        state = self._state(ends)
        version = state["policy"] if policy is None else policy
        model = state["models"].get(version)
        if model is None:
            problem = f"policy {version} is not loaded, only {', '.join(state['models'])}"
            raise PolicyMismatch(SERVICE, self.address, problem, _LOAD_HINT)
        seed = secrets.randbits(63) if seed is None else seed
        limit = max_tokens or decode.max_tokens

        def complete(place: tuple[int, int]) -> Completion | ServiceError:
            own_seed = _derived_seed(seed, *place)
            body = _completion_request(
                model, prompts[place[0]], decode, limit, grammar=grammar, logprobs=logprobs, seed=own_seed
            )
            try:
                return self._complete(body, version, ends)
            except PolicyMismatch:
                raise
            except ServiceError as error:
                return error

        # A few more requests than the engine runs at once, so that it never waits for the next one.
        threads = ThreadPoolExecutor(max_workers=state["max_sequences"] * 5 // 4)
        answers: list[list[Completion]] = [[] for _ in prompts]
        try:
            places = [(prompt, sample) for prompt in range(len(prompts)) for sample in range(n)]
            for (prompt, sample), outcome in zip(places, threads.map(complete, places), strict=True):
                if isinstance(outcome, Completion):
                    answers[prompt].append(outcome)
                elif missing:
                    missing -= 1
                    logger.warning("a completion is left out: %s", outcome)
                else:
                    raise outcome
                if on_done and sample == n - 1:
                    on_done(prompt + 1)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
        return answers

    def load_policy(self, version: str, folder: Path) -> None:
        """Brings weights in; returns when they answer as `version`. Raises ServiceError, and leaves what was loaded.

        folder: one that the server can read; it is read once. A model folder of the same architecture (a server that
        runs no vLLM takes any) replaces all policies once the completions under way have ended. An adapter's folder,
        where `policy_kind` is "adapter", comes beside the last ones.
        """
        order = {"version": version, "folder": str(folder.resolve()), "timeout": self.deadline}
        self._request("POST", POLICY_PATH, time.monotonic() + self.deadline, json=order)

    def policy(self) -> str:
        """The version loaded last, "base" after start. Raises ServiceError after a load that broke off half-way."""
        return str(self._state(time.monotonic() + self.deadline)["policy"])

    def policy_kind(self) -> PolicyKind:
        """What a trainer should bring in; a service of adapters takes whole models as well."""
        kind: PolicyKind = self._state(time.monotonic() + self.deadline)["kind"]
        return kind

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _complete(self, body: dict[str, Any], version: str, ends: float) -> Completion:
        headers = {POLICY_HEADER: version}
        choice = self._request("POST", "/v1/completions", ends, json=body, headers=headers)["choices"][0]
        if choice["finish_reason"] not in ("stop", "length"):
            raise self._error(f"a completion ended with {choice['finish_reason']!r}", "Read the service's log.")
        logprobs = choice["logprobs"] and choice["logprobs"]["token_logprobs"]
        return Completion(choice["text"], choice["token_ids"], logprobs, choice["finish_reason"])

    def _state(self, ends: float) -> dict[str, Any]:
        """What the server tells of its policies; at least one of them is loaded."""
        state: dict[str, Any] = self._request("GET", POLICY_PATH, ends)
        if state["policy"] is None:
            raise self._error("the last policy was loaded only in part", "Load one that is whole.")
        return state

    def _request(self, method: str, path: str, ends: float, patience: float | None = None, **content: Any) -> Any:
        """The JSON of a call's answer. A server that is away or broken is asked again, for `patience` seconds.

        ends: the time.monotonic() at which the call has no time left.
        """
        patience = self.patience if patience is None else patience
        gives_up = None
        while True:
            try:
                response = self._http.request(method, path, timeout=max(ends - time.monotonic(), 0.001), **content)
            except httpx.ReadTimeout as error:
                raise self._error("no answer in time", "Read its log, or call with a longer deadline.") from error
            except httpx.TransportError as error:
                problem = f"not reachable: {error}"
            else:
                if response.is_success:
                    return response.json()
                problem = _message(response)
                if response.status_code == httpx.codes.CONFLICT:
                    raise PolicyMismatch(SERVICE, self.address, problem, _LOAD_HINT)
                if response.status_code < 500:
                    raise self._error(problem)
            gives_up = gives_up or min(ends, time.monotonic() + patience)
            if time.monotonic() + _RETRY_SECONDS > gives_up:
                remedy = "Start it with `foundry serve inference`, read its log, or correct the address."
                raise self._error(f"{problem}; given up after {patience:g} s", remedy)
            time.sleep(_RETRY_SECONDS)

    def _error(self, problem: str, remedy: str = "") -> ServiceError:
        return ServiceError(SERVICE, self.address, problem, remedy)


def _completion_request(
    model: str, prompt: str, decode: Decode, max_tokens: int, *, grammar: bool, logprobs: bool, seed: int
) -> dict[str, Any]:
    """Every setting is named, so that none is taken from the model folder's generation_config.json."""
    return {
        "model": model,
        "prompt": prompt,
        "add_special_tokens": False,
        "max_tokens": max_tokens,
        "seed": seed,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "presence_penalty": 0.0,
        "repetition_penalty": 1.0,
        "vllm_xargs": {DECODE_ARGUMENT: json.dumps(asdict(decode)), GRAMMAR_ARGUMENT: int(grammar)},
        "logprobs": 0 if logprobs else None,
        "return_token_ids": True,
    }


def _derived_seed(seed: int, prompt: int, sample: int) -> int:
    """A seed of 63 bits for one sample of one prompt of a call."""
    return int.from_bytes(hashlib.sha256(f"{seed} {prompt} {sample}".encode()).digest()[:8]) >> 1


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}: {response.text[:200]}"
