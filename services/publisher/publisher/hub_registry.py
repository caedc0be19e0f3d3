"""The registry on the Hugging Face Hub: a repository each for model, GGUF files, adapters and data.

The Hub makes one commit to one repository at a time, so one of them is the switch. All others are brought to their new
content first, by one commit each, which nothing names yet. Then one commit to the model's repository brings the model
together with publication.json, which names the exact commits of the others: readers find those through it, never
through their `main`, so that one commit makes the whole revision visible. A tag with the verdict's id marks it last.

Every commit names the commit it was made for as its parent, so whoever pushes in between wins and the publication ends
with RevisionConflictError. What a killed publication already pushed is recognised by its content and not pushed again.
History stays: a rollback is a new commit with old content, copied on the Hub itself.
"""

import itertools
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub.hf_api import RepoFile

from publisher.config import HubConfig
from publisher.crash_points import reach
from publisher.hub_cache import HubCache, remove
from publisher.hub_client import HubClient, HubRepository, Operation, is_same
from publisher.registry import (
    PUBLICATION_NAME,
    Change,
    Deployment,
    Garbage,
    Publication,
    Registry,
    RevisionConflictError,
    conflict,
    deployment,
)
from publisher.staging import exclusive, seal
from qmd_schema.errors import ArtifactError

_KEPT_BY_THE_HUB = "The Hub keeps every revision; only files cached on this machine are removed."
_HUBS_OWN = ".gitattributes"

logger = logging.getLogger(__name__)


class HubRegistry(Registry):
    def __init__(self, config: HubConfig, repository: str, dataset: str) -> None:
        """dataset: the repository, among those of a publication, that holds data."""
        self.repository = repository
        self._model = HubRepository(repository, "model")
        self._dataset = dataset
        self._client = HubClient(config)
        self._cache = HubCache(config.cache, self._client)
        self._home = config.cache.absolute() / "work" / self._model.name

    def current(self) -> Publication | None:
        head = self._client.head(self._model)
        return self._record(head) if head else None

    def deployed(self) -> Deployment | None:
        head = self._client.head(self._model)
        publication = self._record(head) if head else None
        return self._deployment(publication, head) if publication and head else None

    def history(self) -> list[Publication]:
        return [publication for _, publication in self._revisions()]

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
        seal(staged)
        reach("seal")
        contents = {repository: _Staged(staged / repository.name) for repository in self._repositories(publication)}
        commits = self._push_all(publication, contents, f"Publish revision {publication.revision[:8]}")
        for repository, commit in commits.items():
            self._cache.adopt(repository, commit, staged / repository.name)
            reach(f"keep {repository.name}")
        return self._deployed_as(publication, commits)

    def restore(self, target: Publication, publication: Publication) -> Deployment:
        [commit] = [commit for commit, known in self._revisions() if known.revision == target.revision]
        sources = {self.repository: commit, **target.commits}
        with self.staging(publication.revision) as staged:
            contents = {}
            for repository in self._repositories(publication):
                tree = self._client.tree(repository, sources[repository.id])
                contents[repository] = _Earlier(tree, sources[repository.id], staged / repository.name)
            title = f"Roll back to revision {target.revision[:8]}: {publication.reason}"
            return self._deployed_as(publication, self._push_all(publication, contents, title))

    def preview(self, staged: Path, publication: Publication) -> list[Change]:
        changes = []
        for repository in self._repositories(publication):
            head = self._client.head(repository)
            remote = self._client.tree(repository, head) if head else {}
            folder = staged / repository.name
            files = {path: folder / path for path in _Staged(folder).paths()}
            written = {path: file.stat().st_size for path, file in files.items() if not is_same(file, remote.get(path))}
            gone = sorted({*remote} - {*files} - {_HUBS_OWN, PUBLICATION_NAME})
            changes.append(Change(repository.id, written, gone, len(files) - len(written)))
        return changes

    def collect(self, keep: int, dry_run: bool) -> Garbage:
        with exclusive(self._home):
            kept = [*itertools.islice(self._revisions(), keep)]
            wanted = {(self._model.name, commit) for commit, _ in kept}
            wanted |= {(self._model.name, head) for head in [self._client.head(self._model)] if head}
            wanted |= {(key.split("/")[1], commit) for _, record in kept for key, commit in record.commits.items()}
            names = {self._model.name, *(name for name, _ in wanted)}
            folders = [folder for folder in self._cache.others(wanted) if folder.parent.name in names]
            folders += sorted(self._home.glob("staging/*"))
            bytes_ = sum(p.lstat().st_size for folder in folders for p in folder.rglob("*") if p.is_file())
            garbage = Garbage([f"{folder.parent.name}/{folder.name}" for folder in folders], bytes_, _KEPT_BY_THE_HUB)
            if not dry_run:
                for folder in folders:
                    remove(folder)
                    reach(f"remove {folder.name}")
        return garbage

    def recover(self) -> None:
        with exclusive(self._home):
            self._remove_unfinished()
            for commit, publication in itertools.islice(self._revisions(), 1):
                self._tag(publication, commit)

    def _revisions(self) -> Iterator[tuple[str, Publication]]:
        """Revisions, newest first, each with the commit that made it visible; later commits may have changed a card."""
        if self._client.head(self._model) is None:
            return
        commits = ((commit, self._record(commit)) for commit in self._client.commits(self._model))
        published = ((commit, publication) for commit, publication in commits if publication)
        for _, same in itertools.groupby(published, lambda found: found[1].revision):
            yield [*same][-1]

    def _record(self, commit: str) -> Publication | None:
        text = self._client.read(self._model, commit, PUBLICATION_NAME)
        return Publication.model_validate_json(text) if text else None

    def _repositories(self, publication: Publication) -> list[HubRepository]:
        """The repositories of a publication, the model's last."""
        others = [name for name in publication.repositories if name != self.repository]
        return [*(HubRepository(name, "dataset" if name == self._dataset else "model") for name in others), self._model]

    def _push_all(
        self, publication: Publication, contents: Mapping[HubRepository, "_Content"], title: str
    ) -> dict[HubRepository, str]:
        """Makes a publication visible. Returns the commit of each repository."""
        heads = {repository: self._client.create(repository) for repository in contents}
        reach("find repositories")
        deployed = self._record(heads[self._model])
        if (deployed.revision if deployed else None) != publication.parent:
            raise conflict(publication, deployed.revision if deployed else None)
        message = f"{title}\n\nVerdict {publication.verdict_id}."
        commits: dict[HubRepository, str] = {}
        for repository, content in contents.items():
            if repository == self._model:
                named = {other.id: commit for other, commit in commits.items()}
                content.record(publication.model_copy(update={"commits": named}))
            commits[repository] = self._push(repository, content, message, heads[repository])
            reach(f"push {repository.name}")
        self._tag(publication, commits[self._model])
        logger.info("pushed %s", ", ".join(f"{repository.id}@{commit}" for repository, commit in commits.items()))
        return commits

    def _push(self, repository: HubRepository, content: "_Content", message: str, head: str) -> str:
        """Brings a repository to hold exactly `content` by one commit onto `head`, or by none where it does already."""
        operations = _operations(content, self._client.tree(repository, head))
        if not operations:
            return head
        try:
            return self._client.commit(repository, operations, message, parent=head)
        except RevisionConflictError:
            newest = self._client.head(repository)
            if newest and not _operations(content, self._client.tree(repository, newest)):
                return newest  # our own commit, whose answer was lost
            raise

    def _tag(self, publication: Publication, commit: str) -> None:
        tag = re.sub(r"[^A-Za-z0-9_-]+", "-", f"verdict-{publication.verdict_id}")
        if tag not in self._client.tags(self._model):
            self._client.tag(self._model, tag, commit)
            reach(f"tag {tag}")

    def _deployed_as(self, publication: Publication, commits: Mapping[HubRepository, str]) -> Deployment:
        named = {repository.id: commit for repository, commit in commits.items()}
        return self._deployment(publication.model_copy(update={"commits": named}), commits[self._model])

    def _deployment(self, publication: Publication, commit: str) -> Deployment:
        """Fetches the model and its GGUF files where they are not on this machine."""

        def folder(name: str) -> Path:
            if name == self._model.name:
                return self._cache.folder(self._model, commit)
            repository = HubRepository(f"{self.repository.split('/')[0]}/{name}", "model")
            if repository.id not in publication.commits:
                raise ArtifactError(
                    f"{self.repository}: its {PUBLICATION_NAME} at commit {commit} names no commit of {repository.id}. "
                    "Publish or roll back again."
                )
            return self._cache.folder(repository, publication.commits[repository.id])

        return deployment(publication, folder)

    def _remove_unfinished(self) -> None:
        for staged in self._home.glob("staging/*"):
            shutil.rmtree(staged)


