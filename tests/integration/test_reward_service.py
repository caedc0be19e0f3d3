import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from qmd_reward.cases import CASES
from qmd_reward.rubric import score
from qmd_rpc.channel import ServiceError
from qmd_rpc.reward import AsyncRewardClient, Pair, RewardClient
from qmd_rpc.scores import as_row
from qmd_rpc.v1 import reward_pb2, reward_pb2_grpc
from support.processes import all_ended, descendants, is_alive, wait_until
from support.rewarding import SLOW_PAIR, RewardProcess, running

SLOW_BATCH = [SLOW_PAIR] * 96
CASE_PAIRS = [(case.query, case.expansion) for case in CASES]
FreePort = Callable[[], int]


@pytest.fixture
def service_and_client(tmp_path: Path, free_port: FreePort) -> Iterator[tuple[RewardProcess, RewardClient]]:
    with running(tmp_path, free_port()) as started:
        yield started


@pytest.fixture
def service(service_and_client: tuple[RewardProcess, RewardClient]) -> RewardProcess:
    return service_and_client[0]


@pytest.fixture
def client(service_and_client: tuple[RewardProcess, RewardClient]) -> RewardClient:
    return service_and_client[1]


def in_process(pairs: list[Pair]) -> list[dict[str, object]]:
    return [score(*pair).as_row() for pair in pairs]


def published(shared: Path) -> list[Pair]:
    rows = map(json.loads, (shared / "data/rubric/vectors.jsonl").read_text().splitlines())
    return [(row["query"], row["expansion"]) for row in rows]


def refusal(call: Callable[[], object]) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        call()
    return caught.value


def test_a_score_over_the_wire_is_the_score_in_process(client: RewardClient) -> None:
    assert [as_row(client.score(*pair)) for pair in CASE_PAIRS] == in_process(CASE_PAIRS)


def test_every_published_case_is_scored_the_same_in_process_in_a_batch_and_in_a_stream(
    client: RewardClient, shared: Path
) -> None:
    pairs = published(shared)
    expected = in_process(pairs)
    assert list(map(as_row, client.score_batch(pairs))) == expected
    assert list(map(as_row, client.score_stream(pairs))) == expected


def test_the_awaited_client_gives_the_same_answers(service: RewardProcess, client: RewardClient) -> None:
    async def ask() -> None:
        async with AsyncRewardClient(service.address) as asking:
            await asking.wait_ready(60)
            assert await asking.score(*CASE_PAIRS[0]) == client.score(*CASE_PAIRS[0])
            assert await asking.score_batch(CASE_PAIRS) == client.score_batch(CASE_PAIRS)
            assert [found async for found in asking.score_stream(CASE_PAIRS)] == client.score_batch(CASE_PAIRS)
            assert await asking.info() == client.info() and await asking.collections() == []
            with pytest.raises(ServiceError, match="query: is empty"):
                await asking.score("", "lex: a")
            with pytest.raises(ServiceError, match="NOT_FOUND"):
                await asking.score_retrieval("tea", "lex: tea", "notes")

    asyncio.run(ask())


def test_the_service_says_what_it_scores_with(client: RewardClient) -> None:
    info = client.info()
    assert (info.rubric_version, info.qmd_contract, info.build) == ("1", "2.8", "0.1.0")


@pytest.mark.parametrize(
    ("pairs", "problem"),
    [
        ([("tea", "lex: a")] * 100 + [("", "lex: a")], "requests[100].query: is empty; wants 1 to 2,000 characters"),
        ([("tea", "x" * 17_000)], "requests[0].expansion: has 17,000 bytes of UTF-8; wants at most 16,384"),
        ([("tea", "lex: a")] * 4_097, "requests: has more than 4,096 entries; wants at most 4,096"),
    ],
)
def test_a_batch_outside_the_limits_is_refused_as_a_whole(
    client: RewardClient, pairs: list[Pair], problem: str
) -> None:
    error = refusal(lambda: client.score_batch(pairs))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT and problem in str(error)


