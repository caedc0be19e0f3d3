# ruff: noqa: N802  # methods are named as in the contract

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from qmd_rpc.channel import ServiceError
from qmd_rpc.reward import AsyncRewardClient, RewardClient
from qmd_rpc.v1 import reward_pb2, reward_pb2_grpc

Answer = Callable[[grpc.ServicerContext], None]


class ScriptedServicer(reward_pb2_grpc.RewardServiceServicer):
    """Answers the first calls as scripted and all further ones with a score."""

    def __init__(self, *script: Answer) -> None:
        self.script = list(script)
        self.calls = 0

    def Score(self, request: reward_pb2.ScoreRequest, context: grpc.ServicerContext) -> reward_pb2.ScoreResponse:
        self.calls += 1
        if self.script:
            self.script.pop(0)(context)
        return reward_pb2.ScoreResponse(score=reward_pb2.Score(total=len(request.expansion)))


@contextmanager
def serving(servicer: ScriptedServicer, port: int = 0) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    reward_pb2_grpc.add_RewardServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def unavailable(context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.UNAVAILABLE, "warming up")


def invalid(context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, "query: is empty")


def slow(_context: grpc.ServicerContext) -> None:
    time.sleep(1)


def test_a_call_that_finds_the_service_unavailable_is_tried_again() -> None:
    servicer = ScriptedServicer(unavailable, unavailable)
    with serving(servicer) as address, RewardClient(address) as client:
        assert client.score("tea", "lex: a").total == 6
    assert servicer.calls == 3


def test_retries_are_bounded_and_end_in_an_error_that_says_what_to_do() -> None:
    servicer = ScriptedServicer(*[unavailable] * 10)
    with serving(servicer) as address, RewardClient(address) as client, pytest.raises(ServiceError) as caught:
        client.score("tea", "lex: a")
    assert servicer.calls == 5 and caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert str(caught.value) == (
        f"reward service at {address}: not reachable (warming up). "
        "Start it with `foundry serve reward`, or correct the address."
    )


def test_a_mistake_of_the_caller_is_not_tried_again() -> None:
    servicer = ScriptedServicer(invalid)
    with serving(servicer) as address, RewardClient(address) as client, pytest.raises(ServiceError) as caught:
        client.score("", "lex: a")
    assert servicer.calls == 1
    assert str(caught.value) == f"reward service at {address}: INVALID_ARGUMENT: query: is empty."


def test_a_call_that_takes_too_long_ends_at_the_deadline() -> None:
    with serving(ScriptedServicer(slow)) as address, RewardClient(address, deadline=0.2) as client:
        with pytest.raises(ServiceError, match=r"no answer within 0\.2 s") as caught:
            client.score("tea", "lex: a")
        assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_client_waits_for_a_service_that_starts_later(free_port: Callable[[], int]) -> None:
    port = free_port()
    with RewardClient(f"127.0.0.1:{port}") as client:
        answers: list[int] = []
        caller = threading.Thread(target=lambda: answers.append(client.score("tea", "lex: a").total))
        caller.start()
        time.sleep(0.7)
        with serving(ScriptedServicer(), port):
            caller.join()
    assert answers == [6]


def test_waiting_for_a_service_that_never_comes_ends_with_an_error(free_port: Callable[[], int]) -> None:
    never = pytest.raises(ServiceError, match=r"did not become ready within 0\.3 s")
    with RewardClient(f"127.0.0.1:{free_port()}") as client, never:
        client.wait_ready(0.3)


def test_a_proxy_in_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serving(ScriptedServicer()) as address, RewardClient(address, deadline=5) as client:
        assert client.score("tea", "lex: a").total == 6


def test_a_call_that_is_slow_is_sent_once_unless_hedging_is_asked_for() -> None:
    servicer = ScriptedServicer(slow)
    with serving(servicer) as address, RewardClient(address) as client:
        assert client.score("tea", "lex: a").total == 6
    assert servicer.calls == 1


@contextmanager
def serving_with_a_stuck_first_call() -> Iterator[tuple[ScriptedServicer, str]]:
    release = threading.Event()

    def stuck(_context: grpc.ServicerContext) -> None:
        release.wait(60)

    servicer = ScriptedServicer(stuck)
    with serving(servicer) as address:
        try:
            yield servicer, address
        finally:
            release.set()


def test_a_hedged_call_is_answered_by_the_first_of_two() -> None:
    with serving_with_a_stuck_first_call() as (servicer, address), RewardClient(address, 10, hedge_after=0.1) as client:
        assert client.score("tea", "lex: a").total == 6
        assert servicer.calls == 2


def test_an_awaited_call_is_hedged_as_well() -> None:
    async def ask(address: str) -> int:
        async with AsyncRewardClient(address, 10, hedge_after=0.1) as client:
            return (await client.score("tea", "lex: a")).total

    with serving_with_a_stuck_first_call() as (servicer, address):
        assert asyncio.run(ask(address)) == 6
        assert servicer.calls == 2


def test_a_hedged_call_that_is_a_mistake_is_not_sent_again() -> None:
    servicer = ScriptedServicer(invalid)
    with (
        serving(servicer) as address,
        RewardClient(address, hedge_after=5) as client,
        pytest.raises(ServiceError, match="query: is empty"),
    ):
        client.score("", "lex: a")
    assert servicer.calls == 1
