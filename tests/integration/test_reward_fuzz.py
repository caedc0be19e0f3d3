"""Anything at all is sent to the reward service; it answers, well-formed, and stays as it is."""

import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmd_reward.rubric import score
from qmd_rpc.reward import RewardClient
from qmd_rpc.scores import as_row
from qmd_rpc.v1 import reward_pb2
from support.rewarding import SLOW_PAIR, RewardProcess, running

Started = tuple[RewardProcess, RewardClient]
LOOSE = settings(deadline=None, suppress_health_check=list(HealthCheck))
METHODS = ("Score", "ScoreBatch", "ScoreRetrieval", "GetInfo", "ListCollections", "Nothing")
ANSWERS = {
    "Score": reward_pb2.ScoreResponse,
    "ScoreBatch": reward_pb2.ScoreBatchResponse,
    "GetInfo": reward_pb2.GetInfoResponse,
    "ListCollections": reward_pb2.ListCollectionsResponse,
}
MISTAKES = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED}

texts = st.text(max_size=200) | st.lists(
    st.sampled_from(["lex: ", "vec:", "hyde: ", "\n", "tea ", "AWS ", "<think>", "</think>", "/only:lex", "\0", "é"])
).map("".join)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Started]:
    with running(tmp_path_factory.mktemp("service"), free_port()) as service_and_client:
        yield service_and_client


def send(channel: grpc.Channel, method: str, data: bytes) -> None:
    try:
        answer = channel.unary_unary(f"/foundry.v1.RewardService/{method}")(data, timeout=60)
    except grpc.RpcError as error:
        if error.code() not in MISTAKES:
            raise AssertionError(f"{method} {data!r}: {error.code()} {error.details()}") from error
    else:
        ANSWERS[method].FromString(answer)


def fuzz(started: Started, examples: int) -> None:
    with grpc.insecure_channel(started[0].address) as channel:

        @settings(LOOSE, max_examples=examples // 2)
        @given(st.sampled_from(METHODS), st.binary(max_size=300))
        def any_bytes(method: str, data: bytes) -> None:
            send(channel, method, data)

        @settings(LOOSE, max_examples=examples // 4)
        @given(st.lists(st.tuples(texts, texts), max_size=6))
        def any_batch(pairs: list[tuple[str, str]]) -> None:
            requests = [reward_pb2.ScoreRequest(query=query, expansion=text) for query, text in pairs]
            send(channel, "ScoreBatch", reward_pb2.ScoreBatchRequest(requests=requests).SerializeToString())

        @settings(LOOSE, max_examples=examples // 4)
        @given(texts.filter(lambda text: text.strip("\0") == text != ""), texts)
        def any_text(query: str, expansion: str) -> None:
            query, expansion = query.replace("\0", ""), expansion.replace("\0", "")
            if query:
                assert as_row(started[1].score(query, expansion)) == score(query, expansion).as_row()

        any_bytes()
        any_batch()
        any_text()


def test_thousands_of_odd_requests_are_answered_well_formed(started: Started) -> None:
    fuzz(started, 3_000)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_a_hundred_thousand_odd_requests_leave_the_service_as_it_was(started: Started) -> None:
    fuzz(started, 10_000)
    process = psutil.Process(started[0].process.pid)

    def memory() -> int:
        return sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))

    before = memory()
    fuzz(started, 90_000)
    assert memory() - before < 32 * 2**20
    assert "Traceback" not in started[0].log.read_text()


def test_random_bytes_at_the_port_disturb_nobody(started: Started) -> None:
    chosen = random.Random(0)
    for number in range(300):
        with socket.create_connection(("127.0.0.1", started[0].port), timeout=5) as raw, suppress(OSError):
            preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" if number % 2 else b""
            raw.sendall(preface + chosen.randbytes(chosen.randrange(1, 2_000)))
    assert started[1].score("tea", "lex: tea").total == score("tea", "lex: tea").total


def test_texts_made_to_be_slow_do_not_hold_up_others(started: Started) -> None:
    service, client = started
    with grpc.insecure_channel(service.address) as channel:
        batch = reward_pb2.ScoreBatchRequest(
            requests=[reward_pb2.ScoreRequest(query=SLOW_PAIR[0], expansion=SLOW_PAIR[1])] * 200
        )
        call = channel.unary_unary("/foundry.v1.RewardService/ScoreBatch").future(batch.SerializeToString())
        waits = []
        while not call.done() and len(waits) < 2_000:
            start = time.monotonic()
            client.score("green tea", "lex: tea leaves\nvec: how to steep green tea\n")
            waits.append(time.monotonic() - start)
        call.result()
    waits.sort()
    assert len(waits) > 50 and waits[len(waits) * 95 // 100] < 0.05, waits[-5:]


def test_calls_that_never_send_their_request_do_not_fill_the_queue_for_good(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    with running(tmp_path, free_port(), {"server": {"max_in_flight": 4}}) as (service, client):
        with grpc.insecure_channel(service.address) as channel:
            silent = channel.stream_unary("/foundry.v1.RewardService/Score")
            held = [silent.future(iter(lambda: time.sleep(60) or b"", None), timeout=1) for _ in range(4)]  # type: ignore[func-returns-value]
            time.sleep(1.5)
            assert all(call.done() for call in held)
        assert client.score("tea", "lex: tea").total
