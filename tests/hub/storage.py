"""A server of files by ranges, as the storage behind the hub is: and everything that goes wrong."""

import contextlib
import re
import threading
import time
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlparse

from tests.threaded import ThreadedServer

SPAN = re.compile(r"bytes=(\d+)-(\d*)")


class Storage(ThreadedServer):
    """`with Storage({"/m.gguf": bytes}) as storage`.

    `troubles` befall the next requests, one each: ("status", code, headers), ("cut", bytes),
    ("redirect", url), ("hang" or "slow head", an event that ends it), ("trickle",), ("etag", text).
    `ranges` off: every answer is the whole file. `cut`: each answer breaks off after so many bytes.
    `asked` are (path, first byte, has a token), `sent` the bytes of bodies that were sent. `pause`:
    seconds for each 64 KiB.
    """

    def __init__(self, files):
        self.files = files
        self.troubles, self.asked, self.sent = [], [], 0
        self.ranges, self.cut, self.pause, self.etag = True, None, 0.0, '"1"'
        self.lock = threading.Lock()

    def handler(self):
        return type("Bound", (Handler,), {"storage": self})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    storage = None

    def log_message(self, *_):
        pass

    def do_GET(self):
        storage, path = self.storage, unquote(urlparse(self.path).path)
        span = SPAN.fullmatch(self.headers.get("Range", "bytes=0-"))
        with storage.lock:
            storage.asked.append((self.path, int(span[1]), bool(self.headers.get("Authorization"))))
            kind, *of = storage.troubles.pop(0) if storage.troubles else ("", None)
        if kind == "status":
            return self._head(of[0], {"Content-Length": "0", **of[1]})
        if kind == "redirect":
            return self._head(302, {"Content-Length": "0", "Location": of[0]})
        if kind == "hang":
            of[0].wait(100)
        if kind == "slow head":
            return self._slow_head(of[0])
        data = storage.files.get(path)
        if data is None:
            return self._head(404, {"Content-Length": "0"})
        etag = of[0] if kind == "etag" else storage.etag
        cut = of[0] if kind == "cut" else storage.cut
        self._file(data, span, etag, cut, trickle=kind == "trickle")

    def do_HEAD(self):
        """As S3 is asked for an object."""
        data = self.storage.files.get(unquote(urlparse(self.path).path))
        if data is None:
            return self._head(404, {"Content-Length": "0"})
        told = {"ETag": '"1"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
        self._head(200, {"Content-Length": str(len(data)), **told})

    def _head(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _slow_head(self, released):
        """A byte now and then, and no end."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.write(b"HTTP/1.1 206 Partial Content\r\nX: ")
            while not released.wait(0.05):
                self.wfile.write(b"x")

    def _trickle(self, body):
        self.close_connection = True
        with contextlib.suppress(OSError):
            for at in range(2000):
                self.wfile.write(body[at : at + 1])
                time.sleep(0.01)

    def _file(self, data, span, etag, cut, trickle):
        start, end, status = 0, len(data), 200
        headers = {"ETag": etag} if etag else {}
        if self.storage.ranges:
            start, end, status = int(span[1]), min(int(span[2] or end - 1) + 1, end), 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        self._head(status, {**headers, "Content-Length": str(end - start)})
        body = data[start:end] if cut is None else data[start:end][:cut]
        if trickle:
            return self._trickle(body)
        for at in range(0, len(body), 65536):
            with self.storage.lock:  # before whoever reads it can look
                self.storage.sent += len(body[at : at + 65536])
            self.wfile.write(body[at : at + 65536])
            time.sleep(self.storage.pause)
        if len(body) < end - start:
            self.close_connection = True
