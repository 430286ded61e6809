import hashlib
import json
import re
import time
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlparse

from tests.threaded import ThreadedServer

RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
INFO = re.compile(r"/api/models/([^/]+/[^/]+)/revision/([^/]+)")


def commit_of(key):
    return hashlib.sha1(key.encode()).hexdigest()


class Hub(ThreadedServer):
    """`with Hub({"org/repo": {"m.gguf": bytes}}) as hub`; another revision is "org/repo@v1".

    `private` maps a repository to the token it wants; `cut` breaks every download off after so
    many bytes; `pause` holds each 64 KiB back by so many seconds. `requests` are (method, path,
    has a token); `sent` the bytes of bodies that were sent. `claimed` are sizes that a HEAD tells
    instead of the true ones. Downloads are redirected to a `storage`, if there is one, whose ETags
    are its own. `told` replaces headers of files, absent ones included. Who has a
    token of a private repository is somebody.
    """

    def __init__(self, repositories, private=None):
        self.repositories, self.private = repositories, private or {}
        self.cut, self.pause, self.requests, self.claimed = None, 0.0, [], {}
        self.sent = 0
        self.storage = None
        self.told = {}

    def handler(self):
        return type("Bound", (Handler,), {"hub": self})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub = None

    def log_message(self, *_):
        pass

    def _handle(self):
        path = unquote(urlparse(self.path).path)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.hub.requests.append((self.command, path, bool(token)))
        if path == "/api/models":
            self._send(200, b"[]", {"Content-Type": "application/json"})
            return
        if path == "/api/whoami-v2":
            known = token in self.hub.private.values()
            body = b'{"name":"somebody","type":"user"}' if known else b'{"error":"Invalid"}'
            self._send(200 if known else 401, body, {"Content-Type": "application/json"})
            return
        info, file = INFO.match(path), RESOLVE.match(path)
        repository = (info or file)[1] if info or file else None
        revision = (info or file)[2] if repository else ""
        key = next((k for k in self.hub.repositories if commit_of(k) == revision), None)
        key = key or (repository if revision == "main" else f"{repository}@{revision}")
        known = repository in self.hub.repositories
        files = self.hub.repositories.get(key)
        wanted = self.hub.private.get(repository)
        if not known or (wanted and token != wanted):
            gated = known and token
            code, what = (403, "GatedRepo") if gated else (401, "RepoNotFound")
            self._send(code, b"", {"X-Error-Code": what, "X-Error-Message": what})
        elif files is None:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif info:
            told = {"id": repository, "siblings": [{"rfilename": path} for path in files]}
            self._send(200, json.dumps(told).encode(), {"Content-Type": "application/json"})
        elif file[3] not in files:
            absent = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit_of(key)}
            self._send(404, b"", absent | self.hub.told)
        else:
            self._send_file(files[file[3]], commit_of(key), self.hub.claimed.get(file[3]))

    do_GET = do_HEAD = _handle

    def _send_file(self, data, commit, claimed):
        headers = {
            "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Repo-Commit": commit,
            "Accept-Ranges": "bytes",
        }
        code, start, end = 200, 0, len(data)
        if claimed and self.command == "HEAD":
            headers["X-Linked-Size"] = str(claimed)
        storage, digest = self.hub.storage, hashlib.sha256(data).hexdigest()
        if storage is not None:
            storage.files[f"/{digest}"] = data
            linked = {"X-Linked-Etag": headers.pop("ETag"), "X-Linked-Size": str(len(data))}
            location = {"Location": f"{storage.url}/{digest}?signature=s3cr3t"}
            return self._send(302, b"", {**headers, **linked, **location})
        headers |= self.hub.told
        span = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span:
            code, start, end = 206, int(span[1]), int(span[2] or end - 1) + 1
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        self._send(code, data[start:end], headers, cut=self.hub.cut)

    def _send(self, code, body, headers, cut=None):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        sent = body if cut is None else body[:cut]
        for start in range(0, len(sent), 65536):
            self.wfile.write(sent[start : start + 65536])
            self.hub.sent += len(sent[start : start + 65536])
            time.sleep(self.hub.pause)
        if cut is not None:
            self.close_connection = True
