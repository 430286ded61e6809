"""What a caller says of itself: the headers `project` and `session`, which the metering of
clearml-agent 4 adds to requests. Nobody checks them, and llama-server gets neither. Pure."""

from __future__ import annotations

from app.gateway.http.heads import Headers

PROJECT, SESSION = b"project", b"session"
LONGEST = 64  # characters


def label(headers: Headers, name: bytes) -> str:
    """ "" where there is none, or more than one."""
    values = [value for header, value in headers if header == name]
    text = values[0].decode("utf-8", "replace").strip() if len(values) == 1 else ""
    return text[:LONGEST] if text.isprintable() else ""
