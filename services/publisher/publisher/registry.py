"""Registries: what is deployed, what was before, and the ways to change it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from publisher.config import PublisherConfig
from qmd_schema.config import StrictModel
from qmd_schema.errors import UserError

PUBLICATION_NAME = "publication.json"


class RegistryBusyError(UserError):
    """Another process is publishing into the same repository."""


class RevisionConflictError(UserError):
    """The deployed revision changed since the publication was prepared."""


class RegistryUnreachableError(UserError):
    """A registry over the network that gave no answer within the bound on attempts."""


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
    revision: str = Field(description="40 hex digits, the same for every repository that is published together.")
    parent: str | None = Field(description="The revision that this one replaced; null for the first.")
    created: str = Field(description="UTC time, ISO 8601.")
    repositories: list[str] = Field(description="Every repository that holds this revision.")
    gguf: dict[str, str] = Field(description="File names in the -gguf repository, by quantisation.")
    default_quantisation: str
    verdict_id: str
    provenance: dict[str, str] = Field(description="SHA-256 of what went in, by what it is, and the code's version.")
    commits: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{40}$")]] = Field(
        default={}, description="On the Hub: the commit of each other repository that belongs to this revision."
    )
    restores: str | None = Field(default=None, description="The earlier revision whose content a rollback took back.")
    reason: str | None = Field(default=None, description="Why it was rolled back.")


@dataclass(frozen=True)
class Change:
    """What a publication would do to one repository."""

    repository: str
    written: dict[str, int]
    """Bytes of each file that is new or changed, by path."""
    removed: list[str]
    unchanged: int
    """Files that are there already."""


@dataclass(frozen=True)
class Garbage:
    """What was removed, or would be."""

    removed: list[str]
    """A revision, or what was left of one, each."""
    bytes: int
    note: str = ""
    """What the registry keeps all the same."""


class PublicationTarget(ABC):
    """Repositories that are published together, whole or not at all: a reader sees the old revision or the new one.

    Reading needs no lock and changes nothing but caches. One process at a time publishes.
    """

    @abstractmethod
    def current(self) -> Publication | None:
        """The record of the revision that is deployed, None where nothing was published yet."""

    @abstractmethod
    def deployed(self) -> Deployment | None:
        """The same revision with its files on this machine."""

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
        """Ends what a publication left that was killed. Raises RegistryBusyError while one runs."""


class Registry(PublicationTarget):
    """A place that keeps revisions, so that one can go back and clean up."""

    repository: str
    """The model's; it stands for all that are published with it."""

    @abstractmethod
    def history(self) -> list[Publication]:
        """The deployed revision and those before it that are still kept, newest first."""

    @abstractmethod
    def restore(self, target: Publication, publication: Publication) -> Deployment:
        """Makes an earlier revision's content visible again as a new revision, in one step. Raises as `commit`."""

    @abstractmethod
    def preview(self, staged: Path, publication: Publication) -> list[Change]:
        """What `commit` would do, a repository each. Changes nothing."""

    @abstractmethod
    def collect(self, keep: int, dry_run: bool) -> Garbage:
        """Removes what is no longer needed, but never the last `keep` revisions, the deployed one among them."""


def deployment(publication: Publication, folder: Callable[[str], Path]) -> Deployment:
    """The deployment of a record whose repositories' files are where `folder` says, by name without the namespace."""
    name = publication.repository.split("/")[1]
    return Deployment(
        repository=publication.repository,
        revision=publication.revision,
        model=folder(name),
        gguf={quantisation: folder(f"{name}-gguf") / file for quantisation, file in publication.gguf.items()},
        default_quantisation=publication.default_quantisation,
        verdict_id=publication.verdict_id,
    )


def conflict(publication: Publication, deployed: str | None) -> RevisionConflictError:
    return RevisionConflictError(
        f"{publication.repository}: {deployed} is deployed, no longer {publication.parent}. "
        "Compare the model with it, then publish again."
    )


def open_registry(config: PublisherConfig) -> Registry:
    """The registry a config names."""
    if config.registry == "hub":
        from publisher.hub_registry import HubRegistry

        return HubRegistry(config.hub, config.repository, f"{config.namespace}/{config.data_name}")
    from publisher.local_registry import LocalRegistry

    return LocalRegistry(config.folder, config.repository)
