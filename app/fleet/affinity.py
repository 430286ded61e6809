"""By what a conversation is known again: how it begins, up to its first message of a user. Pure.

The turns of a conversation share their first messages, and so do requests with the same system
prompt and question. What stands before and after them in a body does not matter.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence

LOOKED_AT = 256 << 10  # bytes of a body
MESSAGES = 4  # at most: one of a user comes early
TEXT = 1 << 10  # characters of a prompt that is no list of messages
BEGINNING = re.compile(r'"(?:messages|input|prompt|contents?)"\s*:\s*(?P<what>["\[])')
DECODER = json.JSONDecoder()
SEPARATOR = re.compile(r"\s*,?\s*")


def conversation(pieces: Sequence[bytes]) -> int:
    """A number that the turns of one conversation have in common."""
    text = _begin(pieces).decode("utf-8", "replace")
    found = BEGINNING.search(text)
    if found is None:
        return zlib.crc32(text[:TEXT].encode())
    at = found.end()
    if found["what"] == '"':
        return zlib.crc32(text[at : at + TEXT].encode())
    return zlib.crc32(_first_messages(text, at).encode())


def _begin(pieces: Sequence[bytes]) -> bytes:
    if len(pieces) == 1:
        return pieces[0][:LOOKED_AT]
    taken, size = [], 0
    for piece in pieces:
        taken.append(piece)
        size += len(piece)
        if size >= LOOKED_AT:
            break
    return b"".join(taken)[:LOOKED_AT]


def _first_messages(text: str, start: int) -> str:
    """The text of the messages up to the first one of a user, as it stands there."""
    at = start
    for _ in range(MESSAGES):
        at = SEPARATOR.match(text, at).end()  # type: ignore[union-attr]
        try:
            message, at = DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            return text[start : start + TEXT]  # longer than what is looked at, or no JSON
        if not isinstance(message, dict) or message.get("role") == "user":
            break
    return text[start:at]
