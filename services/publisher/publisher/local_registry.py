"""The local registry: a folder a repository, revisions that never change, one pointer that names the deployed one.

    <folder>/<namespace>/
      qmd-query-expansion-135M/
        main                         one line: the deployed revision
        revisions/<revision>/        model, card, verdict, publication.json
        staging/<revision>/          a publication being made, one folder a repository
        lock
      qmd-query-expansion-135M-gguf/revisions/<revision>/
      …

Repositories that are published together share the revision's name, and only the model's has a `main`. A publication
moves its folders to their places, where nothing names them yet, and then renames a new `main` over the old one: that
one rename makes all of them visible. The staging folder goes last, so a folder found there tells which revision a
killed publication was making.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from publisher.registry import (
    PUBLICATION_NAME,
    Deployment,
    Publication,
    Registry,
    RegistryBusyError,
    RevisionConflictError,
)
from qmd_schema.artifacts import write_text_atomically
from qmd_schema.errors import ArtifactError


class LocalRegistry(Registry):
    def __init__(self, folder: Path, repository: str) -> None:
        namespace, self._name = repository.split("/")
        self._namespace = folder.absolute() / namespace
        self._home = self._namespace / self._name
        self._main = self._home / "main"

    def deployed(self) -> Deployment | None:
        revision = self._deployed_revision()
        return self._deployment(self._publication(revision)) if revision else None

    def history(self) -> list[Deployment]:
        deployments: list[Deployment] = []
        revision = self._deployed_revision()
        while revision and (not deployments or self._record(revision).is_file()):
            publication = self._publication(revision)
            deployments.append(self._deployment(publication))
            revision = publication.parent
        return deployments

    @contextmanager
    def staging(self, revision: str) -> Iterator[Path]:
        with self._exclusive():
            self._remove_unfinished()
            staged = self._home / "staging" / revision
            staged.mkdir(parents=True)
            try:
                yield staged
            finally:
                self._remove_unfinished()

    def commit(self, staged: Path, publication: Publication) -> Deployment:
        deployed = self._deployed_revision()
        if deployed != publication.parent:
            raise RevisionConflictError(
                f"{publication.repository}: {deployed} is deployed, no longer {publication.parent}. "
                "Compare the model with it, then publish again."
            )
        record = staged / self._name / PUBLICATION_NAME
        record.write_text(publication.model_dump_json(indent=2) + "\n", encoding="utf-8")
        _seal(staged)
        for folder in sorted(staged.iterdir()):
            target = self._revision_folder(folder.name, publication.revision)
            target.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(target)
        write_text_atomically(self._main, publication.revision + "\n")
        return self._deployment(publication)

    def recover(self) -> None:
        if self._home.is_dir():
            with self._exclusive():
                self._remove_unfinished()

    def _deployed_revision(self) -> str | None:
        return self._main.read_text().strip() if self._main.is_file() else None

    def _publication(self, revision: str) -> Publication:
        path = self._record(revision)
        if not path.is_file():
            raise ArtifactError(
                f"{path}: missing, though {self._main} names it. "
                f"Restore it, or write the name of another folder of {path.parent.parent} into {self._main.name}."
            )
        return Publication.model_validate_json(path.read_bytes())

    def _deployment(self, publication: Publication) -> Deployment:
        gguf = self._revision_folder(f"{self._name}-gguf", publication.revision)
        return Deployment(
            repository=publication.repository,
            revision=publication.revision,
            model=self._revision_folder(self._name, publication.revision),
            gguf={quantisation: gguf / name for quantisation, name in publication.gguf.items()},
            default_quantisation=publication.default_quantisation,
            verdict_id=publication.verdict_id,
        )

    def _record(self, revision: str) -> Path:
        return self._revision_folder(self._name, revision) / PUBLICATION_NAME

    def _revision_folder(self, name: str, revision: str) -> Path:
        return self._namespace / name / "revisions" / revision

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Holds the repository's lock, which the kernel takes back when this process ends in any way."""
        self._home.mkdir(parents=True, exist_ok=True)
        with (self._home / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RegistryBusyError(
                    f"{self._home}: another publication is running. Publish again when it has ended."
                ) from error
            yield

    def _remove_unfinished(self) -> None:
        """Removes staged folders, with what was already moved to its place if `main` never came to name it."""
        for temporary in self._home.glob(f".{self._main.name}.*"):
            temporary.unlink()
        for staged in self._home.glob("staging/*"):
            if staged.name != self._deployed_revision():
                for folder in self._namespace.glob(f"*/revisions/{staged.name}"):
                    shutil.rmtree(folder)
            shutil.rmtree(staged)


def _seal(folder: Path) -> None:
    """Brings every file to the disk and makes it read-only, readable by all."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
            path.chmod(0o444)
