"""The EvaluationService: runs an evaluation beside the event loop and streams how far it is."""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import grpc

from evaluator.config import EvaluatorConfig
from evaluator.evaluation import Evaluator
from evaluator.generation import OnProgress
from evaluator.paired import IncompleteError
from qmd_rpc.channel import ServiceError
from qmd_rpc.inference import PolicyMismatch
from qmd_rpc.server import serve
from qmd_rpc.v1 import evaluation_pb2, evaluation_pb2_grpc
from qmd_schema.artifacts import canonical_json
from qmd_schema.errors import UserError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_DEFAULT_LIMIT = 50
_LOG_EVERY = 50
"""Answers between two log lines of one task."""


class CalledOffError(Exception):
    """The caller went away, or the service stops. What was generated is kept."""


class EvaluationServicer(evaluation_pb2_grpc.EvaluationServiceServicer):
    """One evaluation at a time: the inference service holds one policy."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._busy = threading.Lock()

    async def Evaluate(  # noqa: N802
        self, request: evaluation_pb2.EvaluateRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[evaluation_pb2.EvaluateResponse]:
        await _check_paths(context, model=request.model)
        logger.info("asked to evaluate %s", request.model)
        async for event in self._run(context, lambda report: self._evaluator.evaluate(Path(request.model), report)):
            if isinstance(event, evaluation_pb2.Progress):
                yield evaluation_pb2.EvaluateResponse(progress=event)
            else:
                yield evaluation_pb2.EvaluateResponse(figures_json=canonical_json(event).decode())

    async def Compare(  # noqa: N802
        self, request: evaluation_pb2.CompareRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[evaluation_pb2.CompareResponse]:
        candidate, reference, output = request.candidate, request.reference, request.output
        await _check_paths(context, candidate=candidate, reference=reference, output=output)
        revision = request.deployed_revision or None
        logger.info("asked to compare %s with %s (%s)", candidate, reference, revision or "base model")
        async for event in self._run(
            context,
            lambda report: self._evaluator.compare(Path(candidate), Path(reference), revision, Path(output), report),
        ):
            if isinstance(event, evaluation_pb2.Progress):
                yield evaluation_pb2.CompareResponse(progress=event)
            else:
                yield evaluation_pb2.CompareResponse(signed_verdict_json=event.model_dump_json())

    async def GetVerdict(  # noqa: N802
        self, request: evaluation_pb2.GetVerdictRequest, context: grpc.aio.ServicerContext
    ) -> evaluation_pb2.GetVerdictResponse:
        signed = self._evaluator.store.verdict(request.id)
        if signed is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no verdict {request.id!r}")
        return evaluation_pb2.GetVerdictResponse(signed_verdict_json=signed.model_dump_json())

    async def ListVerdicts(  # noqa: N802
        self, request: evaluation_pb2.ListVerdictsRequest, context: grpc.aio.ServicerContext
    ) -> evaluation_pb2.ListVerdictsResponse:
        if request.limit < 0:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"limit: {request.limit} is below 0")
        rows = self._evaluator.store.verdicts(request.limit or _DEFAULT_LIMIT)
        summaries = [
            evaluation_pb2.VerdictSummary(
                id=row.id, created=row.created, outcome=row.outcome, candidate=row.candidate, reason=row.reason
            )
            for row in rows
        ]
        return evaluation_pb2.ListVerdictsResponse(verdicts=summaries)

    async def _run(
        self, context: grpc.aio.ServicerContext, work: Callable[[OnProgress], Result]
    ) -> AsyncIterator[evaluation_pb2.Progress | Result]:
        """Yields the progress of `work` and at last its result; ends the call with a status where it raises."""
        if not self._busy.acquire(blocking=False):
            problem = "another evaluation is running; call again when it has ended"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, problem)
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[evaluation_pb2.Progress | None] = asyncio.Queue()
        called_off = threading.Event()

        def report(task: str, done: int, total: int) -> None:
            if called_off.is_set():
                raise CalledOffError
            if done % _LOG_EVERY == 0 or done == total:
                logger.info("%s: %d of %d", task, done, total)
            loop.call_soon_threadsafe(events.put_nowait, evaluation_pb2.Progress(task=task, done=done, total=total))

        def run() -> Result:
            try:
                return work(report)
            finally:
                self._busy.release()

        def end(running: asyncio.Future[Result]) -> None:
            if not running.cancelled():
                running.exception()  # seen here, since nobody awaits the work of a caller that went away
            events.put_nowait(None)

        try:
            running = loop.run_in_executor(None, run)
            running.add_done_callback(end)
            while (progress := await events.get()) is not None:
                yield progress
            yield await running
        except (UserError, ServiceError, IncompleteError, OSError, sqlite3.Error) as error:
            code, problem = _status(error), _describe(error)
            logger.error("%s: %s", code.name, problem)
            await context.abort(code, problem)
        finally:
            called_off.set()


def _status(error: Exception) -> grpc.StatusCode:
    if isinstance(error, PolicyMismatch):
        return grpc.StatusCode.ABORTED
    if isinstance(error, (UserError, ServiceError)):
        # Not UNAVAILABLE where the inference service is away: that would say that this service is.
        return grpc.StatusCode.FAILED_PRECONDITION
    return grpc.StatusCode.INTERNAL


def _describe(error: Exception) -> str:
    if isinstance(error, (OSError, sqlite3.Error)):
        return (
            f"{error}: the evaluator could not keep what it measures. Make room, or make writable, where its `store`, "
            "its `search_cache` and the folder for the verdict are; the same call then goes on where it was."
        )
    return str(error)


async def _check_paths(context: grpc.aio.ServicerContext, **paths: str) -> None:
    for field, path in paths.items():
        if not Path(path).is_absolute():
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{field}: {path!r} is no absolute path")


def run(config: EvaluatorConfig) -> None:
    """Serves until SIGTERM or SIGINT. Raises UserError for a port, store or key that is not usable."""
    servicer = EvaluationServicer(Evaluator(config))
    serve(
        lambda server: evaluation_pb2_grpc.add_EvaluationServiceServicer_to_server(servicer, server),
        ["foundry.v1.EvaluationService"],
        config.server,
    )
