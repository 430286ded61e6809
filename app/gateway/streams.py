"""What clients need in a stream of events that llama-server leaves out. Pure.

Format of a stream: WHATWG HTML, 9.2; llama-server ends its lines with a bare line feed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

EVENT_END = b"\n\n"
FIRST = re.compile(rb"event: response\.(created|in_progress)\ndata: (?P<data>.*)\n\n")
ERROR = b"event: error\ndata: "
LONGEST = 64 * 1024  # bytes that are held back for an event to become whole


class Plain:
    """A stream that is passed on as it is. `named`: its errors are events with a name."""

    named = False
    over = True  # the rest of the stream need not be fed

    def feed(self, chunk: bytes) -> bytes:
        """What may be sent by now."""
        return chunk

    def rest(self) -> bytes:
        """What was held back."""
        return b""

    def error(self, body: Mapping[str, object]) -> bytes:
        """The event of an error that ends the stream."""
        if self.named:
            return ERROR + _json({"type": "error", **body}) + EVENT_END
        return b"data: " + _json(body) + EVENT_END


class Messages(Plain):
    """A stream of /v1/messages. Anthropic's clients know an error by the event's name and by the
    data's `type`; llama-server gives the error itself as the data."""

    named = True
    over = False

    def feed(self, chunk: bytes) -> bytes:
        before, mark, told = chunk.rpartition(ERROR)
        if not mark:
            return chunk
        try:
            error = json.loads(told)
            return chunk if "error" in error else before + self.error({"error": error})
        except (ValueError, TypeError, RecursionError):
            return chunk


class Opening(Plain):
    """The first events of a stream of /v1/responses: `response.created` and `response.in_progress`
    lack parts of the response that OpenAI's SDK and others read at once. Fed with pieces of the
    stream, which may end anywhere."""

    over = False

    def __init__(self, model: str, created_at: int) -> None:
        self._missing = {"created_at": created_at, "model": model, "output": []}
        self._left = b""

    def feed(self, chunk: bytes) -> bytes:
        told, self._left = b"", self._left + chunk
        while not self.over and EVENT_END in self._left:
            event, end, self._left = self._left.partition(EVENT_END)
            told += self._filled(event + end)
        if self.over or len(self._left) > LONGEST:
            self.over = True
            told += self.rest()
        return told

    def rest(self) -> bytes:
        left, self._left = self._left, b""
        return left

    def _filled(self, event: bytes) -> bytes:
        if event.startswith(b":"):
            return event  # a comment
        found = FIRST.fullmatch(event)
        if found is None:
            self.over = True
            return event
        try:
            data = json.loads(found["data"])
            data["response"] = self._missing | data["response"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return event
        return event[: found.start("data")] + _json(data) + EVENT_END


def stream_of(path: str, model: str, created_at: int) -> Plain:
    """For an answer to a request for `path` of llama-server."""
    known = path.partition("?")[0].removeprefix("/v1")
    if known == "/responses":
        return Opening(model, created_at)
    return Messages() if known == "/messages" else Plain()


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
