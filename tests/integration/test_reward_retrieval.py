"""ScoreRetrieval with the real embedder, over a collection of a few documents."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from qmd_reward.composite import CompositeConfig, composite
from qmd_rpc.channel import ServiceError
from qmd_rpc.reward import RewardClient
from support.processes import descendants
from support.rewarding import RewardProcess, running
from support.searching import small_collection, write_collection


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small collection in BEIR's format."""
    folder = tmp_path_factory.mktemp("collections") / "notes"
    write_collection(small_collection(), folder, "train")
    return folder


@pytest.fixture(scope="module")
def started(
    tmp_path_factory: pytest.TempPathFactory, folder: Path, free_port: Callable[[], int]
) -> Iterator[tuple[RewardProcess, RewardClient]]:
    config = {"collections": [{"path": str(folder), "split": "train"}], "cache": str(folder.parent / "cache")}
    with running(tmp_path_factory.mktemp("service"), free_port(), config) as service_and_client:
        yield service_and_client


def test_a_service_does_not_serve_until_its_collections_are_loaded(
    tmp_path: Path, folder: Path, free_port: Callable[[], int]
) -> None:
    config = {"collections": [{"path": str(folder), "split": "train"}], "cache": str(tmp_path / "cache")}
    service = RewardProcess(tmp_path, free_port(), config)
    try:
        with grpc.insecure_channel(service.address) as channel, RewardClient(service.address) as client:
            health = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service="foundry.v1.RewardService")
            assert health.Check(request, wait_for_ready=True).status == health_pb2.HealthCheckResponse.NOT_SERVING
            with pytest.raises(grpc.RpcError, match="is starting, and not ready yet"):
                channel.unary_unary("/foundry.v1.RewardService/ListCollections")(b"")
            client.wait_ready(120)
            assert health.Check(request).status == health_pb2.HealthCheckResponse.SERVING
            assert [collection.name for collection in client.collections()] == ["notes"]
    finally:
        service.end(signal.SIGKILL)


def test_the_collections_are_listed(started: tuple[RewardProcess, RewardClient]) -> None:
    [collection] = started[1].collections()
    assert (collection.name, collection.documents, collection.queries, collection.split) == ("notes", 5, 2, "train")


def test_many_expansions_are_measured_as_they_are_one_by_one(started: tuple[RewardProcess, RewardClient]) -> None:
    client = started[1]
    pairs = [("sourdough starter", f"vec: how to feed a starter {number}\nlex: starter java\n") for number in range(50)]
    together = client.score_retrievals(pairs, "notes", in_flight=16)
    assert together == [client.score_retrieval(*pair, "notes") for pair in pairs]
    assert together[0].without_expansion.ndcg_at_10 > 0 and together[0].lines[1].found == 0


@pytest.mark.parametrize(
    ("query", "collection", "code", "problem"),
    [
        ("unjudged", "notes", grpc.StatusCode.NOT_FOUND, "query: is none of the 2 judged in notes"),
        ("sourdough starter", "other", grpc.StatusCode.NOT_FOUND, "collection: is none of those loaded: notes"),
        ("", "notes", grpc.StatusCode.INVALID_ARGUMENT, "query: is empty"),
    ],
)
def test_what_cannot_be_measured_is_named(
    started: tuple[RewardProcess, RewardClient], query: str, collection: str, code: grpc.StatusCode, problem: str
) -> None:
    with pytest.raises(ServiceError, match=problem) as caught:
        started[1].score_retrieval(query, "lex: tea", collection)
    assert caught.value.code is code


def test_a_search_worker_that_is_killed_comes_back_with_its_collections(
    started: tuple[RewardProcess, RewardClient],
) -> None:
    service, client = started
    before = client.score_retrieval("sourdough starter", "vec: sourdough bread\n", "notes")
    for process in descendants(service.process.pid):
        if "spawn_main" in Path(f"/proc/{process}/cmdline").read_text():
            os.kill(process, signal.SIGKILL)
    assert client.score_retrieval("sourdough starter", "vec: sourdough bread\n", "notes") == before


def test_a_collection_that_cannot_be_read_stops_the_service_with_one_message(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    service = RewardProcess(tmp_path, free_port(), {"collections": [{"path": str(tmp_path / "absent")}]})
    assert service.process.wait(120) == 2
    assert "absent/corpus.jsonl: no such file" in service.log.read_text()


def test_a_collection_without_the_search_installed_stops_the_service_with_one_message(
    tmp_path: Path, free_port: Callable[[], int], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['qmd_search'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    service = RewardProcess(tmp_path, free_port(), {"collections": [{"path": str(folder), "split": "train"}]})
    assert service.process.wait(120) == 2
    assert "searching them needs the package qmd_search" in service.log.read_text()


def test_the_command_prints_what_each_line_finds_and_the_composite(
    started: tuple[RewardProcess, RewardClient], tmp_path: Path
) -> None:
    service, client = started
    command = [sys.executable, "-m", "foundry", "score", "--address", service.address, "--collection", "notes"]
    query, expansion = "sourdough starter", "lex: sourdough bread\nvec: how to feed a starter\n"
    expected = client.score_retrieval(query, expansion, "notes")
    told = subprocess.run([*command, "--query", query], input=expansion, capture_output=True, text=True, check=True)
    assert f"search: gain {expected.gain:+.4f}" in told.stdout and "composite" in told.stdout
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"query": query, "expansion": expansion}) + "\n")
    row = json.loads(subprocess.run([*command, "--file", pairs], capture_output=True, text=True, check=True).stdout)
    assert row["retrieval"]["gain"] == expected.gain
    assert row["composite"]["reward"] == composite(CompositeConfig(), query, expansion, row["score"], expected.gain)[0]
