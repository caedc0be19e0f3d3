"""Registries: what is deployed, what was before, and the one way to change it."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from publisher.config import PublisherConfig
from qmd_schema.config import StrictModel
from qmd_schema.errors import UserError

PUBLICATION_NAME = "publication.json"


class RegistryBusyError(UserError):
    """Another process is publishing into the same repository."""


class RevisionConflictError(UserError):
    """The deployed revision changed since the publication was prepared."""


@dataclass(frozen=True)
class Deployment:
    """One revision of the model, with its files on this machine."""

    repository: str
    """`<namespace>/qmd-query-expansion-<size>`."""
    revision: str
    model: Path
    """Folder of the merged model. It belongs to the revision and never changes."""
    gguf: dict[str, Path]
    """GGUF files by quantisation."""
    default_quantisation: str
    verdict_id: str


class Publication(StrictModel):
    """The record of a revision, kept beside its model as publication.json."""

    repository: str = Field(description="The merged model's; those published with it carry its name and a suffix.")
    revision: str = Field(description="40 hex digits, the same in every repository that is published together.")
    parent: str | None = Field(description="The revision that this one replaced; null for the first.")
    created: str = Field(description="UTC time, ISO 8601.")
    repositories: list[str] = Field(description="Every repository that holds this revision.")
    gguf: dict[str, str] = Field(description="File names in the -gguf repository, by quantisation.")
    default_quantisation: str
    verdict_id: str
    provenance: dict[str, str] = Field(description="SHA-256 of what went in, by what it is, and the code's version.")


class Registry(ABC):
    """Repositories that are published together, whole or not at all: a reader sees the old revision or the new one.

    Reading needs no lock and changes nothing. One process at a time publishes.
    """

    @abstractmethod
    def deployed(self) -> Deployment | None:
        """The revision that `main` names, None where nothing was published yet."""

    @abstractmethod
    def history(self) -> list[Deployment]:
        """The deployed revision and those before it that are still kept, newest first."""

    @abstractmethod
    def staging(self, revision: str) -> AbstractContextManager[Path]:
        """An empty folder to put one folder a repository into, for `commit`; afterwards it is removed.

        Holds the registry for this publication; raises RegistryBusyError where another one holds it.
        """

    @abstractmethod
    def commit(self, staged: Path, publication: Publication) -> Deployment:
        """Makes what was staged visible in one step.

        Raises RevisionConflictError unless the deployed revision is still the publication's parent.
        """

    @abstractmethod
    def recover(self) -> None:
        """Removes what a publication left that was killed. Raises RegistryBusyError while one runs."""


def open_registry(config: PublisherConfig) -> Registry:
    """The registry a config names."""
    from publisher.local_registry import LocalRegistry

    return LocalRegistry(config.folder, config.repository)
