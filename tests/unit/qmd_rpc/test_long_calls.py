"""The clients whose calls stream progress, against real servers whose servicers answer from a script."""
# ruff: noqa: N802  # methods are named as in the contract

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from qmd_rpc.channel import ServiceError
from qmd_rpc.evaluation import EvaluationClient
from qmd_rpc.publishing import PublishingClient
from qmd_rpc.v1 import (
    evaluation_pb2,
    evaluation_pb2_grpc,
    publishing_pb2,
    publishing_pb2_grpc,
)
from qmd_schema.verdicts import Interval, ModelIdentity, SignedVerdict, Verdict

PROGRESS = evaluation_pb2.Progress(task="generating", done=1, total=2)
IDENTITY = ModelIdentity(reference="/m", sha256="0" * 64)
SIGNED = SignedVerdict(
    verdict=Verdict(
        id="v1",
        created="2026-01-01T00:00:00Z",
        outcome="PASS",
        reasons=["The gain is above zero."],
        candidate=IDENTITY,
        reference_kind="base",
        reference=IDENTITY,
        gains={"reference": Interval(mean=0.1, lower=0.05, upper=0.15, queries=80)},
        p_value=0.01,
        minimum_effect=0.01,
        queries_to_decide=None,
        guards=[],
        figures={},
        seeds=[0],
        qmd_contract="2.8",
        data_sha256="0" * 64,
        config_sha256="0" * 64,
        code_version="0",
    ),
    public_key="00",
    signature="00",
)


class Evaluator(evaluation_pb2_grpc.EvaluationServiceServicer):
    """Measures nothing; a model named "stops" ends the stream early."""

    def Evaluate(
        self, request: evaluation_pb2.EvaluateRequest, _context: grpc.ServicerContext
    ) -> Iterator[evaluation_pb2.EvaluateResponse]:
        yield evaluation_pb2.EvaluateResponse(progress=PROGRESS)
        if not request.model.endswith("stops"):
            yield evaluation_pb2.EvaluateResponse(figures_json=json.dumps({"model": request.model}))

    def Compare(
        self, request: evaluation_pb2.CompareRequest, context: grpc.ServicerContext
    ) -> Iterator[evaluation_pb2.CompareResponse]:
        yield evaluation_pb2.CompareResponse(progress=PROGRESS)
        if request.deployed_revision:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "revision r1 is not deployed")
        yield evaluation_pb2.CompareResponse(signed_verdict_json=SIGNED.model_dump_json())

    def GetVerdict(
        self, request: evaluation_pb2.GetVerdictRequest, context: grpc.ServicerContext
    ) -> evaluation_pb2.GetVerdictResponse:
        if request.id != "v1":
            context.abort(grpc.StatusCode.NOT_FOUND, f"no verdict {request.id}")
        return evaluation_pb2.GetVerdictResponse(signed_verdict_json=SIGNED.model_dump_json())

    def ListVerdicts(
        self, request: evaluation_pb2.ListVerdictsRequest, _context: grpc.ServicerContext
    ) -> evaluation_pb2.ListVerdictsResponse:
        return evaluation_pb2.ListVerdictsResponse(
            verdicts=[evaluation_pb2.VerdictSummary(id=str(number)) for number in range(request.limit)]
        )


class Publisher(publishing_pb2_grpc.PublishingServiceServicer):
    """Publishes nothing; what it was asked for comes back in the deployment."""

    deployed: publishing_pb2.Deployment | None = None

    def Publish(
        self, request: publishing_pb2.PublishRequest, _context: grpc.ServicerContext
    ) -> Iterator[publishing_pb2.PublishResponse]:
        yield publishing_pb2.PublishResponse(progress=PROGRESS)
        self.deployed = publishing_pb2.Deployment(model=request.model, gguf=request.adapters, revision="r1")
        yield publishing_pb2.PublishResponse(deployment=self.deployed)

    def GetDeployed(
        self, _request: publishing_pb2.GetDeployedRequest, context: grpc.ServicerContext
    ) -> publishing_pb2.GetDeployedResponse:
        if self.deployed is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "nothing is deployed")
        return publishing_pb2.GetDeployedResponse(deployment=self.deployed)


@pytest.fixture
def address() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4))
    evaluation_pb2_grpc.add_EvaluationServiceServicer_to_server(Evaluator(), server)
    publishing_pb2_grpc.add_PublishingServiceServicer_to_server(Publisher(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_an_evaluation_reports_progress_and_ends_with_the_figures(address: str) -> None:
    progress: list[tuple[str, int, int]] = []
    with EvaluationClient(address) as client:
        figures = client.evaluate(Path("/m"), lambda p: progress.append((p.task, p.done, p.total)))
    assert figures == {"model": "/m"} and progress == [("generating", 1, 2)]


def test_an_evaluation_that_ends_without_figures_is_an_error(address: str) -> None:
    with EvaluationClient(address) as client, pytest.raises(ServiceError, match="without figures"):
        client.evaluate(Path("/stops"))


def test_a_relative_path_is_sent_as_an_absolute_one(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with EvaluationClient(address) as client:
        assert client.evaluate(Path("model")) == {"model": str(tmp_path / "model")}


def test_a_comparison_ends_with_the_signed_verdict(address: str, tmp_path: Path) -> None:
    with EvaluationClient(address) as client:
        assert client.compare(Path("/c"), Path("/r"), None, tmp_path) == SIGNED


def test_a_failure_in_the_middle_of_a_stream_is_an_error(address: str, tmp_path: Path) -> None:
    with EvaluationClient(address) as client, pytest.raises(ServiceError, match="revision r1 is not deployed"):
        client.compare(Path("/c"), Path("/r"), "r1", tmp_path)


def test_verdicts_are_fetched_and_listed(address: str) -> None:
    with EvaluationClient(address) as client:
        assert client.get_verdict("v1") == SIGNED
        assert [verdict.id for verdict in client.list_verdicts(2)] == ["0", "1"]
        with pytest.raises(ServiceError) as caught:
            client.get_verdict("v2")
        assert caught.value.code is grpc.StatusCode.NOT_FOUND


def test_a_publication_ends_with_the_deployment_which_is_then_deployed(address: str) -> None:
    with PublishingClient(address) as client:
        assert client.deployed() is None
        adapters = {"sft": Path("/sft")}
        deployment = client.publish(Path("/v.json"), Path("/m"), adapters, Path("/manifest.json"), Path("/evaluate"))
        assert (deployment.model, dict(deployment.gguf)) == ("/m", {"sft": "/sft"})
        assert client.deployed() == deployment
