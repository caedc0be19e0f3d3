"""The PublishingService: works beside the event loop, and streams how far a publication is."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import grpc

from publisher.admission import Submission
from publisher.child import CalledOffError, StepError
from publisher.config import PublisherConfig
from publisher.dry_run import DryRun
from publisher.publication import publish
from publisher.registry import (
    Change,
    Deployment,
    Publication,
    Registry,
    RegistryUnreachableError,
    open_registry,
)
from publisher.rollback import roll_back
from qmd_rpc.server import serve
from qmd_rpc.v1 import evaluation_pb2, publishing_pb2, publishing_pb2_grpc
from qmd_schema.errors import UserError

Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


class PublishingServicer(publishing_pb2_grpc.PublishingServiceServicer):
    def __init__(self, config: PublisherConfig, registry: Registry) -> None:
        self._config = config
        self._registry = registry

    async def Publish(  # noqa: N802
        self, request: publishing_pb2.PublishRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[publishing_pb2.PublishResponse]:
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[evaluation_pb2.Progress | None] = asyncio.Queue()
        cancelled = threading.Event()

        def end(work: asyncio.Future[Deployment]) -> None:
            if isinstance(work.exception(), CalledOffError):
                logger.info("called off, since the caller went away or the service stops")
            events.put_nowait(None)

        def report(task: str, done: int, total: int) -> None:
            logger.info("step %d of %d: %s", done + 1, total, task)
            loop.call_soon_threadsafe(events.put_nowait, evaluation_pb2.Progress(task=task, done=done, total=total))

        try:
            submission = to_submission(request)
            logger.info("asked to publish %s%s", submission.model, ", as a dry run" if request.dry_run else "")
            dry_run = DryRun(self._registry) if request.dry_run else None
            registry = dry_run or self._registry
            work = loop.run_in_executor(None, publish, submission, self._config, registry, report, cancelled)
            work.add_done_callback(end)
            while (progress := await events.get()) is not None:
                yield publishing_pb2.PublishResponse(progress=progress)
            deployment = await work
            if dry_run:
                yield publishing_pb2.PublishResponse(changes=to_changes(dry_run.changes))
            else:
                _log_deployment("published", deployment)
                yield publishing_pb2.PublishResponse(deployment=to_message(deployment))
        except (UserError, StepError, OSError) as error:
            await _abort(context, error)
        finally:
            cancelled.set()

    async def GetDeployed(  # noqa: N802
        self, _request: publishing_pb2.GetDeployedRequest, context: grpc.aio.ServicerContext
    ) -> publishing_pb2.GetDeployedResponse:
        deployed = await _answer(context, self._registry.deployed)
        if deployed is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "nothing is deployed yet")
        return publishing_pb2.GetDeployedResponse(deployment=to_message(deployed))

    async def ListRevisions(  # noqa: N802
        self, _request: publishing_pb2.ListRevisionsRequest, context: grpc.aio.ServicerContext
    ) -> publishing_pb2.ListRevisionsResponse:
        history = await _answer(context, self._registry.history)
        return publishing_pb2.ListRevisionsResponse(revisions=[to_revision(publication) for publication in history])

    async def Rollback(  # noqa: N802
        self, request: publishing_pb2.RollbackRequest, context: grpc.aio.ServicerContext
    ) -> publishing_pb2.RollbackResponse:
        def work() -> Deployment:
            return roll_back(self._registry, request.repository, request.revision, request.reason)

        deployment = await _answer(context, work)
        _log_deployment("rolled back, with", deployment)
        return publishing_pb2.RollbackResponse(deployment=to_message(deployment))

    async def CollectGarbage(  # noqa: N802
        self, request: publishing_pb2.CollectGarbageRequest, context: grpc.aio.ServicerContext
    ) -> publishing_pb2.CollectGarbageResponse:
        if request.keep < 1:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "keep: 0 revisions; the deployed one always stays")
        garbage = await _answer(context, lambda: self._registry.collect(request.keep, request.dry_run))
        return publishing_pb2.CollectGarbageResponse(removed=garbage.removed, bytes=garbage.bytes, note=garbage.note)


async def _answer(context: grpc.aio.ServicerContext, work: Callable[[], Answer]) -> Answer:
    """What a call to the registry returns, made in a thread, since it may read a disk or ask another server."""
    try:
        return await asyncio.to_thread(work)
    except (UserError, OSError) as error:
        await _abort(context, error)
        raise


async def _abort(context: grpc.aio.ServicerContext, error: Exception) -> None:
    """Ends a call: FAILED_PRECONDITION for what the caller can mend, INTERNAL for what failed here or on the way."""
    if isinstance(error, UserError) and not isinstance(error, RegistryUnreachableError):
        logger.warning("refused: %s", error)
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
    logger.error("failed: %s", error)
    await context.abort(grpc.StatusCode.INTERNAL, str(error))


def _log_deployment(what: str, deployment: Deployment) -> None:
    logger.info(
        "%s %s revision %s (verdict %s)", what, deployment.repository, deployment.revision, deployment.verdict_id
    )


def to_submission(request: publishing_pb2.PublishRequest) -> Submission:
    """Raises UserError for a path that is missing or not absolute."""
    paths = {
        "verdict": request.verdict,
        "model": request.model,
        "data_manifest": request.data_manifest,
        "evaluation": request.evaluation,
        **{f"adapters.{suffix}": folder for suffix, folder in request.adapters.items()},
    }
    for field, path in paths.items():
        if not Path(path).is_absolute():
            raise UserError(f"{field}: {path!r} is no absolute path.")
    return Submission(
        verdict=Path(request.verdict),
        model=Path(request.model),
        adapters={suffix: Path(folder) for suffix, folder in sorted(request.adapters.items())},
        data_manifest=Path(request.data_manifest),
        evaluation=Path(request.evaluation),
    )


def to_message(deployment: Deployment) -> publishing_pb2.Deployment:
    return publishing_pb2.Deployment(
        repository=deployment.repository,
        revision=deployment.revision,
        model=str(deployment.model),
        gguf={quantisation: str(path) for quantisation, path in deployment.gguf.items()},
        default_quantisation=deployment.default_quantisation,
        verdict_id=deployment.verdict_id,
    )


def to_changes(changes: list[Change]) -> publishing_pb2.Changes:
    return publishing_pb2.Changes(
        repositories=[
            publishing_pb2.RepositoryChange(
                repository=change.repository,
                written=change.written,
                removed=change.removed,
                unchanged=change.unchanged,
            )
            for change in changes
        ]
    )


def to_revision(publication: Publication) -> publishing_pb2.Revision:
    return publishing_pb2.Revision(
        revision=publication.revision,
        parent=publication.parent or "",
        created=publication.created,
        verdict_id=publication.verdict_id,
        restores=publication.restores or "",
        reason=publication.reason or "",
        repositories=publication.repositories,
    )


def run(config: PublisherConfig) -> None:
    """Serves until SIGTERM or SIGINT. Raises UserError when the port or the registry is taken."""
    registry = open_registry(config)
    registry.recover()
    servicer = PublishingServicer(config, registry)
    serve(
        lambda server: publishing_pb2_grpc.add_PublishingServiceServicer_to_server(servicer, server),
        ["foundry.v1.PublishingService"],
        config.server,
    )
