"""The PublishingService: runs a publication beside the event loop and streams how far it is."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

from publisher.admission import Submission
from publisher.child import CalledOffError, StepError
from publisher.config import PublisherConfig
from publisher.publication import publish
from publisher.registry import Deployment, Registry, open_registry
from qmd_rpc.server import serve
from qmd_rpc.v1 import evaluation_pb2, publishing_pb2, publishing_pb2_grpc
from qmd_schema.errors import UserError

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
            logger.info("asked to publish %s", submission.model)
            work = loop.run_in_executor(None, publish, submission, self._config, self._registry, report, cancelled)
            work.add_done_callback(end)
            while (progress := await events.get()) is not None:
                yield publishing_pb2.PublishResponse(progress=progress)
            yield publishing_pb2.PublishResponse(deployment=to_message(await work))
        except UserError as error:
            logger.warning("refused: %s", error)
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except (StepError, OSError) as error:
            logger.error("failed: %s", error)
            await context.abort(grpc.StatusCode.INTERNAL, str(error))
        finally:
            cancelled.set()

    async def GetDeployed(  # noqa: N802
        self, _request: publishing_pb2.GetDeployedRequest, context: grpc.aio.ServicerContext
    ) -> publishing_pb2.GetDeployedResponse:
        try:
            deployed = self._registry.deployed()
        except UserError as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        if deployed is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "nothing is deployed yet")
        return publishing_pb2.GetDeployedResponse(deployment=to_message(deployed))


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
