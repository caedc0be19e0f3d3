"""The client of the evaluation service."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qmd_rpc.channel import ServiceClient, ServiceError
from qmd_rpc.v1 import evaluation_pb2, evaluation_pb2_grpc
from qmd_schema.verdicts import SignedVerdict

OnProgress = Callable[[evaluation_pb2.Progress], None]


class EvaluationClient(ServiceClient):
    """Measures models and compares them. Paths are on the evaluator's machine. Calls raise ServiceError."""

    service = "evaluator"
    full_name = "foundry.v1.EvaluationService"

    def __init__(self, address: str, deadline: float = 21_600.0) -> None:
        """deadline: seconds a call may take; six hours, since a comparison generates for every query and seed."""
        super().__init__(address, deadline)
        self._stub = evaluation_pb2_grpc.EvaluationServiceStub(self._channel)

    def evaluate(self, model: Path, on_progress: OnProgress | None = None) -> dict[str, Any]:
        """The figures of one model folder or GGUF file: rubric, contract, retrieval by collection, cost."""
        request = evaluation_pb2.EvaluateRequest(model=str(model.absolute()))
        for response in self._stream(self._stub.Evaluate, request):
            if response.HasField("figures_json"):
                figures: dict[str, Any] = json.loads(response.figures_json)
                return figures
            if on_progress:
                on_progress(response.progress)
        raise ServiceError(self.service, self.address, "ended the evaluation without figures", "Read its log.")

    def compare(
        self,
        candidate: Path,
        reference: Path,
        deployed_revision: str | None,
        output: Path,
        on_progress: OnProgress | None = None,
    ) -> SignedVerdict:
        """Compares a candidate with the deployed model, or with the base where `deployed_revision` is None.

        output: the folder that receives verdict.json, report.html and the figures.
        """
        request = evaluation_pb2.CompareRequest(
            candidate=str(candidate.absolute()),
            reference=str(reference.absolute()),
            deployed_revision=deployed_revision or "",
            output=str(output.absolute()),
        )
        for response in self._stream(self._stub.Compare, request):
            if response.HasField("signed_verdict_json"):
                return SignedVerdict.model_validate_json(response.signed_verdict_json)
            if on_progress:
                on_progress(response.progress)
        raise ServiceError(self.service, self.address, "ended the comparison without a verdict", "Read its log.")

    def get_verdict(self, verdict_id: str) -> SignedVerdict:
        """A verdict by its id. Raises ServiceError with code NOT_FOUND where there is none."""
        response = self._call(self._stub.GetVerdict, evaluation_pb2.GetVerdictRequest(id=verdict_id))
        return SignedVerdict.model_validate_json(response.signed_verdict_json)

    def list_verdicts(self, limit: int = 50) -> list[evaluation_pb2.VerdictSummary]:
        """Verdicts, newest first."""
        return list(self._call(self._stub.ListVerdicts, evaluation_pb2.ListVerdictsRequest(limit=limit)).verdicts)
