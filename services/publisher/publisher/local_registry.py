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

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from publisher.crash_points import reach
from publisher.registry import (
    PUBLICATION_NAME,
    Change,
    Deployment,
    Garbage,
    Publication,
    Registry,
    conflict,
    deployment,
)
from publisher.staging import exclusive, seal
from qmd_schema.artifacts import write_text_atomically
from qmd_schema.errors import ArtifactError


class LocalRegistry(Registry):
    def __init__(self, folder: Path, repository: str) -> None:
        self.repository = repository
        namespace, self._name = repository.split("/")
        self._namespace = folder.absolute() / namespace
        self._home = self._namespace / self._name
        self._main = self._home / "main"

    def current(self) -> Publication | None:
        revision = self._deployed_revision()
        return self._publication(revision) if revision else None

    def deployed(self) -> Deployment | None:
        publication = self.current()
        return self._deployment(publication) if publication else None

    def history(self) -> list[Publication]:
        publications: list[Publication] = []
        revision = self._deployed_revision()
        while revision and (not publications or self._record(revision).is_file()):
            publications.append(self._publication(revision))
            revision = publications[-1].parent
        known = {publication.revision for publication in publications}
        older = (p.name for p in self._home.glob("revisions/*") if p.name not in known)
        kept = [self._publication(name) for name in older if self._is_finished(name)]
        return publications + sorted(kept, key=lambda publication: publication.created, reverse=True)

    @contextmanager
    def staging(self, revision: str) -> Iterator[Path]:
        with exclusive(self._home):
            self._remove_unfinished()
            staged = self._home / "staging" / revision
            staged.mkdir(parents=True)
            reach("stage")
            try:
                yield staged
            finally:
                self._remove_unfinished()

    def commit(self, staged: Path, publication: Publication) -> Deployment:
        deployed = self._deployed_revision()
        if deployed != publication.parent:
            raise conflict(publication, deployed)
        record = staged / self._name / PUBLICATION_NAME
        record.write_text(publication.model_dump_json(indent=2) + "\n", encoding="utf-8")
        seal(staged)
        reach("seal")
        for folder in sorted(staged.iterdir()):
            target = self._revision_folder(folder.name, publication.revision)
            target.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(target)
            reach(f"move {folder.name}")
        write_text_atomically(self._main, publication.revision + "\n")
        reach("name it in main")
        return self._deployment(publication)

    def restore(self, target: Publication, publication: Publication) -> Deployment:
        with self.staging(publication.revision) as staged:
            for repository in target.repositories:
                name = repository.split("/")[1]
                _link(self._revision_folder(name, target.revision), staged / name)
                reach(f"link {name}")
            return self.commit(staged, publication)

    def preview(self, staged: Path, publication: Publication) -> list[Change]:
        changes = []
        for repository in publication.repositories:
            folder = staged / repository.split("/")[1]
            written = {p.relative_to(folder).as_posix(): p.stat().st_size for p in _files(folder)}
            changes.append(Change(repository, written, removed=[], unchanged=0))
        return changes

    def collect(self, keep: int, dry_run: bool) -> Garbage:
        if not self._home.is_dir():
            return Garbage([], 0)
        with exclusive(self._home):
            kept = self.history()[:keep]
            wanted = {self._deployed_revision(), *(p.revision for p in kept), *(p.restores for p in kept)}
            revisions = [p for p in sorted(self._home.glob("revisions/*")) if p.name not in wanted]
            left = [p for p in sorted(self._home.glob("staging/*")) if p.name != self._deployed_revision()]
            doomed = [path for p in (*revisions, *left) for path in (p, *self._namespace.glob(f"*/revisions/{p.name}"))]
            garbage = Garbage([p.name for p in (*revisions, *left)], _freed({*doomed}))
            if not dry_run:
                self._remove_unfinished()
                (self._home / "staging").mkdir(exist_ok=True)
                for folder in revisions:
                    folder.rename(self._home / "staging" / folder.name)
                    reach(f"retire {folder.name}")
                self._remove_unfinished()
        return garbage

    def recover(self) -> None:
        if self._home.is_dir():
            with exclusive(self._home):
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

    def _is_finished(self, revision: str) -> bool:
        """Whether a revision was deployed once: staging holds it until then, and again when it is to be removed."""
        return self._record(revision).is_file() and not (self._home / "staging" / revision).exists()

    def _deployment(self, publication: Publication) -> Deployment:
        return deployment(publication, lambda name: self._revision_folder(name, publication.revision))

    def _record(self, revision: str) -> Path:
        return self._revision_folder(self._name, revision) / PUBLICATION_NAME

    def _revision_folder(self, name: str, revision: str) -> Path:
        return self._namespace / name / "revisions" / revision

    def _remove_unfinished(self) -> None:
        """Removes staged folders, with what was already moved to its place if `main` never came to name it."""
        for temporary in self._home.glob(f".{self._main.name}.*"):
            temporary.unlink()
        for staged in self._home.glob("staging/*"):
            if staged.name != self._deployed_revision():
                for folder in self._namespace.glob(f"*/revisions/{staged.name}"):
                    shutil.rmtree(folder)
                    reach(f"remove {folder.parent.parent.name}/{staged.name}")
            shutil.rmtree(staged)
            reach(f"remove staging/{staged.name}")


def _link(source: Path, target: Path) -> None:
    """A folder with the same files, which takes no further space; the record is the revision's own and stays away."""
    shutil.copytree(source, target, copy_function=os.link, ignore=shutil.ignore_patterns(PUBLICATION_NAME))


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def _freed(folders: set[Path]) -> int:
    """Bytes that removing the folders frees: files that another revision links to as well free none."""
    links: dict[int, list[os.stat_result]] = {}
    for folder in folders:
        for path in _files(folder):
            found = path.stat()
            links.setdefault(found.st_ino, []).append(found)
    return sum(found[0].st_size for found in links.values() if len(found) == found[0].st_nlink)