def test_a_bad_request_ends_a_stream_after_the_answers_to_all_before_it(client: RewardClient) -> None:
    answers = []
    with pytest.raises(ServiceError, match=r"requests\[200\]\.request\.query: is empty"):
        answers.extend(client.score_stream([*CASE_PAIRS[:1] * 200, ("", ""), *CASE_PAIRS[:1] * 9]))
    assert len(answers) == 200


@pytest.mark.parametrize("workers", [0, 2])
def test_a_text_that_is_no_utf8_is_named_with_its_index(tmp_path: Path, free_port: FreePort, workers: int) -> None:
    bad = b"\x0a\x05\x0a\x03tea" * 70 + b"\x0a\x08\x0a\x03tea\x12\x01\xff"
    with (
        running(tmp_path, free_port(), {"workers": workers}) as (service, _),
        grpc.insecure_channel(service.address) as channel,
    ):
        for method, data, problem in (
            ("Score", b"\x0a\x01\xff", "query: is no UTF-8 at byte 0"),
            ("ScoreBatch", bad, "requests[70].expansion: is no UTF-8 at byte 0"),
            ("ScoreStream", b"\x0a\x03\x0a\x01\xff", "requests[0].request.query: is no UTF-8 at byte 0"),
            ("Score", b"tea", "message: is no foundry.v1.ScoreRequest"),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(f"/foundry.v1.RewardService/{method}")(data)
            assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, problem)


def test_the_largest_batch_that_the_contract_allows_is_scored(client: RewardClient) -> None:
    pairs = [("ä" * 2_000, "é" * 8_192)] * 4_096
    assert len(client.score_batch(pairs)) == 4_096


