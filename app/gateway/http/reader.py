"""Bytes into requests: httptools (llhttp) parses them, and the limits of a head are kept here.

llhttp refuses CL+TE, duplicate CL, obs-fold, bare LF, NUL and bad chunk sizes; heads.py makes the
checks that llhttp does not.
"""

from __future__ import annotations

from collections.abc import Callable

import httptools

from app.errors import RequestError
from app.gateway.http.heads import Headers, check_head, without_upgrade
from app.gateway.http.limits import Limits
from app.gateway.http.request import Request, Wire
from app.machine import clock


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
        self._head_parsed = 0  # bytes of the head under way that the parser has given out
        self._head_fed = 0  # bytes of it that have arrived

    def feed(self, data: bytes) -> None:
        fresh, messages = not self.in_head and self.receiving is None, self._messages
        self._parse(data)
        if self.in_head:
            if not fresh:
                self._head_fed += len(data)
            elif self._messages == messages + 1:
                self._head_fed = len(data)
            self._check_size()

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
            self.refused = self.refused or RequestError(
                400, f"the request is not valid HTTP: {error}"
            )

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
        limits = self._limits
        if len(self._target) > limits.target:
            self.refused = RequestError(
                414, f"the request's target is longer than {limits.target} bytes"
            )
        elif max(self._head_parsed, self._head_fed) > limits.head:
            self.refused = RequestError(
                431, f"the request's head is larger than {limits.head} bytes"
            )
        elif len(self._headers) > limits.headers:
            self.refused = RequestError(431, f"the request has more than {limits.headers} headers")

    # httptools

    def on_message_begin(self) -> None:
        self._target, self._headers = b"", []
        self._head_parsed = self._head_fed = 0
        self._messages += 1
        self.began = self.in_head = True
        self.since = clock.now()

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._head_parsed += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))
        self._head_parsed += len(name) + len(value) + 4
        self._check_size()

    def on_headers_complete(self) -> None:
        self.in_head = False
        if self.refused is not None:
            return
        method = self._parser.get_method()
        version = self._parser.get_http_version()
        refusal = check_head(method, version, self._headers)
        if refusal is None and len(self._target) > self._limits.target:
            refusal = RequestError(
                414, f"the request's target is longer than {self._limits.target} bytes"
            )
        if refusal is not None:
            self.refused = refusal
            return
        if self._parser.should_upgrade():
            return  # it is read once more, without the wish
        request = Request(
            self._wire, method.decode(), self._target.decode("latin-1"), self._headers
        )
        request.version = version
        request.keep_alive = self._parser.should_keep_alive()
        self.refused = self._take(request)
        if self.refused is None:
            self.receiving = request

    def on_body(self, body: bytes) -> None:
        if self.receiving is not None:
            self.receiving.feed(body)

    def on_message_complete(self) -> None:
        if self.receiving is not None:
            self.receiving.feed_end()
            self.receiving = None
