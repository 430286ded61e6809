"""One answer on its way from the child to the client. A streamed token is one call of `data`."""

from __future__ import annotations

import asyncio
import json

from app.errors import RequestError, UpstreamError
from app.gateway.http.heads import Headers
from app.gateway.http.request import Request
from app.machine import clock
from app.telemetry.samples import Ends, Several, Whole

HOP_BY_HOP = {
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
}
# The child gets none of these: callers' keys; what would have it answer compressed or across
# origins; and x-conversation-id, with which it goes on generating for a client that has left.
REQUEST_ONLY_OURS = HOP_BY_HOP | {
    b"accept-encoding",
    b"authorization",
    b"content-encoding",
    b"content-length",
    b"cookie",
    b"expect",
    b"host",
    b"origin",
    b"x-api-key",
    b"x-conversation-id",
}
RESPONSE_ONLY_OURS = HOP_BY_HOP | {b"content-length", b"date", b"server"}
EVENT_STREAM = b"text/event-stream"
ONE = Several()


def request_headers(headers: Headers) -> Headers:
    """Those of a client's headers that the child gets."""
    dropped = REQUEST_ONLY_OURS | connection_options(headers)
    return [header for header in headers if header[0] not in dropped]


def response_headers(headers: Headers) -> Headers:
    """Those of a child's headers that the client gets."""
    dropped = RESPONSE_ONLY_OURS | connection_options(headers)
    return [
        header
        for header in headers
        if header[0] not in dropped and not header[0].startswith(b"access-control-")
    ]


def connection_options(headers: Headers) -> set[bytes]:
    """The headers that `Connection` names: none of them is passed on (RFC 9110, 7.6.1)."""
    named = b",".join(value for name, value in headers if name == b"connection")
    return {option.strip().lower() for option in named.split(b",") if option.strip()}


class Relay:
    """The sink of an exchange (`engine.exchange`): writes to the client what the child sends."""

    def __init__(self, request: Request, several: Several = ONE) -> None:
        """`several`: the answers that the request wants, which are counted one by one."""
        self.status = 0
        self.first_token: float | None = None  # when a stream began
        self.leased_at: float | None = None  # when the request got its model
        self.ends = Whole(several) if several else Ends()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pinged = False  # the client has its head already
        self._request = request
        self._events = False
        self._whole = False  # the answer comes whole, and goes to the client as one event
        self._pieces: list[bytes] = []

    def ping(self, comment: bytes) -> bool:
        """Send a comment, so that no proxy gives the stream up. False once the answer has begun."""
        if self.status or self._request.finished:
            return False
        if not self._request.started:
            head = [(b"content-type", EVENT_STREAM), (b"x-accel-buffering", b"no")]
            self._request.start(200, [*head, (b"cache-control", b"no-cache")])
            self.pinged = True
        self._request.write(comment)
        return True

    def refuse(self, error: RequestError) -> None:
        """Send an error as an event: after a ping the client has status 200 already."""
        self._request.keep_alive = False
        self._request.write(b"data: %b\n\n" % json.dumps(error.body()).encode())
        self._request.finish()

    def head(self, status: int, headers: Headers) -> None:
        self.status = status
        kind = next((v for n, v in headers if n == b"content-type"), b"")
        self._events = kind.startswith(EVENT_STREAM)
        if self.pinged:
            self._whole = not self._events
            return
        kept = response_headers(headers)
        length = next((int(v) for n, v in headers if n == b"content-length"), None)
        if self._events and not any(name == b"x-accel-buffering" for name, _ in kept):
            kept.append((b"x-accel-buffering", b"no"))  # or nginx would hold the events back
        self._request.start(status, kept, length)

    def data(self, chunk: bytes) -> None:
        if self._events and self.first_token is None:
            self.first_token = clock.now()
        self.ends.feed(chunk)
        if self._whole:
            self._pieces.append(chunk)
        else:
            self._request.write(chunk)

    def complete(self) -> None:
        if self._whole:
            told = b"".join(self._pieces).replace(b"\r", b"").replace(b"\n", b" ")
            self._request.keep_alive = False
            self._request.write(b"data: %b\n\n" % told)
        self._request.finish()
        if not self.done.done():
            self.done.set_result(None)

    def failed(self, error: UpstreamError) -> None:
        """The child broke off: tell the client in the stream, or break off, too."""
        if not self._request.started:
            if not self.done.done():
                self.done.set_exception(error)
            return
        self.status = 502
        if self._events or self.pinged:  # comments were sent, so events may follow
            refusal = RequestError(502, str(error))
            self._request.keep_alive = False
            self._request.write(b"\n\ndata: %b\n\n" % json.dumps(refusal.body()).encode())
            self._request.finish()
        else:
            self._request.abort()
        if not self.done.done():
            self.done.set_result(None)
