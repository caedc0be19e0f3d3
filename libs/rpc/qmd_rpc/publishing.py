"""The client of the publishing service."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import grpc

from qmd_rpc.channel import ServiceClient, ServiceError
from qmd_rpc.v1 import evaluation_pb2, publishing_pb2, publishing_pb2_grpc


class PublishingClient(ServiceClient):
    """Publishes judged models. Paths are on the publisher's machine. Calls raise ServiceError."""

    service = "publisher"
    full_name = "foundry.v1.PublishingService"

    def __init__(self, address: str, deadline: float = 3600.0) -> None:
        """deadline: seconds a call may take; an hour, since publishing converts, quantises and uploads."""
        super().__init__(address, deadline)
        self._stub = publishing_pb2_grpc.PublishingServiceStub(self._channel)

    def publish(
        self,
        verdict: Path,
        model: Path,
        adapters: Mapping[str, Path],
        data_manifest: Path,
        evaluation: Path,
        on_progress: Callable[[evaluation_pb2.Progress], None] | None = None,
    ) -> publishing_pb2.Deployment:
        """Publishes the model a PASS verdict names. A refusal is a ServiceError with code FAILED_PRECONDITION.

        verdict: signed verdict.json; adapters: folders by repository suffix ("sft", "grpo");
        data_manifest: of the prepared training data; evaluation: the folder whose report is published.
        """
        request = _request(verdict, model, adapters, data_manifest, evaluation)
        return self._follow(request, on_progress).deployment

    def preview(
        self,
        verdict: Path,
        model: Path,
        adapters: Mapping[str, Path],
        data_manifest: Path,
        evaluation: Path,
        on_progress: Callable[[evaluation_pb2.Progress], None] | None = None,
    ) -> Sequence[publishing_pb2.RepositoryChange]:
        """What `publish` would change; makes and tries everything, and leaves the registry as it is."""
        request = _request(verdict, model, adapters, data_manifest, evaluation)
        request.dry_run = True
        return self._follow(request, on_progress).changes.repositories

    def _follow(
        self,
        request: publishing_pb2.PublishRequest,
        on_progress: Callable[[evaluation_pb2.Progress], None] | None,
    ) -> publishing_pb2.PublishResponse:
        """Reports progress, and returns the message that ends it."""
        for response in self._stream(self._stub.Publish, request):
            if not response.HasField("progress"):
                return response
            if on_progress:
                on_progress(response.progress)
        raise ServiceError(self.service, self.address, "ended without a deployment", "Read its log.")

    def deployed(self) -> publishing_pb2.Deployment | None:
        """The deployed revision, None where nothing is deployed yet."""
        try:
            return self._call(self._stub.GetDeployed, publishing_pb2.GetDeployedRequest()).deployment
        except ServiceError as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                return None
            raise

    def revisions(self) -> Sequence[publishing_pb2.Revision]:
        """The revisions that are kept, newest first; the first is deployed."""
        return self._call(self._stub.ListRevisions, publishing_pb2.ListRevisionsRequest()).revisions

    def roll_back(self, repository: str, revision: str, reason: str) -> publishing_pb2.Deployment:
        """Deploys an earlier revision's content again. A refusal is a ServiceError with code FAILED_PRECONDITION."""
        request = publishing_pb2.RollbackRequest(repository=repository, revision=revision, reason=reason)
        return self._call(self._stub.Rollback, request).deployment

    def collect_garbage(self, keep: int, dry_run: bool = False) -> publishing_pb2.CollectGarbageResponse:
        """Removes revisions beyond the newest `keep` that nothing needs, and what killed publications left."""
        return self._call(self._stub.CollectGarbage, publishing_pb2.CollectGarbageRequest(keep=keep, dry_run=dry_run))


def _request(
    verdict: Path, model: Path, adapters: Mapping[str, Path], data_manifest: Path, evaluation: Path
) -> publishing_pb2.PublishRequest:
    return publishing_pb2.PublishRequest(
        verdict=str(verdict.absolute()),
        model=str(model.absolute()),
        adapters={suffix: str(folder.absolute()) for suffix, folder in adapters.items()},
        data_manifest=str(data_manifest.absolute()),
        evaluation=str(evaluation.absolute()),
    )
