"""A hub on loopback, which huggingface_hub talks to as it is: repositories, large files on a storage server, faults."""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from typing import Literal

LARGE = (".gguf", ".safetensors")
"""Ends of the names of files that are kept as large ones."""
SIGNATURE = "signature=0123456789abcdef"
"""Ends every address of the storage server."""
HUBS_OWN = {".gitattributes": b"*.gguf filter=lfs diff=lfs merge=lfs -text\n"}

FaultKind = Literal["5xx", "drop", "lose", "slow", "cut"]


@dataclass
class Fault:
    """What goes wrong with requests whose "METHOD /path" a pattern is found in.

    5xx: answered with 503; drop: the connection ends unanswered; lose: the request is carried out, its answer is not
    sent; slow: answered after `seconds`; cut: half of the body is sent, then the connection ends.
    """

    kind: FaultKind
    pattern: str = ""
    times: float = 1
    seconds: float = 0.0


@dataclass
class Commit:
    id: str
    title: str
    message: str
    files: dict[str, bytes]


@dataclass
class Repository:
    """A model or data set: commits of main, oldest first."""

    id: str
    type: str = "model"
    private: bool = False
    commits: list[Commit] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    @property
    def files(self) -> dict[str, bytes]:
        """Of the newest commit, without what the hub itself puts there."""
        return {path: body for path, body in self.head.files.items() if path not in HUBS_OWN}

    def push(self, files: Mapping[str, bytes], title: str = "Push", message: str = "") -> Commit:
        number = f"{self.id} {len(self.commits)} {sorted(files.items())}"
        commit = Commit(hashlib.sha1(number.encode()).hexdigest(), title, message, dict(files))
        self.commits.append(commit)
        return commit

    def at(self, revision: str) -> Commit | None:
        wanted = self.tags.get(revision, self.head.id if revision == "main" else revision)
        return next((commit for commit in self.commits if commit.id == wanted), None)


@dataclass
class Hub:
    """What the hub holds, what it was asked, and what goes wrong with it."""

    token: str
    """The one that may write, and read what is private."""
    endpoint: str = ""
    storage: str = ""
    """Address of the server that large files are sent to and fetched from."""
    part_bytes: int | None = None
    """Large files above this size are sent in parts."""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """Large files by SHA-256."""
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    """ "METHOD /path" of each, in order, the storage server's among them."""
    faults: list[Fault] = field(default_factory=list)
    on_request: Callable[[str], None] = lambda _: None
    """Called with each request before it is carried out."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def create(self, name: str, kind: str = "model", private: bool = False) -> Repository:
        repository = self.repositories[name] = Repository(name, kind, private)
        repository.push(HUBS_OWN, "initial commit")
        return repository

    def next_fault(self, request: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.pattern, request):
                fault.times -= 1
                return fault
        return None

    def asked(self, pattern: str) -> list[str]:
        return [request for request in self.requests if re.search(pattern, request)]


@contextmanager
def serve_hub(token: str = "hf_secret") -> Iterator[Hub]:
    from support.hub_http import HubHandler, StorageHandler

    hub = Hub(token)
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler.of(hub)) for handler in (HubHandler, StorageHandler)]
    hub.endpoint, hub.storage = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def is_large(path: str) -> bool:
    return path.endswith(LARGE)


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def blob_id(path: str, body: bytes) -> str:
    """What git calls a file: of a large one, its pointer."""
    text = pointer(body) if is_large(path) else body
    return hashlib.sha1(b"blob %d\0" % len(text) + text).hexdigest()


def pointer(body: bytes) -> bytes:
    """What git keeps of a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256(body)}\nsize {len(body)}\n".encode()