class _Content(Protocol):
    """What a repository is to hold."""

    def paths(self) -> set[str]: ...

    def is_at(self, path: str, remote: RepoFile | None) -> bool: ...

    def bring(self, path: str) -> Operation: ...

    def record(self, publication: Publication) -> None: ...


class _Staged:
    """The files of a folder on this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def paths(self) -> set[str]:
        return {p.relative_to(self._folder).as_posix() for p in self._folder.rglob("*") if p.is_file()}

    def is_at(self, path: str, remote: RepoFile | None) -> bool:
        return is_same(self._folder / path, remote)

    def bring(self, path: str) -> Operation:
        return CommitOperationAdd(path, self._folder / path)

    def record(self, publication: Publication) -> None:
        self._folder.mkdir(exist_ok=True)
        (self._folder / PUBLICATION_NAME).write_text(publication.model_dump_json(indent=2) + "\n", encoding="utf-8")


class _Earlier:
    """The files of an earlier commit of the same repository, which the Hub copies, and a record of one's own."""

    def __init__(self, tree: Mapping[str, RepoFile], commit: str, folder: Path) -> None:
        self._tree = {path: file for path, file in tree.items() if path not in (_HUBS_OWN, PUBLICATION_NAME)}
        self._commit = commit
        self._own = _Staged(folder)

    def paths(self) -> set[str]:
        return {*self._tree} | self._own.paths()

    def is_at(self, path: str, remote: RepoFile | None) -> bool:
        earlier = self._tree.get(path)
        if earlier is None:
            return self._own.is_at(path, remote)
        return remote is not None and (remote.blob_id, remote.lfs) == (earlier.blob_id, earlier.lfs)

    def bring(self, path: str) -> Operation:
        if path in self._tree:
            return CommitOperationCopy(path, path, src_revision=self._commit)
        return self._own.bring(path)

    def record(self, publication: Publication) -> None:
        self._own.record(publication)


def _operations(content: _Content, remote: Mapping[str, RepoFile]) -> list[Operation]:
    """What brings a repository from its files to the content."""
    paths = content.paths()
    brought = [content.bring(path) for path in sorted(paths) if not content.is_at(path, remote.get(path))]
    return [*brought, *(CommitOperationDelete(path) for path in sorted({*remote} - paths - {_HUBS_OWN}))]
