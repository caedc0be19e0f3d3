"""A publication without its last step: everything is made and tried, and nothing becomes visible."""

from contextlib import AbstractContextManager
from pathlib import Path

from publisher.registry import Change, Deployment, Publication, PublicationTarget, Registry, conflict, deployment


class DryRun(PublicationTarget):
    """A registry as it is, whose `commit` only notes what would change."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.changes: list[Change] = []
        """What the publication would do; empty where its verdict was published before."""

    def current(self) -> Publication | None:
        return self._registry.current()

    def deployed(self) -> Deployment | None:
        return self._registry.deployed()

    def staging(self, revision: str) -> AbstractContextManager[Path]:
        return self._registry.staging(revision)

    def commit(self, staged: Path, publication: Publication) -> Deployment:
        """Returns a deployment whose files go with the staging folder. Raises as the registry's own would."""
        deployed = self._registry.current()
        if (deployed.revision if deployed else None) != publication.parent:
            raise conflict(publication, deployed.revision if deployed else None)
        self.changes = self._registry.preview(staged, publication)
        return deployment(publication, lambda name: staged / name)

    def recover(self) -> None:
        """Leaves what is there as it is."""
