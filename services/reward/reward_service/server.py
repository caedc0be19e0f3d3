"""The RewardService: checks requests, has them scored beside the event loop, answers."""
# ruff: noqa: N802  # methods are named as in the contract

import asyncio
import importlib
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from importlib import metadata
from types import ModuleType

import grpc

from qmd_reward.rubric import RUBRIC_VERSION
from qmd_rpc.calls import report_batch
from qmd_rpc.decoding import RequestError
from qmd_rpc.server import serve
from qmd_rpc.v1 import reward_pb2
from qmd_schema.contract import QMD_CONTRACT
from qmd_schema.errors import UserError
from reward_service.config import RewardServiceConfig
from reward_service.limits import check_request, check_retrieval
from reward_service.retrieval_queue import Answer, Job, NotJudgedError, RetrievalQueue
from reward_service.scoring import score_chunk, score_request
from reward_service.streams import taken_together
from reward_service.wire import CHUNK_BYTES, CHUNK_REQUESTS, Chunk, reader, split_batch
from reward_service.workers import Workers, end_processes

SERVICE = "foundry.v1.RewardService"

_SHORT_EXPANSION = 2_048
"""Characters of an expansion that is scored in a thread of this process: in half a millisecond, or 2 at worst, which is
less than handing it to a worker takes."""

Context = grpc.aio.ServicerContext


