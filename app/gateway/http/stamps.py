"""What the head of every answer says: the phrase of its status, and the date."""

from __future__ import annotations

from email.utils import formatdate
from functools import cache
from http import HTTPStatus

from app.machine import clock


@cache
def phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Unknown"


_dated = (0, b"")


def date() -> bytes:
    """The Date header's value, made once a second."""
    global _dated
    second = int(clock.wall())
    if _dated[0] != second:
        _dated = (second, formatdate(second, usegmt=True).encode())
    return _dated[1]