def test_a_message_over_the_servers_limit_is_refused(client: RewardClient) -> None:
    error = refusal(lambda: client.score("tea", "x" * 140_000_000))
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("workers", [0, 2])
def test_health_answers_while_a_batch_is_scored(tmp_path: Path, free_port: FreePort, workers: int) -> None:
    with (
        running(tmp_path, free_port(), {"workers": workers}) as (service, client),
        ThreadPoolExecutor(1) as beside,
        RewardClient(service.address) as probe,
    ):
        batch = beside.submit(client.score_batch, SLOW_BATCH)
        waits = []
        while not batch.done():
            start = time.monotonic()
            probe.wait_ready(5)
            waits.append(time.monotonic() - start)
        assert len(batch.result()) == len(SLOW_BATCH)
    assert len(waits) > 3 and sorted(waits)[len(waits) // 2] < 0.05 and max(waits) < 1


def test_a_stream_is_read_no_faster_than_it_is_scored(client: RewardClient) -> None:
    taken = 0

    def pairs() -> Iterator[Pair]:
        nonlocal taken
        while True:
            taken += 1
            yield SLOW_PAIR

    stream = client.score_stream(pairs())
    for _ in range(3):
        next(stream)
    time.sleep(2)
    # Some MiB are on their way through the connection's buffers; taken unhindered, it would be tens of thousands.
    assert taken < 1_000
    stream.close()


def test_a_full_queue_turns_further_calls_away_and_tells_prometheus(tmp_path: Path, free_port: FreePort) -> None:
    metrics_port = free_port()
    config = {"server": {"max_in_flight": 1, "metrics_port": metrics_port}}
    with running(tmp_path, free_port(), config) as (_, client), ThreadPoolExecutor(1) as beside:
        batch = beside.submit(client.score_batch, SLOW_BATCH)
        url = f"http://127.0.0.1:{metrics_port}/metrics"

        def figures() -> str:
            with urllib.request.urlopen(url) as answer:
                return str(answer.read().decode())

        wait_until(lambda: "foundry_requests_in_flight 1.0" in figures(), 10)
        error = refusal(lambda: client.score("tea", "lex: tea"))
        assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED and "1 calls are waiting already" in str(error)
        batch.result()
        client.score("tea", "lex: tea")
        wait_until(lambda: "foundry_requests_in_flight 0.0" in figures(), 10)
        text = figures()
    assert 'foundry_rejections_total{reason="queue_full"} 1.0' in text
    assert 'foundry_requests_total{code="OK",method="ScoreBatch"} 1.0' in text
    assert f'foundry_batch_size_sum{{method="ScoreBatch"}} {len(SLOW_BATCH):.1f}' in text
    assert 'foundry_request_seconds_bucket{le="+Inf",method="Score"} 1.0' in text
    assert "process_resident_memory_bytes" in text


def test_calls_that_together_are_too_long_are_turned_away_until_others_have_ended(
    tmp_path: Path, free_port: FreePort
) -> None:
    requests = [reward_pb2.ScoreRequest(query=query, expansion=text) for query, text in SLOW_BATCH]
    batch = reward_pb2.ScoreBatchRequest(requests=requests)
    config = {"server": {"max_message_bytes": batch.ByteSize()}}
    with (
        running(tmp_path, free_port(), config) as (service, client),
        grpc.insecure_channel(service.address) as channel,
    ):
        stub = reward_pb2_grpc.RewardServiceStub(channel)
        calls = [stub.ScoreBatch.future(batch) for _ in range(6)]
        wait_until(lambda: sum(call.done() for call in calls) == 2, 10)
        for call in calls:
            if call.done():
                assert (
                    call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "bytes are waiting already" in call.details()
                )
            call.cancel()
        wait_until(lambda: len(service.lines()) >= 6 and client.score(*CASE_PAIRS[0]).total > 0, 10)
        assert len(client.score_batch(SLOW_BATCH)) == len(SLOW_BATCH)


def test_a_call_ends_at_its_deadline_and_its_work_ends_with_it(client: RewardClient, service: RewardProcess) -> None:
    with RewardClient(service.address, deadline=0.3) as hasty:
        error = refusal(lambda: hasty.score_batch([SLOW_PAIR] * 4_096))
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
    start = time.monotonic()
    client.score_batch(CASE_PAIRS)
    assert time.monotonic() - start < 5


def test_callers_that_give_up_at_any_moment_leave_the_service_as_it_was(
    client: RewardClient, service: RewardProcess
) -> None:
    batch = reward_pb2.ScoreBatchRequest(
        requests=[reward_pb2.ScoreRequest(query=query, expansion=text) for query, text in CASE_PAIRS]
    )
    streamed = [reward_pb2.ScoreStreamRequest(request=request) for request in batch.requests]
    with grpc.insecure_channel(service.address) as channel:
        stub = reward_pb2_grpc.RewardServiceStub(channel)
        for number in range(300):
            calls = [stub.ScoreStream(iter(streamed)), stub.ScoreBatch.future(batch)]
            time.sleep(number % 10 / 2000)
            for call in calls:
                call.cancel()
    assert len(client.score_batch(CASE_PAIRS)) == len(CASE_PAIRS)
    assert service.process.poll() is None


def test_the_log_is_json_with_the_callers_request_id_and_without_its_query(service: RewardProcess) -> None:
    with grpc.insecure_channel(service.address) as channel:
        method = channel.unary_unary("/foundry.v1.RewardService/Score")
        _, call = method.with_call(b"\x0a\x0asecret tea", metadata=[("x-request-id", "mine-1")])
        assert ("x-request-id", "mine-1") in [tuple(entry) for entry in call.trailing_metadata()]
        with pytest.raises(grpc.RpcError):
            method(b"\x0a\x0bsecret tea\0", metadata=[("x-request-id", "mine-2")])
    service.end()
    calls = {line["request_id"]: line for line in service.lines() if line["message"] == "call"}
    assert (calls["mine-1"]["method"], calls["mine-1"]["code"]) == ("Score", "OK")
    assert calls["mine-2"]["details"] == "query: has a NUL at character 10; wants text without NUL"
    assert "secret" not in service.log.read_text()


def test_reflection_lists_the_service_and_gives_what_is_needed_to_call_it(service: RewardProcess) -> None:
    def ask(channel: grpc.Channel, **request: str) -> reflection_pb2.ServerReflectionResponse:
        requests = iter([reflection_pb2.ServerReflectionRequest(**request)])
        [answer] = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(requests)
        return answer

    with grpc.insecure_channel(service.address) as channel:
        services = ask(channel, list_services="").list_services_response.service
        assert {"foundry.v1.RewardService", "grpc.health.v1.Health"} <= {entry.name for entry in services}
        found = ask(channel, file_containing_symbol="foundry.v1.RewardService").file_descriptor_response
        pool = descriptor_pool.DescriptorPool()
        for data in found.file_descriptor_proto:
            pool.Add(descriptor_pb2.FileDescriptorProto.FromString(data))
        types = [
            message_factory.GetMessageClass(pool.FindMessageTypeByName(f"foundry.v1.{name}"))
            for name in ("ScoreRequest", "ScoreResponse")
        ]
        method = channel.unary_unary("/foundry.v1.RewardService/Score")
        answer = types[1].FromString(method(types[0](query="tea", expansion="lex: tea").SerializeToString()))
    assert answer.score.total == score("tea", "lex: tea").total


def test_grpcurl_lists_and_calls_the_service(root: Path, service: RewardProcess) -> None:
    grpcurl = root.parent / "shared/bin/grpcurl"
    if not grpcurl.exists() and not (found := shutil.which("grpcurl")):
        pytest.skip("grpcurl is not installed")
    command = [str(grpcurl if grpcurl.exists() else found), "-plaintext"]
    listed = subprocess.run([*command, service.address, "list"], capture_output=True, text=True, check=True)
    assert "foundry.v1.RewardService" in listed.stdout
    data = json.dumps({"query": "tea", "expansion": "lex: tea"})
    call = [*command, "-d", data, service.address, "foundry.v1.RewardService/Score"]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["score"]["total"] == score("tea", "lex: tea").total


def test_a_client_recovers_when_the_service_is_killed_and_started_again(
    service: RewardProcess, client: RewardClient
) -> None:
    before = client.score_batch(CASE_PAIRS)
    service.end(signal.SIGKILL)
    restart = threading.Timer(0.5, service.start)
    restart.start()
    assert client.score_batch(CASE_PAIRS) == before
    restart.join()


def test_a_stream_goes_on_where_it_was_when_the_service_is_killed_and_started_again(
    service: RewardProcess, client: RewardClient
) -> None:
    pairs = [(f"tea {number}", f"lex: tea {number}\nvec: how to steep tea {number}\n") for number in range(6_000)]
    totals = []
    for found in client.score_stream(iter(pairs)):
        totals.append(found.total)
        if len(totals) == 500:
            service.end(signal.SIGKILL)
            service.start()
    assert totals == [score(*pair).total for pair in pairs]


def test_no_answer_is_lost_or_wrong_when_the_service_is_killed_and_started_again_under_load(
    service: RewardProcess,
) -> None:
    pairs = [(f"tea {number}", f"lex: tea {number}\nvec: how to steep tea {number}\n") for number in range(2_000)]
    answers: list[tuple[int, int]] = []

    def call(numbers: range) -> None:
        with RewardClient(service.address) as client:
            for number in numbers:
                while True:
                    try:
                        answers.append((number, client.score(*pairs[number]).total))
                        break
                    except ServiceError as error:
                        if error.code is not grpc.StatusCode.UNAVAILABLE:  # away for longer than a call is retried
                            raise

    with ThreadPoolExecutor(4) as callers:
        done = [callers.submit(call, range(first, len(pairs), 4)) for first in range(4)]
        wait_until(lambda: len(answers) > 100, 30)
        service.end(signal.SIGKILL)
        assert len(answers) < len(pairs)
        service.start()
        for one in done:
            one.result()
    assert sorted(answers) == [(number, score(*pair).total) for number, pair in enumerate(pairs)]


def test_a_worker_that_is_killed_is_replaced_and_nobody_notices(service: RewardProcess, client: RewardClient) -> None:
    expected = client.score_batch(CASE_PAIRS)
    for worker in workers_of(service):
        with suppress(ProcessLookupError):  # the pool ends the others when one is gone
            os.kill(worker, signal.SIGKILL)
    assert client.score_batch(CASE_PAIRS) == expected
    assert client.score(*SLOW_PAIR).total == score(*SLOW_PAIR).total


def workers_of(service: RewardProcess) -> list[int]:
    found = [
        process
        for process in descendants(service.process.pid)
        if "spawn_main" in Path(f"/proc/{process}/cmdline").read_text()
    ]
    assert len(found) == 2
    return found


def test_no_worker_outlives_a_service_that_is_killed(service: RewardProcess) -> None:
    family = descendants(service.process.pid)
    assert len([process for process in family if is_alive(process)]) >= 2
    service.end(signal.SIGKILL)
    all_ended(family)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_running_call_is_finished_before_the_service_ends(
    service: RewardProcess, client: RewardClient, number: signal.Signals
) -> None:
    client.score("tea", "lex: green tea leaves")
    with ThreadPoolExecutor(1) as beside:
        batch = beside.submit(client.score_batch, SLOW_BATCH)
        time.sleep(0.3)
        assert not batch.done()
        for process in (*descendants(service.process.pid), service.process.pid) if number is signal.SIGINT else ():
            subprocess.run(["kill", "-INT", str(process)], check=False)
        code = service.end(number)
        assert len(batch.result()) == len(SLOW_BATCH)
    assert code == 0 and service.lines()[-1]["message"] == "stopped" and "Traceback" not in service.log.read_text()


def test_a_call_that_outlasts_the_drain_is_ended(tmp_path: Path, free_port: FreePort) -> None:
    config = {"server": {"drain_seconds": 0.5}}
    with (
        running(tmp_path, free_port(), config) as (service, _),
        RewardClient(service.address, deadline=5) as client,
        ThreadPoolExecutor(1) as beside,
    ):
        family = descendants(service.process.pid)
        batch = beside.submit(client.score_batch, [SLOW_PAIR] * 4_096)
        time.sleep(1)
        assert not batch.done()
        start = time.monotonic()
        assert service.end() == 0
        assert time.monotonic() - start < 10
        assert isinstance(batch.exception(), ServiceError)
        all_ended(family)


def test_a_service_that_nobody_calls_ends_at_once_though_health_is_watched(service: RewardProcess) -> None:
    with ThreadPoolExecutor(1) as beside, RewardClient(service.address) as watching:
        watching.full_name = "foundry.v1.Unknown"
        watch = beside.submit(watching.wait_ready, 30)
        time.sleep(0.3)
        start = time.monotonic()
        assert service.end() == 0
        assert time.monotonic() - start < 5
        watch.exception()


def test_a_port_in_use_is_one_message_and_exit_code_2(service: RewardProcess) -> None:
    second = subprocess.run(service.command, capture_output=True, text=True, check=False, timeout=60)
    assert second.returncode == 2
    assert second.stderr.startswith(f"port {service.port} on 127.0.0.1 is in use: ")
    assert len(second.stderr.splitlines()) == 1


def test_the_health_command_tells_a_running_service_from_a_stopped_one(service: RewardProcess) -> None:
    command = [sys.executable, "-m", "qmd_rpc.health", service.address]
    assert subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == 0
    service.end()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "UNAVAILABLE" in done.stderr
