"""What clients need in a stream of events that llama-server leaves out. Pure.

Format of a stream: WHATWG HTML, 9.2; llama-server ends its lines with a bare line feed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from app.engine.passage import NULL

EVENT_END = b"\n\n"
RESPONSE_EVENT = re.compile(
    rb'event: response\.(?P<name>[a-z_.]+)\ndata: (?P<data>)\{"type":"[a-z_.]+",'
)
FIRST = (b"created", b"in_progress")
COMPLETED, INCOMPLETE = b"completed", "response.incomplete"
OF_ITEM = re.compile(rb"output_item|content_part|output_text|reasoning|function_call|refusal")
OF_CONTENT = re.compile(rb"content_part|output_text|reasoning_text|refusal")
ITEM = re.compile(rb'"(item_)?id":"(?P<id>[^"]*)"')
PLACE, DELTA = b'"output_index":', b'"delta":'
ERROR = b"event: error\ndata: "
MOST_HEADS = 256  # that are remembered; every item of an answer has a few
LAST = (b"data: [DONE]", b'data: {"type":"message_stop"}')  # after which clients leave
STOP = b'"stop":true'  # in the last event of an answer in llama-server's own format
LAST_OF_RESPONSE = (b"completed", b"incomplete", b"failed")
NATIVE = ("/completion", "/completions", "/infill")
LONGEST = 16 << 20  # bytes that are held back for an event to become whole


class Plain:
    """A stream that is passed on as it is. `named`: its errors are events with a name."""

    named = False
    over = True  # the rest of the stream need not be fed
    heeds: bytes | None = b""  # chunks without it need not be fed; None: all must be
    holds = False  # an answer that is no stream goes through `whole`
    limit: int | None = None  # the most tokens that the answer may have

    def feed(self, chunk: bytes) -> bytes:
        """What may be sent by now."""
        return chunk

    def ended(self, tail: bytes) -> bool:
        """Whether the last event is there, whatever is still to come of a body with this end."""
        return tail.rstrip().endswith(LAST)

    def rest(self) -> bytes:
        """What was held back."""
        return b""

    def whole(self, body: bytes) -> bytes:
        """What is told in the place of an answer that is no stream."""
        return body

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
    heeds = ERROR

    def feed(self, chunk: bytes) -> bytes:
        before, mark, told = chunk.rpartition(ERROR)
        if not mark:
            return chunk
        try:
            error = json.loads(told)
            return chunk if "error" in error else before + self.error({"error": error})
        except (ValueError, TypeError, RecursionError):
            return chunk


class OfPrompts(Plain):
    """A stream of answers to a list of prompts. For each of them llama-server sends an event that
    has nothing, at which OpenAI's SDK fails: it is not passed on."""

    over = False
    heeds = None

    def __init__(self) -> None:
        self._held = b""  # which may be an event that has nothing, or the end of one
        self._begins = True  # what comes is the beginning of an event

    def feed(self, chunk: bytes) -> bytes:
        *events, rest = (self._held + chunk).split(EVENT_END)
        told = []
        for event in events:
            if event != NULL or not self._begins:
                told.append(event + EVENT_END)
            self._begins = True
        self._held = self._undecided(rest)
        rest = rest[: len(rest) - len(self._held)]
        self._begins = self._begins and not rest
        return b"".join(told) + rest

    def _undecided(self, rest: bytes) -> bytes:
        """What of an event's beginning may yet be one that has nothing, or its end."""
        if self._begins and (NULL + EVENT_END).startswith(rest):
            return rest
        return EVENT_END[:1] if rest.endswith(EVENT_END[:1]) else b""

    def rest(self) -> bytes:
        """Nothing of the beginning of an event that has nothing: of no use to anybody."""
        rest, self._held = self._held, b""
        return b"" if self._begins else rest


class Native(OfPrompts):
    """A stream in llama-server's own format, of so many answers: each has a last event, and there
    is none for all of them. Inside a JSON string quotes are escaped."""

    def __init__(self, answers: int) -> None:
        super().__init__()
        self._open = answers
        self._before = b""  # which may be the beginning of STOP

    def feed(self, chunk: bytes) -> bytes:
        text = self._before + chunk
        self._open -= text.count(STOP)
        self._before = text[1 - len(STOP) :]
        return super().feed(chunk)

    def ended(self, tail: bytes) -> bool:
        return self._open <= 0


