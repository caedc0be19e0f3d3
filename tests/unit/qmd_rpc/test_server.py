import socket
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import ValidationError

from qmd_rpc.server import ServerConfig, serve
from qmd_schema.errors import UserError
from support.rewarding import running


def test_services_listen_on_loopback_unless_told_otherwise() -> None:
    assert ServerConfig(port=8010).host == "127.0.0.1"


def test_a_port_out_of_range_is_refused() -> None:
    with pytest.raises(ValidationError, match="65535"):
        ServerConfig(port=80_000)


def test_a_port_that_another_program_listens_on_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} on 127.0.0.1 is in use: stop the program"):
            serve(lambda _: None, [], ServerConfig(port=port))


def test_a_port_shared_by_so_reuseport_counts_as_in_use() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UserError, match="is in use"):
            serve(lambda _: None, [], ServerConfig(port=other.getsockname()[1]))


def test_an_address_of_another_machine_cannot_be_bound() -> None:
    with pytest.raises(UserError, match=r"port 8010 on 192\.0\.2\.1 cannot be bound: Cannot assign"):
        serve(lambda _: None, [], ServerConfig(host="192.0.2.1", port=8010, insecure=True))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_a_public_address_without_a_guard_is_refused(host: str) -> None:
    with pytest.raises(UserError, match=r"nothing guards it\. Set server\.tls or server\.tokens"):
        serve(lambda _: None, [], ServerConfig(host=host, port=0))


def test_a_token_file_without_tokens_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("# none yet\n")
    with pytest.raises(UserError, match="holds no token"):
        serve(lambda _: None, [], ServerConfig(host="0.0.0.0", port=0, tokens=path))


@pytest.mark.slow
@pytest.mark.parametrize(("milliseconds", "is_cut_off"), [(11_000, False), (1_000, True)])
def test_a_caller_is_cut_off_only_when_it_pings_more_often_than_it_may(
    tmp_path: Path, free_port: Callable[[], int], milliseconds: int, is_cut_off: bool
) -> None:
    options = [("grpc.keepalive_time_ms", milliseconds), ("grpc.http2.max_pings_without_data", 0)]
    with running(tmp_path, free_port()) as (service, _), grpc.insecure_channel(service.address, options) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=70)
        with pytest.raises(grpc.RpcError) as caught:
            list(watch)
    expected = grpc.StatusCode.UNAVAILABLE if is_cut_off else grpc.StatusCode.DEADLINE_EXCEEDED
    assert caught.value.code() is expected
