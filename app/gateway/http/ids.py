"""The name of a request, by which a client and the logs mean the same one."""

from __future__ import annotations

import re

from app.machine import chance

HEADER = b"x-request-id"
KEPT = re.compile(rb"[A-Za-z0-9._:@/+=-]{1,128}")
RANDOM = 12  # bytes of a name of ours


def request_id(given: bytes | None) -> bytes:
    """The client's own if it has only characters that are safe anywhere, else a new one."""
    if given is not None and KEPT.fullmatch(given):
        return given
    return b"req-" + chance.name(RANDOM).encode()