class RewardServicer:
    """The handlers of the contract, and the processes that do their work; each server has its own."""

    def __init__(self, config: RewardServiceConfig) -> None:
        self._config = config
        # One thread: scoring holds the GIL, so a second would only take turns with the first and the event loop.
        self._thread = Workers("scoring", 0)
        self._workers = Workers("batch", config.workers)
        self._lanes = max(1, config.workers) + 1
        """Chunks handed over at a time: one for each worker, and one that waits for the first to be done."""
        self._turns = asyncio.Semaphore(self._lanes)
        self._searching = Workers("retrieval", 1)
        self._retrieval = RetrievalQueue(self._search)
        self._collections = reward_pb2.ListCollectionsResponse()

    @asynccontextmanager
    async def ready(self) -> AsyncIterator[None]:
        """Starts the workers and loads the collections; ends the workers at last."""
        try:
            await self._workers.warm_up()
            if self._config.collections:
                describe = _search_half().describe
                described = await self._searching.run(describe, self._config.collections, self._config.cache)
                self._collections = reward_pb2.ListCollectionsResponse.FromString(described)
            yield
        finally:
            for workers in (self._thread, self._workers, self._searching):
                workers.close()
            end_processes()

    def register(self, server: grpc.aio.Server) -> None:
        """As the generated stubs do, but for requests that may be long, which are read elsewhere or not at all."""
        handlers = {
            "Score": grpc.unary_unary_rpc_method_handler(
                self.Score, reader(reward_pb2.ScoreRequest), reward_pb2.ScoreResponse.SerializeToString
            ),
            "ScoreBatch": grpc.unary_unary_rpc_method_handler(self.ScoreBatch, split_batch),
            "ScoreStream": grpc.stream_stream_rpc_method_handler(
                self.ScoreStream,
                reader(reward_pb2.ScoreStreamRequest),
                reward_pb2.ScoreStreamResponse.SerializeToString,
            ),
            "ScoreRetrieval": grpc.unary_unary_rpc_method_handler(
                self.ScoreRetrieval, reader(reward_pb2.ScoreRetrievalRequest)
            ),
            "ListCollections": grpc.unary_unary_rpc_method_handler(
                self.ListCollections,
                reward_pb2.ListCollectionsRequest.FromString,
                reward_pb2.ListCollectionsResponse.SerializeToString,
            ),
            "GetInfo": grpc.unary_unary_rpc_method_handler(
                self.GetInfo, reward_pb2.GetInfoRequest.FromString, reward_pb2.GetInfoResponse.SerializeToString
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def Score(self, request: reward_pb2.ScoreRequest, _context: Context) -> reward_pb2.ScoreResponse:
        check_request(request)
        if len(request.expansion) <= _SHORT_EXPANSION:
            return await self._thread.run(score_request, request)
        batch = reward_pb2.ScoreBatchRequest(requests=[request]).SerializeToString()
        return reward_pb2.ScoreResponse.FromString(await self._score(Chunk(0, 1, batch)))

    async def ScoreBatch(self, chunks: Sequence[Chunk], _context: Context) -> bytes:
        report_batch(sum(chunk.requests for chunk in chunks))
        return b"".join([answer async for answer in self._score_all(chunks)])

    async def ScoreStream(
        self, requests: AsyncIterator[reward_pb2.ScoreStreamRequest], _context: Context
    ) -> AsyncIterator[reward_pb2.ScoreStreamResponse]:
        first = 0
        async for together in taken_together(requests, CHUNK_REQUESTS, CHUNK_BYTES):
            report_batch(len(together))
            good, problem = _until_problem(together, first)
            batch = reward_pb2.ScoreBatchRequest(requests=good)
            answer = await self._score(Chunk(first, len(good), batch.SerializeToString()))
            for score in reward_pb2.ScoreBatchResponse.FromString(answer).scores:
                yield reward_pb2.ScoreStreamResponse(score=score)
            if problem:
                raise problem
            first += len(together)

    async def ScoreRetrieval(self, request: reward_pb2.ScoreRetrievalRequest, context: Context) -> bytes:
        check_retrieval(request)
        if not self._config.collections:
            problem = "collection: this server has none; name some in its config under `collections`"
            await context.abort(grpc.StatusCode.NOT_FOUND, problem)
        answer = await self._retrieval.score(Job(request.query, request.expansion, request.collection))
        if isinstance(answer, NotJudgedError):
            await context.abort(grpc.StatusCode.NOT_FOUND, str(answer))
        return answer

    async def ListCollections(
        self, _request: reward_pb2.ListCollectionsRequest, _context: Context
    ) -> reward_pb2.ListCollectionsResponse:
        return self._collections

    async def GetInfo(self, _request: reward_pb2.GetInfoRequest, _context: Context) -> reward_pb2.GetInfoResponse:
        build = metadata.version("qmd-reward-service")
        return reward_pb2.GetInfoResponse(rubric_version=RUBRIC_VERSION, qmd_contract=QMD_CONTRACT, build=build)

    async def _score_all(self, chunks: Iterable[Chunk]) -> AsyncIterator[bytes]:
        """The answers of the chunks, in order; the error of the first chunk that is not right."""
        running: deque[asyncio.Task[bytes]] = deque()
        try:
            for chunk in chunks:
                if len(running) == self._lanes:
                    yield await running.popleft()
                running.append(asyncio.create_task(self._score(chunk)))
            while running:
                yield await running.popleft()
        finally:
            for task in running:
                task.cancel()

    async def _score(self, chunk: Chunk) -> bytes:
        """A serialized ScoreBatchResponse. Chunks of all calls take turns."""
        async with self._turns:
            return await self._workers.run(score_chunk, chunk.data, chunk.first)

    async def _search(self, jobs: Sequence[Job]) -> Sequence[Answer]:
        score_jobs = _search_half().score_jobs
        return await self._searching.run(score_jobs, self._config.collections, self._config.cache, jobs)


def _search_half() -> ModuleType:
    """What only a service with collections needs. Raises UserError where a package for it is missing."""
    try:
        return importlib.import_module("reward_service.retrieval")
    except ModuleNotFoundError as error:
        remedy = "install qmd-reward-service[retrieval], or name no collections"
        raise UserError(f"collections: searching them needs the package {error.name}; {remedy}.") from error


def _until_problem(
    together: Sequence[reward_pb2.ScoreStreamRequest], first: int
) -> tuple[list[reward_pb2.ScoreRequest], RequestError | None]:
    """The requests before the first that breaks a limit, and what it breaks. first: its index."""
    good: list[reward_pb2.ScoreRequest] = []
    for index, request in enumerate(together, start=first):
        try:
            check_request(request.request, f"requests[{index}].request.")
        except RequestError as error:
            return good, error
        good.append(request.request)
    return good, None


def run(config: RewardServiceConfig) -> None:
    """Serves until SIGTERM or SIGINT. Raises UserError for a port that is taken or a collection that cannot be read."""
    servicer = RewardServicer(config)
    serve(servicer.register, [SERVICE], config.server, servicer.ready())
