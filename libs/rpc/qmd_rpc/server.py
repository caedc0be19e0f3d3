"""The shell every gRPC service runs in: health, reflection, limits, metrics, TLS and tokens, a clean end."""

import asyncio
import errno
import gc
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from pydantic import Field

from qmd_rpc.calls import CallInterceptor
from qmd_rpc.metrics import ServerMetrics
from qmd_rpc.security import TlsConfig, TokenCheck, is_loopback, read_tokens, server_credentials
from qmd_schema.config import StrictModel
from qmd_schema.errors import UserError

logger = logging.getLogger(__name__)

_FLUSH_SECONDS = 0.5
"""What is left, once no call runs any more, for the last answers to go out and for watchers of health to be ended."""


class ServerConfig(StrictModel):
    """Where a service listens, its limits, and who may call it."""

    host: str = Field(
        "127.0.0.1", description="Address to bind to. Loopback by default; any other wants `tls`, `tokens` or both."
    )
    port: int = Field(ge=0, le=65535, description="TCP port; 0 takes a free one, which the log names.")
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="TCP port on loopback where Prometheus finds /metrics; none by default."
    )
    tls: TlsConfig | None = Field(None, description="Certificate files; without them calls come in plain text.")
    tokens: Path | None = Field(
        None,
        description="File with bearer tokens, one a line. A caller needs one of them; several are for changing them: "
        "add the new one, restart, switch the callers, then take the old one out.",
    )
    insecure: bool = Field(False, description="Allows a public address without `tls` and `tokens`; so does --insecure.")
    max_message_bytes: int = Field(
        16 * 2**20,
        ge=1024,
        description="Longest request accepted, in bytes, so that one call cannot fill the memory. Running and waiting "
        "calls together hold four times as much; further ones end with RESOURCE_EXHAUSTED.",
    )
    max_in_flight: int = Field(
        256, ge=1, description="Calls that may run or wait at a time; further ones end with RESOURCE_EXHAUSTED."
    )
    drain_seconds: float = Field(
        10.0, ge=0, description="Seconds that running calls get to finish after SIGTERM or SIGINT; then they are ended."
    )


def serve(
    register: Callable[[grpc.aio.Server], None],
    service_names: Sequence[str],
    config: ServerConfig,
    lifespan: AbstractAsyncContextManager[object] | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, then lets running calls finish.

    register: adds the servicers (grpc.aio, streamed answers as async generators) to the server.
    service_names: full names, such as "foundry.v1.RewardService", for health and reflection.
    lifespan: is entered before health answers SERVING, to load what the service needs, and left at the end; until it
    is entered, calls are answered UNAVAILABLE.
    Raises UserError when the address cannot be bound or is not guarded, and what `lifespan` raises.
    """
    asyncio.run(_serve(register, service_names, config, lifespan or nullcontext()))


async def _serve(
    register: Callable[[grpc.aio.Server], None],
    service_names: Sequence[str],
    config: ServerConfig,
    lifespan: AbstractAsyncContextManager[object],
) -> None:
    _check_guarded(config)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    metrics = ServerMetrics()
    tokens = TokenCheck(read_tokens(config.tokens)) if config.tokens else None
    calls = CallInterceptor(metrics, config.max_in_flight, config.max_message_bytes, tokens)
    server = grpc.aio.server(interceptors=[calls], options=_options(config))
    port = _bind(server, config)
    register(server)
    health_servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # the type stubs lack it
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    reflection.enable_server_reflection([*service_names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    names = ("", *service_names)
    for name in names:
        await health_servicer.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
    async with AsyncExitStack() as stack:
        if config.metrics_port is not None:
            endpoint, _ = metrics.serve(config.metrics_port)
            stack.callback(endpoint.shutdown)
        await server.start()
        stack.push_async_callback(server.stop, None)
        logger.info("%s listening on %s:%d", ", ".join(service_names), config.host, port)
        stopping = asyncio.create_task(stop.wait())
        loading = asyncio.create_task(stack.enter_async_context(lifespan))
        await asyncio.wait([stopping, loading], return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
            _freeze_heap()
            calls.is_ready = True
            for name in names:
                await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
            logger.info("ready")
            await stopping
        loading.cancel()
        logger.info("stopping; running calls get %g s to finish", config.drain_seconds)
        await health_servicer.enter_graceful_shutdown()
        await _drain(server, calls, config.drain_seconds)
    logger.info("stopped")


def _freeze_heap() -> None:
    """Spares the garbage collector what was loaded: going through it would hold calls up, by as much as .3 s."""
    gc.collect()
    gc.freeze()


async def _drain(server: grpc.aio.Server, calls: CallInterceptor, seconds: float) -> None:
    """Refuses new calls and returns when all others have ended, or have been ended after `seconds`."""
    ended = asyncio.create_task(server.stop(seconds))
    idle = asyncio.create_task(calls.idle.wait())
    await asyncio.wait([ended, idle], return_when=asyncio.FIRST_COMPLETED)
    idle.cancel()
    await server.stop(min(seconds, _FLUSH_SECONDS))
    await ended


def _options(config: ServerConfig) -> list[tuple[str, int]]:
    return [
        # With SO_REUSEPORT, two servers would share one port and split the calls between them unnoticed.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", 16 * 1024),
        ("grpc.max_concurrent_streams", 2 * config.max_in_flight),
        # A caller whose machine is gone is noticed after 80 s; one that pings more than every 10 s is cut off.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 2),
    ]


def _check_guarded(config: ServerConfig) -> None:
    if is_loopback(config.host) or config.tls or config.tokens or config.insecure:
        return
    raise UserError(
        f"server.host: {config.host} can be reached from other machines, and nothing guards it. Set server.tls or "
        "server.tokens, listen on 127.0.0.1, or start with --insecure."
    )


def _bind(server: grpc.aio.Server, config: ServerConfig) -> int:
    """Binds through a plain socket first, which tells why it cannot; gRPC does not."""
    where = f"port {config.port} on {config.host}"
    is_ipv6 = ":" in config.host
    with socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                remedy = "stop the program that listens there, or choose another port with --port"
                raise UserError(f"{where} is in use: {remedy}.") from error
            remedy = "choose an address of this machine and a port you may use"
            raise UserError(f"{where} cannot be bound: {error.strerror}; {remedy}.") from error
    address = f"[{config.host}]:{config.port}" if is_ipv6 else f"{config.host}:{config.port}"
    if config.tls:
        return server.add_secure_port(address, server_credentials(config.tls))
    return server.add_insecure_port(address)
