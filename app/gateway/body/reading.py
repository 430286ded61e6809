"""What a request's body says: its fields, the model that it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.gateway.body.form import ModelField, boundary_of
from app.gateway.body.strict import parse, repair
from app.telemetry.samples import Several, several


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


def read_form(kind: bytes | None, raw: bytes) -> Body:
    """A form in parts; `kind` is the body's content type. Raises RequestError 400."""
    form = ModelField(boundary_of(kind))
    form.feed(raw)
    return Body(raw, form.fields(), is_json=False)
