"""Bytes into requests: httptools (llhttp) parses them, and the limits of a head are kept here.

llhttp refuses CL+TE, duplicate CL, obs-fold, bare LF, NUL and bad chunk sizes; heads.py makes the
checks that llhttp does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import httptools

from app.errors import RequestError
from app.gateway.http.heads import Headers, check_head, without_upgrade
from app.gateway.http.limits import Limits
from app.gateway.http.request import Request, Wire
from app.machine import clock

RTSP = re.compile(rb"RTSP/")
EXTRA_OF_CHUNK = 64  # bytes beside a chunk's own: its size, its line ends, a short extension


class Reader:
    """The requests of one connection, as their bytes arrive."""

    def __init__(
        self, limits: Limits, wire: Wire, take: Callable[[Request], RequestError | None]
    ) -> None:
        """`take` is given each request once its head is whole; it may refuse it."""
        self.began = False  # a first message
        self.in_head = False
        self.since = 0.0  # when the newest message began
        self.receiving: Request | None = None  # whose body is arriving
        self.refused: RequestError | None = None
        self._limits = limits
        self._wire = wire
        self._take = take
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: Headers = []
        self._messages = 0  # begun so far
        self._head_fed = 0  # bytes of the head under way that have certainly arrived
        self._most = 0  # bytes that it can have at most
        self._line = b""  # its request line, as far as it has come
        self._extra_left = 0  # bytes that may still be beside the chunks' own
        self._trailers_left = 0  # bytes of trailers that may still come

    def feed(self, data: bytes) -> None:
        if self.receiving is not None:
            self._feed_body(data, self.receiving)
            return
        fresh, messages = not self.in_head, self._messages
        self._feed_head(data)
        if self.in_head:
            if self._messages == messages:
                self._head_fed += len(data)
            elif fresh and self._messages == messages + 1:
                self._head_fed = len(data)
            self._check_size()

    def _feed_body(self, data: bytes, request: Request) -> None:
        before, length = request.size, request.length
        if length is None or before + len(data) > length:
            self._feed_head(data)  # the next one may begin in it
        else:
            self._parse(data)
        if self.receiving is request:
            # What is not the body's own: sizes of chunks, their extensions, trailers.
            self._extra_left -= len(data) - (request.size - before)
            if self._extra_left < 0:
                self._refuse_extra()
            self._extra_left = min(self._extra_left, self._limits.chunk_extra)

    def _feed_head(self, data: bytes) -> None:
        self._most = self._most + len(data) if self.in_head else len(data)
        if b"RTSP/" in data or (self._line and b"RTSP/" in self._line[-4:] + data[:4]):
            self._parse_beside_rtsp(data)
        else:
            self._parse(data)
        self._line = _last_line(self._line, data) if self.in_head and not self._headers else b""

    def _parse_beside_rtsp(self, data: bytes) -> None:
        """llhttp takes a request of RTSP for one of HTTP, and does not tell. So stop after each
        place where the word is, and see whether the request line has come so far."""
        tail, done = self._line[-4:], 0
        for found in RTSP.finditer(tail + data):
            end = found.end() - len(tail)
            self._parse(data[done:end])
            done = end
            if self.in_head and not self._headers and self.refused is None:
                self._refuse_rtsp(_last_line(self._line, data[:end]).split())
        self._parse(data[done:])

    def _refuse_rtsp(self, words: list[bytes]) -> None:
        """`words` end with "RTSP/"; a body may have stood before the method."""
        method = self._parser.get_method()
        if words[-2:-1] == [self._target] and words[-3:-2] and words[-3].endswith(method):
            self._refuse(400, "the instance speaks HTTP, not RTSP")

    def end(self) -> None:
        """Nothing is fed any more. The parser and the connection refer to this object, so it gives
        them up: no cycle is left for the garbage collector."""
        self.receiving = None
        del self._parser, self._wire, self._take

    def refuse(self, error: RequestError) -> None:
        """Read no further, and say why; the first reason counts."""
        self.refused = self.refused or error

    def _refuse(self, status: int, message: str) -> None:
        self.refuse(RequestError(status, message))

    def _refuse_extra(self) -> None:
        self._refuse(431, "the chunks' extensions, or the trailers, are too large")

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # Java's client and `curl --http2` ask for HTTP/2 with an ordinary request. A server may
            # ignore that (RFC 9110, 7.8), but llhttp does not: so it reads the request once more,
            # without these headers.
            if self.refused is None:
                self._parse(self._plain_head() + data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(400, f"the request is not valid HTTP: {error}")

    def _plain_head(self) -> bytes:
        """The head once more, without the wish to upgrade; a new parser waits for it."""
        parser = self._parser
        self._parser = httptools.HttpRequestParser(self)
        return without_upgrade(
            parser.get_method(),
            self._target,
            parser.get_http_version(),
            self._headers,
            keep_alive=parser.should_keep_alive(),
        )

    def _check_size(self) -> None:
        limits, headers = self._limits, self._headers
        if len(headers) > limits.headers:
            self._refuse(431, f"the request has more than {limits.headers} headers")
        if self._most < min(limits.target, limits.head):
            return  # each part of so small a head is small enough
        parsed = len(self._target) + sum(len(name) + len(value) for name, value in headers)
        if len(self._target) > limits.target:
            self._refuse(414, f"the request's target is longer than {limits.target} bytes")
        elif max(parsed, self._head_fed) > limits.head:
            self._refuse(431, f"the request's head is larger than {limits.head} bytes")

    # httptools

    def on_message_begin(self) -> None:
        self._target, self._headers = b"", []
        self._head_fed = 0
        self._messages += 1
        self.began = self.in_head = True
        self.since = clock.now()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:
            self._headers.append((name.lower(), value))
            return
        # A trailer, of which none is known to be safe to merge (RFC 9110, 6.5.1). They are counted
        # here as well, for the last bytes of a body may come with all of them.
        self._trailers_left -= len(name) + len(value)
        if self._trailers_left < 0:
            self._refuse_extra()

    def on_headers_complete(self) -> None:
        self.in_head = False
        if self.refused is not None:
            return
        parser, target = self._parser, self._target
        method, version = parser.get_method(), parser.get_http_version()
        self._check_size()
        self.refused = self.refused or check_head(method, target, version, self._headers)
        # One that asks to upgrade is read once more, without the wish.
        if self.refused is None and not parser.should_upgrade():
            request = Request(self._wire, method.decode(), target.decode("latin-1"), self._headers)
            request.version = version
            request.keep_alive = parser.should_keep_alive()
            self._begin(request)

    def _begin(self, request: Request) -> None:
        self.refused = self._take(request)
        if self.refused is None:
            self.receiving = request
            self._extra_left = self._trailers_left = self._limits.chunk_extra

    def on_chunk_header(self) -> None:
        self._extra_left += EXTRA_OF_CHUNK

    def on_body(self, body: bytes) -> None:
        if self.receiving is not None:
            self.receiving.feed(body)

    def on_message_complete(self) -> None:
        if self.receiving is not None and self.refused is None:  # else it fails
            self.receiving.feed_end()
            self.receiving = None


def _last_line(before: bytes, data: bytes) -> bytes:
    start = data.rfind(b"\n") + 1
    return data[start:] if start else before + data
