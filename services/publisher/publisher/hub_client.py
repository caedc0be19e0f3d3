"""The Hugging Face Hub through its own client, with a bound on every wait and errors that say what to do."""

import json
import logging
import random
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    constants,
    get_token,
    set_client_factory,
)
from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils._http import default_client_factory
from huggingface_hub.utils.sha import git_hash
from huggingface_hub.utils.tqdm import disable_progress_bars
from pydantic import SecretStr

from publisher.config import HubConfig
from publisher.registry import RegistryUnreachableError, RevisionConflictError
from qmd_schema.artifacts import sha256_file
from qmd_schema.errors import UserError

Operation = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete
Answer = TypeVar("Answer")

_FAILURES = (HfHubHTTPError, httpx2.HTTPError, OSError, ValueError, RuntimeError)
"""What huggingface_hub raises: an answer that is an error, none at all, one that cannot be read, a failed upload."""
_PASSING_STATUSES = {408, 425, 429, 500, 502, 503, 504}
_CONFLICT = 412
_SIGNATURE = re.compile(r"(https?://[^\s?]+)\?\S+")
"""An address with what comes behind its `?`, which may give the right to write."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubRepository:
    id: str
    """`<namespace>/<name>`."""
    type: Literal["model", "dataset"]

    @property
    def name(self) -> str:
        return self.id.split("/")[1]


class HubError(UserError):
    """The Hub refused a request."""


class _PartialError(OSError):
    """Files that did not arrive whole."""


class HubClient:
    """What a registry asks of the Hub. Every call raises HubError, or RegistryUnreachableError after all attempts."""

    def __init__(self, config: HubConfig) -> None:
        self._config = config
        token = _read_token(config)
        self._token = SecretStr(token) if token else None
        self._api = HfApi(endpoint=config.endpoint, token=token or False, library_name="qmd-foundry")
        set_client_factory(self._http_client)
        if not sys.stderr.isatty():
            disable_progress_bars()
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # it tells every address, signatures and all
        logging.getLogger("huggingface_hub.utils._http").addFilter(_without_signatures)

    def head(self, repository: HubRepository) -> str | None:
        """The newest commit of main, None where the repository does not exist."""

        def ask() -> str | None:
            try:
                return self._api.repo_info(repository.id, repo_type=repository.type, revision="main").sha
            except RepositoryNotFoundError as error:
                if error.response.status_code == 404:
                    return None
                raise

        return self._ask(repository.id, ask)

    def commits(self, repository: HubRepository) -> list[str]:
        """Commits of main, newest first."""
        commits = self._ask(
            repository.id, lambda: self._api.list_repo_commits(repository.id, repo_type=repository.type)
        )
        return [commit.commit_id for commit in commits]

    def tree(self, repository: HubRepository, commit: str) -> dict[str, RepoFile]:
        """Every file of a commit, by path."""

        def ask() -> dict[str, RepoFile]:
            entries = self._api.list_repo_tree(
                repository.id, recursive=True, revision=commit, repo_type=repository.type
            )
            return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

        return self._ask(repository.id, ask)

    def read(self, repository: HubRepository, commit: str, path: str) -> bytes | None:
        """A small file of a commit, kept in the cache folder; None where the commit lacks it."""

        def ask() -> bytes | None:
            try:
                return Path(
                    self._api.hf_hub_download(
                        repository.id,
                        path,
                        repo_type=repository.type,
                        revision=commit,
                        cache_dir=self._config.cache / "records",
                        etag_timeout=self._config.answer_seconds,
                    )
                ).read_bytes()
            except RemoteEntryNotFoundError:
                return None

        return self._ask(f"{repository.id}/{path}", ask)

    def download(self, repository: HubRepository, commit: str, folder: Path) -> None:
        """Fetches every file of a commit into a folder; what an earlier attempt left there is not fetched again."""
        files = self.tree(repository, commit)

        def ask() -> None:
            self._api.snapshot_download(
                repository.id,
                repo_type=repository.type,
                revision=commit,
                local_dir=folder,
                cache_dir=self._config.cache / "records",
                etag_timeout=self._config.answer_seconds,
            )
            # Where the Hub does not answer, the library takes what is in the folder for all there is.
            bad = [path for path, remote in files.items() if not is_same(folder / path, remote)]
            for path in bad:
                (folder / path).unlink(missing_ok=True)
            if bad:
                raise _PartialError(f"{', '.join(bad)} did not arrive whole")

        self._ask(repository.id, ask)

    def create(self, repository: HubRepository) -> str:
        """The newest commit of main; makes the repository first where there is none."""
        self._require_token()
        if head := self.head(repository):
            return head
        self._ask(
            repository.id,
            lambda: self._api.create_repo(
                repository.id, repo_type=repository.type, private=self._config.private, exist_ok=True
            ),
        )
        if head := self.head(repository):
            return head
        raise HubError(f"{repository.id}: made on the Hub, but it has no commit. Add a file to it there.")

    def commit(self, repository: HubRepository, operations: Sequence[Operation], message: str, parent: str) -> str:
        """Adds one commit to main and returns it. Raises RevisionConflictError unless `parent` is the newest one.

        message: a title and, after an empty line, what more there is to say.
        """
        self._require_token()
        title, _, description = message.partition("\n\n")

        def ask() -> str | None:
            try:
                return self._api.create_commit(
                    repository.id,
                    operations,
                    commit_message=title,
                    commit_description=description,
                    repo_type=repository.type,
                    parent_commit=parent,
                ).oid
            except HfHubHTTPError as error:
                if error.response.status_code == _CONFLICT:
                    return None
                raise

        commit = self._ask(repository.id, ask)
        if commit is None:
            raise RevisionConflictError(
                f"{repository.id}: someone else pushed to it meanwhile. Compare the model with what is deployed now, "
                "then publish again."
            )
        return commit

    def tags(self, repository: HubRepository) -> set[str]:
        refs = self._ask(repository.id, lambda: self._api.list_repo_refs(repository.id, repo_type=repository.type))
        return {tag.name for tag in refs.tags}

    def tag(self, repository: HubRepository, tag: str, commit: str) -> None:
        self._require_token()
        self._ask(
            repository.id,
            lambda: self._api.create_tag(
                repository.id, tag=tag, revision=commit, repo_type=repository.type, exist_ok=True
            ),
        )

    def _http_client(self) -> httpx2.Client:
        """The library's own client, with a bound where it would wait without end: its own calls ask for that."""

        def bound(request: httpx2.Request) -> None:
            waits = request.extensions.get("timeout", {})
            request.extensions["timeout"] = {
                kind: self._config.answer_seconds if waits.get(kind) is None else waits[kind]
                for kind in ("connect", "read", "write", "pool")
            }

        client = default_client_factory()
        client.event_hooks["request"].append(bound)
        return client

    def _require_token(self) -> None:
        if self._token is None:
            raise HubError("no token for the Hugging Face Hub: set HF_TOKEN, or hub.token_file in publisher.yaml.")

    def _ask(self, what: str, call: Callable[[], Answer]) -> Answer:
        """The answer of a call that may be made again, after a failure that may pass."""
        for attempt in range(1, self._config.attempts + 1):
            try:
                return call()
            except _FAILURES as error:
                reason = self._describe(error)
                if not _may_pass(error):
                    offline = " HF_HUB_OFFLINE is set; unset it." if constants.HF_HUB_OFFLINE else ""
                    raise HubError(f"{what}: {reason}.{offline} Check the name and the token's rights.") from None
                if attempt == self._config.attempts:
                    raise RegistryUnreachableError(
                        f"{what}: no answer from {self._api.endpoint} in {attempt} attempts: {reason}. "
                        "Try again later; what was done is recognised then."
                    ) from None
                wait = random.uniform(0.5, 1) * min(2 ** (attempt - 1), self._config.longest_wait_seconds)
                logger.warning("%s: %s; attempt %d follows in %.1f s", what, reason, attempt + 1, wait)
                time.sleep(wait)
        raise AssertionError("attempts is at least 1")

    def _describe(self, error: BaseException) -> str:
        """What went wrong on one line, without token and signatures."""
        parts: list[str] = []
        for part in _chain(error):
            text = str(part).partition("For more information")[0].strip() or type(part).__name__
            parts += [text] if not any(text in told for told in parts) else []
        text = _SIGNATURE.sub(r"\1", " ".join(": ".join(parts).split()))
        return (text.replace(self._token.get_secret_value(), "…") if self._token else text).rstrip(".")


