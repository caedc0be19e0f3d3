"""The clients of the reward service: one that waits for an answer, one to be awaited."""

import asyncio
import random
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

import grpc

from qmd_rpc.channel import AsyncServiceClient, ServiceClient
from qmd_rpc.security import Access
from qmd_rpc.v1 import reward_pb2, reward_pb2_grpc

SERVICE = "reward"
FULL_NAME = "foundry.v1.RewardService"

Pair = tuple[str, str]
"""A query and an expansion."""

_STREAM_ATTEMPTS = 5
"""Times that a stream is begun without an answer between; then the service counts as gone."""


class RewardClient(ServiceClient):
    """Scores expansions. Calls raise ServiceError."""

    service = SERVICE
    full_name = FULL_NAME

    def __init__(
        self, address: str, deadline: float = 30.0, access: Access | None = None, hedge_after: float | None = None
    ) -> None:
        """As for ServiceClient. Every call may run twice, so hedging does no harm but for the load."""
        super().__init__(address, deadline, access, hedge_after)
        self._stub = reward_pb2_grpc.RewardServiceStub(self._channel)

    def score(self, query: str, expansion: str) -> reward_pb2.Score:
        return self._call(self._stub.Score, _request(query, expansion)).score

    def score_batch(self, pairs: Sequence[Pair]) -> list[reward_pb2.Score]:
        """The scores of at most 4,096 pairs, in their order."""
        return list(self._call(self._stub.ScoreBatch, _batch(pairs)).scores)

    def score_stream(self, pairs: Iterable[Pair]) -> Iterator[reward_pb2.Score]:
        """The scores of any number of pairs, in their order, while they come.

        Pairs are taken as fast as the service scores them, from a thread of its own. A broken connection is taken up
        again with the first pair without an answer. The stream as a whole has no deadline.
        """
        feed = _Feed(pairs)
        failures = 0
        while True:
            call = self._stub.ScoreStream(feed.requests(), metadata=self._metadata)
            try:
                for response in call:
                    feed.answered()
                    failures = 0
                    yield response.score
                return
            except grpc.RpcError as error:
                if feed.failure:
                    raise feed.failure from None
                failures += 1
                if not _may_go_on(error, failures):
                    raise self._explain(error) from error
                time.sleep(_backoff(failures))
            finally:
                call.cancel()

    def score_retrieval(self, query: str, expansion: str, collection: str) -> reward_pb2.RetrievalScore:
        """What an expansion adds to the search of a judged query of a collection."""
        return self._call(self._stub.ScoreRetrieval, _retrieval(query, expansion, collection)).score

    def score_retrievals(
        self, pairs: Sequence[Pair], collection: str, in_flight: int = 32
    ) -> list[reward_pb2.RetrievalScore]:
        """As `score_retrieval`, for many pairs; much faster, since the service embeds the texts of several together.

        in_flight: calls that run at the same time.
        """
        calls: deque[grpc.Future] = deque()
        scores = []
        try:
            for query, expansion in pairs:
                if len(calls) == in_flight:
                    scores.append(calls.popleft().result().score)
                request = _retrieval(query, expansion, collection)
                calls.append(self._stub.ScoreRetrieval.future(request, timeout=self.deadline, metadata=self._metadata))
            while calls:
                scores.append(calls.popleft().result().score)
        except grpc.RpcError as error:
            raise self._explain(error) from error
        finally:
            for call in calls:
                call.cancel()
        return scores

    def collections(self) -> list[reward_pb2.Collection]:
        """The judged collections that the service searches."""
        return list(self._call(self._stub.ListCollections, reward_pb2.ListCollectionsRequest()).collections)

    def info(self) -> reward_pb2.GetInfoResponse:
        """What the server scores with."""
        return self._call(self._stub.GetInfo, reward_pb2.GetInfoRequest())


