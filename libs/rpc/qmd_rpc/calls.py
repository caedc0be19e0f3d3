"""What happens to every call before and after its handler: admission, reading, ids, metrics, logs, errors."""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from contextvars import ContextVar
from typing import Any

import grpc
from google.protobuf.message import Message

from qmd_rpc.decoding import RequestError, decode
from qmd_rpc.logs import request_id
from qmd_rpc.metrics import ServerMetrics
from qmd_rpc.security import TokenCheck

logger = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"
"""The metadata key of a call's id: the caller's where it sends one, else made here; comes back when the call ends."""

_HEALTH = "/grpc.health."
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_REQUEST_SECONDS = 30.0
"""Time that a call with one request has to send it."""
_LONGEST_HELD = 4
"""Calls that may run or wait at a time when the requests of all are the longest allowed; of shorter ones, more may."""

_observe_batch: ContextVar[Callable[[float], None]] = ContextVar("observe_batch")

# The type stubs know handlers of the synchronous API alone.
Handler = Any
Context = Any


def report_batch(size: int) -> None:
    """Called by a handler: it handles `size` items in one go."""
    _observe_batch.get()(size)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every call but health checks, which are always answered."""

    def __init__(
        self, metrics: ServerMetrics, most_in_flight: int, max_message_bytes: int, tokens: TokenCheck | None
    ) -> None:
        """most_in_flight: calls that may run or wait at the same time; further ones are turned away.

        max_message_bytes: of one request; `_LONGEST_HELD` times as much may run or wait, streams left out.
        """
        self._metrics = metrics
        self._most_in_flight = most_in_flight
        self._most_bytes = _LONGEST_HELD * max_message_bytes
        self._tokens = tokens
        self._in_flight = 0
        self._bytes = 0
        self.is_ready = False
        self.idle = asyncio.Event()
        self.idle.set()

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(details)
        if handler is None or details.method.startswith(_HEALTH):
            return handler
        if self._tokens and not self._tokens.allows(details.invocation_metadata):
            return self._rejection("unauthenticated", grpc.StatusCode.UNAUTHENTICATED, "wants a valid bearer token")
        if not self.is_ready:
            return self._rejection("not_ready", grpc.StatusCode.UNAVAILABLE, "is starting, and not ready yet")
        if self._in_flight >= self._most_in_flight:
            problem = f"{self._in_flight} calls are waiting already; try again later"
            return self._rejection("queue_full", grpc.StatusCode.RESOURCE_EXHAUSTED, problem)
        return self._observed(handler, details.method)

    def _rejection(self, reason: str, code: grpc.StatusCode, problem: str) -> Handler:
        self._metrics.rejections.labels(reason).inc()

        async def reject(_requests: AsyncIterator[bytes], context: Context) -> None:
            await context.abort(code, problem)

        # Its request counts as a stream, so that it is not waited for.
        return grpc.stream_unary_rpc_method_handler(reject)

    def _observed(self, handler: Handler, method: str) -> Handler:
        # All requests count as streams: so a call is counted from its beginning, and is read here.
        async def respond(requests: AsyncIterator[bytes], context: Context) -> Any:
            answer = handler.stream_unary if handler.request_streaming else handler.unary_unary
            async with self._call(method, context), self._request(requests, handler, context) as request:
                return await answer(request, context)

        async def respond_with_stream(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
            answer = handler.stream_stream if handler.request_streaming else handler.unary_stream
            async with (
                self._call(method, context),
                self._request(requests, handler, context) as request,
                aclosing(answer(request, context)) as responses,
            ):
                async for response in responses:
                    yield response

        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                respond_with_stream, response_serializer=handler.response_serializer
            )
        return grpc.stream_unary_rpc_method_handler(respond, response_serializer=handler.response_serializer)

    @asynccontextmanager
    async def _call(self, method: str, context: Context) -> AsyncIterator[None]:
        name = method.rpartition("/")[2]
        started = time.monotonic()
        call_id = _id_of(context)
        peer = context.peer()  # when the call has ended, gRPC crashes over this
        request_id.set(call_id)
        _observe_batch.set(self._metrics.batch_size.labels(name).observe)
        context.set_trailing_metadata(((REQUEST_ID, call_id),))
        self._count(1)
        code = "OK"
        try:
            yield
        except RequestError as error:
            code = "INVALID_ARGUMENT"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except grpc.aio.AbortError:
            code = context.code().name
            raise
        except (asyncio.CancelledError, GeneratorExit):
            code = "CANCELLED"
            raise
        except Exception:
            code = "INTERNAL"
            logger.exception("%s failed", name)
            await context.abort(grpc.StatusCode.INTERNAL, f"failed; the log says why, at request {call_id}")
        finally:
            seconds = time.monotonic() - started
            self._count(-1)
            self._metrics.requests.labels(name, code).inc()
            self._metrics.seconds.labels(name).observe(seconds)
            fields = {"method": name, "code": code, "seconds": round(seconds, 6), "peer": peer}
            if code not in ("OK", "CANCELLED"):
                fields["details"] = context.details()
            logger.info("call", extra={"fields": fields})

    @asynccontextmanager
    async def _request(self, requests: AsyncIterator[bytes], handler: Handler, context: Context) -> AsyncIterator[Any]:
        """What the handler is given: an iterator of requests, or the one, which counts while the call runs."""
        if handler.request_streaming:
            yield _read_all(requests, handler)
            return
        data = await _read_one(requests)
        size = len(data)
        if self._bytes + size > self._most_bytes:
            self._metrics.rejections.labels("memory_full").inc()
            problem = f"requests of {self._bytes:,} bytes are waiting already; try again later"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, problem)
        request = _decode(data, handler)
        del data  # it is as large as the request, and the call may run long
        self._bytes += size
        try:
            yield request
        finally:
            self._bytes -= size

    def _count(self, change: int) -> None:
        self._in_flight += change
        self._metrics.in_flight.set(self._in_flight)
        if self._in_flight:
            self.idle.clear()
        else:
            self.idle.set()


async def _read_one(requests: AsyncIterator[bytes]) -> bytes:
    try:
        async with asyncio.timeout(_REQUEST_SECONDS):
            return await anext(requests)
    except (TimeoutError, StopAsyncIteration):
        raise RequestError(f"message: did not come within {_REQUEST_SECONDS:g} s") from None


async def _read_all(requests: AsyncIterator[bytes], handler: Handler) -> AsyncIterator[Any]:
    index = 0
    async for data in requests:
        try:
            request = _decode(data, handler)
        except RequestError as error:
            raise RequestError(f"requests[{index}].{error}") from None
        yield request
        index += 1


def _decode(data: bytes, handler: Handler) -> Any:
    message_type = getattr(handler.request_deserializer, "__self__", None)
    if isinstance(message_type, type) and issubclass(message_type, Message):
        return decode(message_type, data)
    return handler.request_deserializer(data) if handler.request_deserializer else data


def _id_of(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID and _ID.fullmatch(str(value)):
            return str(value)
    return secrets.token_hex(8)
