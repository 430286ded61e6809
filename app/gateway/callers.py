"""Who sends a request that names no caller by its key. Pure."""

from __future__ import annotations

from app.gateway.http.heads import Headers
from app.gateway.http.households import household
from app.gateway.labels import SESSION, label
from app.memory.caller import Caller


def unnamed(headers: Headers, address: str) -> Caller:
    """By the label `session`, which tells callers behind one gateway apart, or else by the address
    that the request came from, IPv6 by its /64."""
    session = label(headers, SESSION)
    return Caller("session", session) if session else Caller("address", household(address))