class AsyncRewardClient(AsyncServiceClient):
    """As RewardClient, to be awaited."""

    service = SERVICE
    full_name = FULL_NAME

    def __init__(
        self, address: str, deadline: float = 30.0, access: Access | None = None, hedge_after: float | None = None
    ) -> None:
        """As for RewardClient."""
        super().__init__(address, deadline, access, hedge_after)
        self._stub = reward_pb2_grpc.RewardServiceStub(self._channel)

    async def score(self, query: str, expansion: str) -> reward_pb2.Score:
        response: reward_pb2.ScoreResponse = await self._call(self._stub.Score, _request(query, expansion))
        return response.score

    async def score_batch(self, pairs: Sequence[Pair]) -> list[reward_pb2.Score]:
        response: reward_pb2.ScoreBatchResponse = await self._call(self._stub.ScoreBatch, _batch(pairs))
        return list(response.scores)

    async def score_stream(self, pairs: Iterable[Pair]) -> AsyncIterator[reward_pb2.Score]:
        """As for RewardClient; the pairs are taken in the event loop, so taking one must not wait."""
        feed = _Feed(pairs)
        failures = 0
        while True:
            call = self._stub.ScoreStream(feed.requests(), metadata=self._metadata)
            try:
                async for response in call:
                    feed.answered()
                    failures = 0
                    yield response.score
                return
            except grpc.aio.AioRpcError as error:
                if feed.failure:
                    raise feed.failure from None
                failures += 1
                if not _may_go_on(error, failures):
                    raise self._explain(error) from error
                await asyncio.sleep(_backoff(failures))
            finally:
                call.cancel()

    async def score_retrieval(self, query: str, expansion: str, collection: str) -> reward_pb2.RetrievalScore:
        response: reward_pb2.ScoreRetrievalResponse = await self._call(
            self._stub.ScoreRetrieval, _retrieval(query, expansion, collection)
        )
        return response.score

    async def collections(self) -> list[reward_pb2.Collection]:
        response: reward_pb2.ListCollectionsResponse = await self._call(
            self._stub.ListCollections, reward_pb2.ListCollectionsRequest()
        )
        return list(response.collections)

    async def info(self) -> reward_pb2.GetInfoResponse:
        response: reward_pb2.GetInfoResponse = await self._call(self._stub.GetInfo, reward_pb2.GetInfoRequest())
        return response


class _Feed:
    """The pairs of a stream, of which those without an answer are kept, so that a new stream can go on with them."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self._source = iter(pairs)
        self._unanswered: deque[Pair] = deque()
        self._answers = 0
        self.failure: Exception | None = None
        """What the source of the pairs raised."""
        # gRPC takes requests from a thread of its own, and may still take one for a stream that has just broken.
        self._lock = threading.Lock()

    def requests(self) -> Iterator[reward_pb2.ScoreStreamRequest]:
        with self._lock:
            position = self._answers
        while True:
            with self._lock:
                ahead = position - self._answers
                if ahead < 0:
                    return
                if ahead == len(self._unanswered) and not self._take():
                    return
                pair = self._unanswered[ahead]
            yield reward_pb2.ScoreStreamRequest(request=_request(*pair))
            position += 1

    def _take(self) -> bool:
        try:
            pair = next(self._source, None)
        except Exception as error:
            self.failure = error
            raise
        if pair is not None:
            self._unanswered.append(pair)
        return pair is not None

    def answered(self) -> None:
        with self._lock:
            self._unanswered.popleft()
            self._answers += 1


def _may_go_on(error: grpc.RpcError, failures: int) -> bool:
    return error.code() is grpc.StatusCode.UNAVAILABLE and failures < _STREAM_ATTEMPTS


def _backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row: 0.5, 1, 2, 4, ±20 %."""
    return min(4.0, 0.5 * 2 ** (failures - 1)) * random.uniform(0.8, 1.2)


def _request(query: str, expansion: str) -> reward_pb2.ScoreRequest:
    return reward_pb2.ScoreRequest(query=query, expansion=expansion)


def _batch(pairs: Sequence[Pair]) -> reward_pb2.ScoreBatchRequest:
    return reward_pb2.ScoreBatchRequest(requests=[_request(*pair) for pair in pairs])


def _retrieval(query: str, expansion: str, collection: str) -> reward_pb2.ScoreRetrievalRequest:
    return reward_pb2.ScoreRetrievalRequest(query=query, expansion=expansion, collection=collection)
