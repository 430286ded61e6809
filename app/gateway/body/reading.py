"""What a request's body says: its fields, the model that it names. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from app.errors import RequestError
from app.gateway.body.strict import parse, repair
from app.telemetry.samples import Several, several

BOUNDARY = re.compile(rb'^multipart/form-data;.*\bboundary=(?:"([^"]+)"|([^\s;]+))', re.I)
NAMED_MODEL = re.compile(
    rb'^content-disposition: *form-data;[^\r\n]*\bname="?model"?(?:;|\r|$)', re.I | re.M
)
MOST_PARTS = 64  # of a form that are searched for the model
LONGEST_HEAD = 4096  # bytes of a part's head


@dataclass(frozen=True)
class Body:
    """A request's body. `raw`: its bytes; None if it is passed on as it arrives. `fields`: all of a
    JSON object, or just the model of a form."""

    raw: bytes | None
    fields: Mapping[str, object] = field(default_factory=dict)
    is_json: bool = True

    @property
    def streams(self) -> bool:
        """The client wants the answer as a stream of events."""
        return self.fields.get("stream") is True

    @property
    def several(self) -> Several:
        return several(self.fields)


UNREAD = Body(None, is_json=False)


def read_json(raw: bytes) -> Body:
    """Raises RequestError 400."""
    raw = repair(raw)
    return Body(raw, parse(raw))


def parse_form(kind: bytes | None, raw: bytes) -> dict[str, object]:
    """The field `model` of a form in parts (RFC 7578), if it has one; `kind` is the body's content
    type. Raises RequestError 400."""
    boundary = BOUNDARY.search(kind or b"")
    if boundary is None:
        raise RequestError(400, "the body is not multipart/form-data with a boundary")
    line = b"--" + (boundary[1] or boundary[2])
    for part in raw.split(line, MOST_PARTS)[1:]:
        head, blank, value = part.partition(b"\r\n\r\n")
        if blank and NAMED_MODEL.search(head[:LONGEST_HEAD]):
            return {"model": value.removesuffix(b"\r\n").decode(errors="replace")}
    return {}