def is_same(path: Path, remote: RepoFile | None) -> bool:
    """Whether a file on this machine is the one of a commit."""
    if remote is None or not path.is_file() or path.stat().st_size != remote.size:
        return False
    if remote.lfs is not None:
        return sha256_file(path) == remote.lfs.sha256
    return git_hash(path.read_bytes()) == remote.blob_id


def _read_token(config: HubConfig) -> str | None:
    """The token of the config's file, else HF_TOKEN's or that of `hf auth login`. Raises UserError for a bad file."""
    if config.token_file is None:
        return get_token()
    if not config.token_file.is_file():
        raise UserError(f"{config.token_file}: no such file (hub.token_file). Write it, or set HF_TOKEN.")
    token = config.token_file.read_text(encoding="utf-8").strip()
    if not token or len(token.split()) > 1:
        raise UserError(f"{config.token_file}: wants one token and nothing else (hub.token_file).")
    return token


def _without_signatures(record: logging.LogRecord) -> bool:
    record.msg, record.args = _SIGNATURE.sub(r"\1", record.getMessage()), ()
    return True


def _may_pass(error: BaseException) -> bool:
    """Whether the same request may well succeed later."""
    return any(
        isinstance(part, httpx2.TimeoutException | httpx2.NetworkError | httpx2.RemoteProtocolError | _PartialError)
        or (isinstance(part, HfHubHTTPError) and part.response.status_code in _PASSING_STATUSES)
        or isinstance(part, json.JSONDecodeError)  # a proxy's page where the Hub answers in JSON
        for part in _chain(error)
    )


def _chain(error: BaseException) -> list[BaseException]:
    """An error and what it was raised from."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    return chain
