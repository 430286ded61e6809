"""One answer on its way from the child to the client. Most tokens of a stream pass it by, see
`engine.passage`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from app.engine.passage import END_OF_EVENT, PROGRESS, Passage, early, silent
from app.errors import DeclinedError, EndedError, OverflowedError, RequestError, UpstreamError
from app.gateway.headers import response_headers
from app.gateway.http.heads import Headers
from app.gateway.http.request import JSON, Request
from app.gateway.streams import Plain
from app.gateway.upstream_error import (
    LARGEST,
    failed_together,
    message_of,
    overflowed,
    shaped,
)
from app.machine import clock
from app.telemetry.samples import Ends, Several, Whole

UNAVAILABLE = 503
EVENT_STREAM = b"text/event-stream"
ONE = Several()


class Relay:
    """The sink of an exchange (`engine.exchange`): writes to the client what the child sends."""

    def __init__(
        self,
        request: Request,
        broken: Callable[[UpstreamError], RequestError],
        several: Several = ONE,
        opened: Callable[[], Plain] = Plain,
    ) -> None:
        """`broken`: what a client is told of an answer that breaks off. `several`: the answers
        that the request wants, which are counted one by one. `opened` makes a stream: what becomes
        of the answer if it is one."""
        self.status = 0
        self.first_token: float | None = None  # when a stream began
        self.leased_at: float | None = None  # when the request got its model
        self.woke = 0.0  # seconds before that in which the model came into memory
        self.passage: Passage | None = None
        self._events_told = 0
        self._early = 0  # of these, that told how far the prompt was read
        self.repeatable = False  # the request may be sent again
        self.elsewhere = False  # if the answer is 503, another instance is asked
        self.overflows = 0  # how often the child has failed it because its KV cache was full
        self._several = several
        self.ends = Whole(several) if several else Ends()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.streams: Callable[[], None] = lambda: None  # called when a stream's first event comes
        self.begun: Callable[[], None] = lambda: None  # called when its first token comes
        self.pinged = False  # the client has its head already
        self._request = request
        self._broken = broken
        self._opened = opened
        self.stream = opened()
        self._events = False
        self._headers: Headers = []  # of an answer that is told when it is whole
        self._pieces: list[bytes] = []  # of its body
        self._take: Callable[[bytes], None] = request.write

    def ping(self, comment: bytes) -> bool:
        """Send a comment, so that no proxy gives the stream up. False once the answer is told."""
        if self._request.finished:
            return False
        if self.status:
            return self.untold  # another answer may come yet
        if not self._request.started:
            head = [(b"content-type", EVENT_STREAM), (b"x-accel-buffering", b"no")]
            self._request.start(200, [*head, (b"cache-control", b"no-cache")])
            self.pinged = True
        self._request.write(comment)
        return True

    def refuse(self, error: RequestError) -> None:
        """Send an error as an event: after a ping the client has status 200 already."""
        self._end_with(self.stream.error(error.body()))

    def _end_with(self, event: bytes) -> None:
        self._request.write(event)
        self._request.finish()

    def head(self, status: int, headers: Headers) -> None:
        self.status = status
        kind = next((v for n, v in headers if n == b"content-type"), b"")
        self._events = kind.startswith(EVENT_STREAM)
        if status >= 400 or ((self.pinged or self.stream.holds) and not self._events):
            self._headers, self._take = response_headers(headers), self._keep
            return
        if not self.stream.over and self._events:
            self._take = self._rewrite
        if not self.pinged:
            self._start(headers)

    def _start(self, headers: Headers) -> None:
        kept = response_headers(headers)
        length = next((int(v) for n, v in headers if n == b"content-length"), None)
        if self._take == self._rewrite:
            length = None
        if self._events and not any(name == b"x-accel-buffering" for name, _ in kept):
            kept.append((b"x-accel-buffering", b"no"))  # or nginx would hold the events back
        self._request.start(self.status, kept, length, hold=True)

    def flush(self) -> None:
        self._request.flush()

    def data(self, chunk: bytes) -> None:
        if self._events and not silent(chunk):
            self._events_told += max(1, chunk.count(END_OF_EVENT))
            if self.first_token is None:
                self._begin(chunk)
        self.ends.feed(chunk)
        self._take(chunk)

    def _begin(self, chunk: bytes) -> None:
        self._early += chunk.count(PROGRESS)
        self.streams()
        if not early(chunk):
            self.first_token = clock.now()
            self.begun()
            self._let_pass()

    def _let_pass(self) -> None:
        """Where nothing has to be read or written anew, the rest of the stream passes us by."""
        outlet, heeds = self._request.outlet(), self.stream.heeds
        if heeds is None or outlet is None or self._several or self._take == self._keep:
            return
        self.passage = self.ends.passage = Passage(outlet, heeds)
        outlet.followed_by(self.passage)

    @property
    def pieces(self) -> int:
        """Of a stream: about one for each token."""
        return self._events_told - self._early + (self.passage.pieces if self.passage else 0)

    def _keep(self, chunk: bytes) -> None:
        if self.status < 400 or self.ends.size <= LARGEST:
            self._pieces.append(chunk)

    def _rewrite(self, chunk: bytes) -> None:
        told = self.stream.feed(chunk)
        if told:
            self._request.write(told)
        else:
            self._request.flush()
        if self.stream.over:
            self._take = self._request.write

    def complete(self) -> None:
        if self._take == self._keep:
            self._tell_whole()
        else:
            self._tell_rest()
            self._request.finish()
            self.overflows += self._events and overflowed(self.ends.tail)
        self._ended()

    def limit(self, tokens: int | None) -> None:
        """The most that the answer may have."""
        self.stream.limit = tokens

    @property
    def untold(self) -> bool:
        """The client has nothing of the answer yet, but for the head of a stream and comments."""
        begun = self._request.started and self.status and self._take != self._keep
        return not begun or (self._events and not self._events_told)

    def again(self) -> None:
        """Nothing was told of the answer: another one comes."""
        self.pinged = self._request.started
        self.passage = None
        self.status, self._pieces = 0, []
        limit, self.stream = self.stream.limit, self._opened()
        self.stream.limit = limit
        self.ends = Whole(self._several) if self._several else Ends()
        self.done = asyncio.get_running_loop().create_future()

    def once_more(self) -> bool:
        """Whether another answer may come although this one has failed: only once."""
        self.again()
        may, self.repeatable = self.repeatable, False
        return may

    def _ended(self, error: UpstreamError | None = None) -> None:
        self._take = self._request.write  # no cycle is left for the garbage collector
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)

    def _tell_rest(self) -> None:
        rest = self.stream.rest()
        if rest:
            self._request.write(rest)

    def _tell_whole(self) -> None:
        told = b"".join(self._pieces)
        if self.status >= 500 and self._to_be_repeated(told):
            self._ended(OverflowedError("its KV cache was full"))
            return
        if self.status == UNAVAILABLE and self.elsewhere:
            self._ended(DeclinedError(message_of(self.status, told)))
            return
        if self.status >= 400:
            self.status, told = shaped(self.status, told, named=self.stream.named)
        else:
            told = self.stream.whole(told)
        if not self.pinged:
            kept = [header for header in self._headers if header[0] != JSON[0]]
            self._request.reply(self.status, told, [JSON, *kept])
        elif self.status >= 400:
            self._end_with(self.stream.error(json.loads(told)))
        else:
            self._end_with(b"data: %b\n\n" % told.replace(b"\r", b"").replace(b"\n", b" "))

    def _to_be_repeated(self, told: bytes) -> bool:
        """An overflow is told in our own words where it is not."""
        full = overflowed(told)
        self.overflows += full
        return full or (self.repeatable and failed_together(told))

    def failed(self, error: UpstreamError) -> None:
        """The child broke off: tell the client in the stream, or break off, too. Whoever sent the
        request is told instead where it may be sent again."""
        again = isinstance(error, EndedError) and self.untold and self.repeatable
        if again or not self.status or not self._request.started:
            self._ended(error)
            return
        told = self._broken(error)
        self.status = told.status
        if self._events or self.pinged:  # comments were sent, so events may follow
            self._tell_rest()
            event = self.stream.error(told.body())
            self._end_with(b"\n\n" + event)
        else:
            self._request.abort()
        self._ended()
