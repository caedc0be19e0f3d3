"""A hub on loopback that speaks as much of the Hugging Face Hub's HTTP as small dataset repositories need."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """What the hub holds, and what it was asked."""

    token: str
    """The one that may write."""
    endpoint: str = ""
    repositories: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)
    """Repository -> its revisions, oldest first, each with all its files."""
    messages: list[str] = field(default_factory=list)
    """Of the commits, in order."""

    def revision(self, repository: str) -> str:
        return hashlib.sha1(f"{repository} {len(self.repositories[repository])}".encode()).hexdigest()


@contextmanager
def serve_hub(token: str = "hf_secret") -> Iterator[Hub]:
    hub = Hub(token)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        if path == "/api/validate-yaml":
            return self._json(200, {"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self._json(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        repository, action = self._split(path)
        if action == "preupload/main":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._json(200, {"files": files})
        if action == "commit/main":
            return self._commit(repository, [json.loads(line) for line in body.splitlines()])
        return self._json(404, {"error": f"no such action: {path}"})

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/datasets/"):
            return self._resolve(path)
        repository, action = self._split(path)
        if repository not in self.hub.repositories:
            return self._json(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if action.startswith("revision/"):
            return self._json(200, {"id": repository, "sha": self.hub.revision(repository), "siblings": []})
        if action.startswith("tree/"):
            return self._json(200, [_entry(path, body) for path, body in self.hub.repositories[repository][-1].items()])
        return self._json(404, {"error": f"no such action: {path}"})

    do_HEAD = do_GET  # noqa: N815

    def _create(self, request: dict[str, Any]) -> None:
        repository = f"{request['organization']}/{request['name']}"
        known = repository in self.hub.repositories
        self.hub.repositories.setdefault(repository, [])
        self._json(409 if known else 200, {"url": f"{self.hub.endpoint}/datasets/{repository}"})

    def _commit(self, repository: str, lines: list[dict[str, Any]]) -> None:
        revisions = self.hub.repositories[repository]
        files = dict(revisions[-1]) if revisions else {}
        for line in lines:
            if line["key"] == "header":
                self.hub.messages.append(line["value"]["summary"])
            elif line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        revisions.append(files)
        revision = self.hub.revision(repository)
        url = f"{self.hub.endpoint}/datasets/{repository}/commit/{revision}"
        self._json(200, {"commitUrl": url, "commitOid": revision, "hookOutput": ""})

    def _resolve(self, path: str) -> None:
        owner, name, _, revision, file = path.removeprefix("/datasets/").split("/", 4)
        body = self.hub.repositories[f"{owner}/{name}"][-1].get(file)
        if body is None:
            return self._json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        etag = hashlib.sha1(body).hexdigest()
        return self._send(200, body, "application/octet-stream", {"X-Repo-Commit": revision, "ETag": f'"{etag}"'})

    def _split(self, path: str) -> tuple[str, str]:
        """("acme/data", "tree/main") of /api/datasets/acme/data/tree/main."""
        owner, name, action = path.removeprefix("/api/datasets/").split("/", 2)
        return f"{owner}/{name}", action

    def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), "application/json", headers or {})

    def _send(self, status: int, body: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def _entry(path: str, body: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
