"""The wire of the hub on loopback: the hub's own server, and the one that stores large files."""

import base64
import json
import time
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from support.hub import SIGNATURE, Commit, Fault, Hub, Repository, blob_id, is_large, pointer, sha256


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[Hub]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @classmethod
    def of(cls, hub: Hub) -> type["_Handler"]:
        return type(cls.__name__, (cls,), {"hub": hub})

    def answer(self, path: str, body: bytes) -> None:
        """Carries a request out."""
        raise NotImplementedError

    def _handle(self) -> None:
        body = self._body()
        address = urlsplit(self.path)
        request = f"{self.command} {unquote(address.path)}"
        with self.hub.lock:
            self.hub.requests.append(request)
            self.fault = self.hub.next_fault(request) or Fault("slow", times=0)
            self.hub.on_request(request)
        if self.fault.kind == "drop":
            self.close_connection = True
        elif self.fault.kind == "5xx":
            self.send_json(503, {"error": "Service Unavailable"})
        else:
            time.sleep(self.fault.seconds)
            with self.hub.lock:
                self.answer(unquote(address.path), body)

    do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def send_json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        if self.fault.kind == "lose":
            self.close_connection = True
            return
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault.kind == "cut":
            body, self.close_connection = body[: len(body) // 2], True
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class StorageHandler(_Handler):
    """Takes and gives large files to whoever has a signed address; a token has no business here."""

    def answer(self, path: str, body: bytes) -> None:
        if urlsplit(self.path).query != SIGNATURE or "Authorization" in self.headers:
            return self.send_json(403, {"error": "AccessDenied"})
        _, kind, oid, *number = path.split("/")
        if self.command == "PUT":
            if kind == "parts":
                self.hub.parts.setdefault(oid, {})[int(number[0])] = body
            elif sha256(body) != oid:
                return self.send_json(400, {"error": "BadDigest"})
            else:
                self.hub.objects[oid] = body
            return self.send(200, b"", {"ETag": f'"{sha256(body)[:32]}"'})
        if oid not in self.hub.objects:
            return self.send_json(404, {"error": "NoSuchKey"})
        whole = self.hub.objects[oid]
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        headers = {"Content-Range": f"bytes {start}-{len(whole) - 1}/{len(whole)}"} if "Range" in self.headers else {}
        return self.send(206 if headers else 200, whole[start:], headers)


class HubHandler(_Handler):
    """Repositories, their commits, and where large files go."""

    def answer(self, path: str, body: bytes) -> None:
        is_open = path == "/api/validate-yaml" or "/paths-info/" in path or path.endswith("/objects/complete")
        if self.command == "POST" and not is_open and not self._is_authorized():
            return self.send_json(401, {"error": "Invalid username or password."})
        if path == "/api/validate-yaml":
            return self.send_json(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if "/resolve/" in path:
            return self._resolve(path)
        if ".git/info/lfs/" in path:
            return self._large_files(path, json.loads(body))
        _, _, kind, owner, name, *rest = path.split("/", 5)
        repository = self._repository(f"{owner}/{name}", kind.removesuffix("s"))
        if repository is None:
            return None
        action, _, revision = (rest or ["revision/main"])[0].partition("/")
        if action == "refs":
            tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": c} for n, c in repository.tags.items()]
            main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.head.id}
            return self.send_json(200, {"branches": [main], "converts": [], "tags": tags})
        commit = repository.at(revision)
        if commit is None:
            return self.send_json(404, {"error": "Revision Not Found"}, {"X-Error-Code": "RevisionNotFound"})
        return getattr(self, f"_{action.replace('-', '_')}")(repository, commit, body)

    def _is_authorized(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def _repository(self, name: str, kind: str) -> Repository | None:
        found = self.hub.repositories.get(name)
        authorized = self._is_authorized()
        if found and found.type == kind and (authorized or not found.private):
            return found
        error = "Repository not found" if authorized else "Invalid username or password."
        self.send_json(404 if authorized else 401, {"error": error}, {"X-Error-Code": "RepoNotFound"})
        return None

    def _create(self, request: dict[str, Any]) -> None:
        name = f"{request['organization']}/{request['name']}"
        known = name in self.hub.repositories
        if not known:
            self.hub.create(name, request.get("type", "model"), request.get("visibility") == "private")
        self.send_json(409 if known else 200, {"url": f"{self.hub.endpoint}/{name}"})

    def _revision(self, repository: Repository, commit: Commit, _: bytes) -> None:
        siblings = [{"rfilename": path} for path in commit.files]
        self.send_json(200, {"id": repository.id, "sha": commit.id, "siblings": siblings})

    def _tree(self, _: Repository, commit: Commit, __: bytes) -> None:
        self.send_json(200, [_entry(path, body) for path, body in sorted(commit.files.items())])

    def _paths_info(self, _: Repository, commit: Commit, body: bytes) -> None:
        paths = parse_qs(body.decode())["paths"]
        self.send_json(200, [_entry(path, commit.files[path]) for path in paths if path in commit.files])

    def _commits(self, repository: Repository, _: Commit, __: bytes) -> None:
        self.send_json(
            200,
            [
                {"id": c.id, "title": c.title, "message": c.message, "authors": [], "date": "2026-01-01T00:00:00.000Z"}
                for c in reversed(repository.commits)
            ],
        )

    def _tag(self, repository: Repository, commit: Commit, body: bytes) -> None:
        tag = json.loads(body)["tag"]
        if tag in repository.tags:
            return self.send_json(409, {"error": "Tag reference exists already"})
        repository.tags[tag] = commit.id
        return self.send_json(200, {})

    def _preupload(self, _: Repository, commit: Commit, body: bytes) -> None:
        files = []
        for path in (file["path"] for file in json.loads(body)["files"]):
            answer = {"path": path, "uploadMode": "lfs" if is_large(path) else "regular", "shouldIgnore": False}
            if known := commit.files.get(path):
                answer["oid"] = sha256(known) if is_large(path) else blob_id(path, known)
            files.append(answer)
        self.send_json(200, {"files": files})

    def _commit(self, repository: Repository, head: Commit, body: bytes) -> None:
        lines = [json.loads(line) for line in body.splitlines()]
        header, files = lines[0]["value"], dict(head.files)
        if header.get("parentCommit", head.id) != head.id:
            error = "A commit has happened since. Please refresh and try again."
            return self.send_json(412, {"error": error})
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile" and value["oid"] in self.hub.objects:
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile" and value["path"] in files:
                del files[value["path"]]
            else:
                return self.send_json(400, {"error": f"cannot do {line['key']} {value['path']}"})
        commit = repository.push(files, header["summary"], header["description"])
        url = f"{self.hub.endpoint}/{repository.id}/commit/{commit.id}"
        return self.send_json(200, {"commitUrl": url, "commitOid": commit.id, "hookOutput": ""})

    def _large_files(self, path: str, request: dict[str, Any]) -> None:
        """Where to send large files, whether one arrived, and the end of one that came in parts."""
        action = path.rpartition("/")[2]
        if action == "batch":
            objects = [self._upload(path.partition(".git/")[0], **wanted) for wanted in request["objects"]]
            return self.send_json(200, {"transfer": "basic", "objects": objects})
        if action == "complete":
            parts = self.hub.parts.pop(request["oid"])
            self.hub.objects[request["oid"]] = b"".join(parts[part["partNumber"]] for part in request["parts"])
        arrived = self.hub.objects.get(request["oid"], b"")
        if sha256(arrived) != request["oid"]:
            return self.send_json(404, {"error": "the file did not arrive"})
        return self.send_json(200, {})

    def _upload(self, repository: str, oid: str, size: int) -> dict[str, Any]:
        if oid in self.hub.objects:
            return {"oid": oid, "size": size}
        here = f"{self.hub.endpoint}{repository}.git/info/lfs/objects"
        upload: dict[str, Any] = {"href": f"{self.hub.storage}/objects/{oid}?{SIGNATURE}"}
        part = self.hub.part_bytes
        if part is not None and size > part:
            addresses = {
                f"{number:05}": f"{self.hub.storage}/parts/{oid}/{number}?{SIGNATURE}"
                for number in range(1, -(-size // part) + 1)
            }
            upload = {"href": f"{here}/complete", "header": {"chunk_size": str(part), **addresses}}
        return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": {"href": f"{here}/verify"}}}

    def _resolve(self, path: str) -> None:
        where, _, rest = path.partition("/resolve/")
        kind = "dataset" if where.startswith("/datasets/") else "model"
        repository = self._repository(where.removeprefix("/datasets").strip("/"), kind)
        if repository is None:
            return None
        revision, _, file = rest.partition("/")
        commit = repository.at(revision)
        if commit is None:
            return self.send_json(404, {"error": "Revision Not Found"}, {"X-Error-Code": "RevisionNotFound"})
        body, headers = commit.files.get(file), {"X-Repo-Commit": commit.id}
        if body is None:
            return self.send_json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", **headers})
        if not is_large(file):
            return self.send(200, body, {"ETag": f'"{blob_id(file, body)}"', **headers})
        headers |= {"X-Linked-Etag": f'"{sha256(body)}"', "X-Linked-Size": str(len(body))}
        return self.send(302, b"", {"Location": f"{self.hub.storage}/objects/{sha256(body)}?{SIGNATURE}", **headers})


def _entry(path: str, body: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(body), "oid": blob_id(path, body)}
    if is_large(path):
        entry["lfs"] = {"oid": sha256(body), "size": len(body), "pointerSize": len(pointer(body))}
    return entry