class Responses(Plain):
    """A stream of /v1/responses, fed with pieces that may end anywhere. Its first events lack parts
    of the response, and those of its items lack their places, without which OpenAI's SDK and
    others cannot read it. An event is told once it is whole: nobody can read it before. An answer
    that ended at its limit is `completed` for llama-server, and `incomplete` for OpenAI."""

    over = False
    heeds = None
    holds = True

    def __init__(self, model: str, created_at: int) -> None:
        self._missing = {"created_at": created_at, "model": model, "output": []}
        self._ended = False
        self._left = bytearray()
        self._places: dict[bytes, int] = {}  # of the items, by id
        self._heads: dict[bytes, bytes] = {}  # what stands before a delta, and what is told instead

    def feed(self, chunk: bytes) -> bytes:
        if not self._left and 0 < chunk.find(EVENT_END) == len(chunk) - len(EVENT_END):
            return self._filled(chunk)  # one event, as mostly
        begin = max(0, len(self._left) - 1)  # the end of an event may be split
        self._left += chunk
        end = self._left.rfind(EVENT_END, begin)
        if end < 0:
            self.over = len(self._left) > LONGEST
            return self.rest() if self.over else b""
        whole, self._left = bytes(self._left[:end]), self._left[end + len(EVENT_END) :]
        return b"".join([self._filled(e) + EVENT_END for e in whole.split(EVENT_END)])

    def rest(self) -> bytes:
        left, self._left = bytes(self._left), bytearray()
        return left

    def _filled(self, event: bytes) -> bytes:
        head, delta, rest = event.partition(DELTA)
        known = self._heads.get(head) if delta else None
        if known is not None:
            return known + delta + rest
        found = RESPONSE_EVENT.match(event)
        if found is None:
            return event
        self._ended = self._ended or found["name"] in LAST_OF_RESPONSE
        if found["name"] == COMPLETED:
            return self._completed(event, found.start("data"))
        if found["name"] in FIRST:
            begin, end = found.start("data"), len(event.rstrip(b"\n"))
            return event[:begin] + self._opened(event[begin:end]) + event[end:]
        told = self._placed(event, found)
        if delta and ITEM.search(head) and len(self._heads) < MOST_HEADS:
            self._heads[head] = told.partition(DELTA)[0]
        return told

    def ended(self, tail: bytes) -> bool:
        return self._ended

    def whole(self, body: bytes) -> bytes:
        response = _object(body)
        return _json(cut_off(response)) if self._cut(response) else body

    def _completed(self, event: bytes, begin: int) -> bytes:
        told = _object(event[begin:])
        response = told.get("response")
        if not isinstance(response, dict) or not self._cut(response):
            return event
        told = {**told, "type": INCOMPLETE, "response": cut_off(response)}
        # As llama-server writes it: a door reads it, too.
        data = json.dumps(told, separators=(",", ":")).encode()
        ends = event[len(event.rstrip(b"\n")) :]
        return b"event: %b\ndata: %b%b" % (INCOMPLETE.encode(), data, ends)

    def _cut(self, response: Mapping[str, Any]) -> bool:
        usage = response.get("usage")
        used = usage.get("output_tokens") if isinstance(usage, dict) else None
        return self.limit is not None and isinstance(used, int) and used >= self.limit

    def _opened(self, data: bytes) -> bytes:
        try:
            told = json.loads(data)
            told["response"] = self._missing | told["response"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return data
        return _json(told)

    def _placed(self, event: bytes, found: re.Match[bytes]) -> bytes:
        """Bytes are put in, and nothing is parsed: inside a JSON string quotes are escaped."""
        item = ITEM.search(event, found.end())
        if item is None or not OF_ITEM.match(found["name"]) or PLACE in event:
            return event
        place = self._places.setdefault(item["id"], len(self._places))
        told = PLACE + b"%d," % place
        if OF_CONTENT.match(found["name"]):
            told += b'"content_index":0,'
        return event[: found.end()] + told + event[found.end() :]


def cut_off(response: Mapping[str, Any]) -> dict[str, Any]:
    """A response that ended at its limit, as OpenAI tells it."""
    output = response.get("output")
    items = output if isinstance(output, list) else []
    # Only the last item was cut off.
    told = [
        *items[:-1],
        *({**i, "status": "incomplete"} for i in items[-1:] if isinstance(i, dict)),
    ]
    reason = {"reason": "max_output_tokens"}
    return {**response, "status": "incomplete", "incomplete_details": reason, "output": told}


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def stream_of(path: str, model: str, created_at: int, answers: int = 1) -> Plain:
    """For so many answers to a request for `path` of llama-server."""
    path = path.partition("?")[0]
    if path in NATIVE:
        return Native(answers)
    known = path.removeprefix("/v1")
    if known == "/responses":
        return Responses(model, created_at)
    if known == "/completions" and answers > 1:
        return OfPrompts()
    return Messages() if known == "/messages" else Plain()


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
