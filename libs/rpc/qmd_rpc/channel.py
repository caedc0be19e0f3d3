"""The client's end of a gRPC service: deadline, bounded retries, and one error that says what to do."""

import asyncio
import json
import queue
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from qmd_rpc.security import Access

Response = TypeVar("Response")

# Up to five attempts over about 7.5 s, long enough for a service to be started again; gRPC adds ±20 % jitter.
# A stream is retried only until its first message arrived.
_RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.5s",
                "maxBackoff": "4s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
_OPTIONS = [
    ("grpc.service_config", json.dumps(_RETRIES)),
    # A longer request is not sent again; the largest that any service takes is to be.
    ("grpc.per_rpc_retry_buffer_size", 128 * 2**20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A server whose machine is gone is noticed after 80 s.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # The server decides how long a message may be; a proxy in the environment is not for services.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]


class ServiceError(Exception):
    """A call that failed. The message names service, address, problem and remedy.

    code: the gRPC status, None where the call was not gRPC.
    """

    def __init__(
        self, service: str, address: str, problem: str, remedy: str = "", code: grpc.StatusCode | None = None
    ) -> None:
        super().__init__(f"{service} service at {address}: {problem.rstrip('.')}. {remedy}".rstrip())
        self.service = service
        self.address = address
        self.code = code


def open_channel(
    address: str, credentials: grpc.ChannelCredentials | None, options: Sequence[tuple[str, Any]] = _OPTIONS
) -> grpc.Channel:
    """A channel in plain text where there are no credentials."""
    if credentials:
        return grpc.secure_channel(address, credentials, options=options)
    return grpc.insecure_channel(address, options=options)


class _Endpoint:
    """What the clients of a service have in common, whether they wait or await."""

    service: str
    """The name people use, such as "reward"."""
    full_name: str
    """The name on the wire, such as "foundry.v1.RewardService"."""

    def __init__(self, address: str, deadline: float, access: Access | None, hedge_after: float | None) -> None:
        self.address = address
        self.deadline = deadline
        self._hedge_after = hedge_after
        self._credentials = access.credentials() if access else None
        self._metadata = access.metadata() if access else ()

    @property
    def _start_hint(self) -> str:
        return f"Start it with `foundry serve {self.service}`, or correct the address."

    def _explain(self, error: grpc.RpcError) -> ServiceError:
        code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.UNAVAILABLE:
            problem, remedy = f"not reachable ({details.rsplit(': ', 1)[-1]})", self._start_hint
        elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
            problem, remedy = f"no answer within {self.deadline:g} s", "Read its log, or call with a longer deadline."
        else:
            problem, remedy = f"{code.name}: {details}", ""
        return ServiceError(self.service, self.address, problem, remedy, code)

    def _explain_waiting(self, error: grpc.RpcError, timeout: float) -> ServiceError:
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            return self._explain(error)
        problem = f"did not become ready within {timeout:g} s"
        return ServiceError(self.service, self.address, problem, self._start_hint, error.code())


class ServiceClient(_Endpoint):
    """A client of one gRPC service. Thread-safe; connects at the first call; close it, or use it in a `with` block."""

    def __init__(
        self, address: str, deadline: float, access: Access | None = None, hedge_after: float | None = None
    ) -> None:
        """address: "127.0.0.1:8010"; deadline: seconds a call may take, its retries included.

        hedge_after: seconds after which a call that is not answered is sent a second time, and the first answer is
        taken; only for services whose calls may run twice.
        """
        super().__init__(address, deadline, access, hedge_after)
        self._channel = open_channel(address, self._credentials)

    def _call(self, method: Callable[..., Response], request: Any) -> Response:
        try:
            if self._hedge_after is None:
                return method(request, timeout=self.deadline, metadata=self._metadata)
            return self._hedged(method, request, self._hedge_after)
        except grpc.RpcError as error:
            raise self._explain(error) from error

    def _hedged(self, method: Any, request: Any, after: float) -> Any:
        ended: queue.SimpleQueue[grpc.Future] = queue.SimpleQueue()
        calls = []
        try:
            for patience in (after, None):
                calls.append(method.future(request, timeout=self.deadline, metadata=self._metadata))
                calls[-1].add_done_callback(ended.put)
                try:
                    return ended.get(timeout=patience).result()
                except queue.Empty:
                    continue
                except grpc.RpcError:
                    if len(calls) == 1:
                        raise
            return ended.get().result()
        finally:
            for call in calls:
                call.cancel()

    def _stream(self, method: Callable[..., Iterator[Response]], request: Any) -> Iterator[Response]:
        try:
            yield from method(request, timeout=self.deadline, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._explain(error) from error

    def wait_ready(self, timeout: float) -> None:
        """Returns when the service's health check answers SERVING. Raises ServiceError after `timeout` seconds."""
        request = health_pb2.HealthCheckRequest(service=self.full_name)
        statuses = health_pb2_grpc.HealthStub(self._channel).Watch(request, timeout=timeout, wait_for_ready=True)
        try:
            for response in statuses:
                if response.status == health_pb2.HealthCheckResponse.SERVING:
                    return
        except grpc.RpcError as error:
            raise self._explain_waiting(error, timeout) from error
        finally:
            statuses.cancel()

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncServiceClient(_Endpoint):
    """A client of one gRPC service to be awaited; made and used in one running event loop, best by `async with`."""

    def __init__(
        self, address: str, deadline: float, access: Access | None = None, hedge_after: float | None = None
    ) -> None:
        """As for ServiceClient."""
        super().__init__(address, deadline, access, hedge_after)
        if self._credentials:
            self._channel = grpc.aio.secure_channel(address, self._credentials, options=_OPTIONS)
        else:
            self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)

    async def _call(self, method: Any, request: Any) -> Any:
        try:
            if self._hedge_after is None:
                return await method(request, timeout=self.deadline, metadata=self._metadata)
            return await self._hedged(method, request, self._hedge_after)
        except grpc.aio.AioRpcError as error:
            raise self._explain(error) from error

    async def _hedged(self, method: Any, request: Any, after: float) -> Any:
        async def call() -> Any:
            return await method(request, timeout=self.deadline, metadata=self._metadata)

        calls = {asyncio.create_task(call())}
        try:
            ended, _ = await asyncio.wait(calls, timeout=after)
            if not ended:
                calls.add(asyncio.create_task(call()))
                ended, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
                if waiting and all(task.exception() for task in ended):
                    ended, _ = await asyncio.wait(waiting)
            return next(iter(ended)).result()
        finally:
            for task in calls:
                task.cancel()

    async def wait_ready(self, timeout: float) -> None:
        """As for ServiceClient."""
        request = health_pb2.HealthCheckRequest(service=self.full_name)
        statuses = health_pb2_grpc.HealthStub(self._channel).Watch(request, timeout=timeout, wait_for_ready=True)
        try:
            async for response in statuses:
                if response.status == health_pb2.HealthCheckResponse.SERVING:
                    return
        except grpc.aio.AioRpcError as error:
            raise self._explain_waiting(error, timeout) from error
        finally:
            statuses.cancel()

    async def close(self) -> None:
        await self._channel.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
