"""An error that llama-server answers, in OpenAI's shape. Pure.

Most have it already. Its HTTP library answers what it cannot read with no body at all, and an
exception that nothing caught with plain text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http import HTTPStatus

from app.errors import RequestError
from app.form.fields import FIELDS

PHRASES = {status.value: status.phrase for status in HTTPStatus}
# What llama-server says to all requests at work when its KV cache is full, and when a batch of them
# failed otherwise: it clears their slots.
FULL = b"Context size has been exceeded"
FAILED = (b"Invalid input batch", b"Compute error")
TOO_LONG = "exceed_context_size_error"  # llama-server's type of it, and OpenAI's code
CONTEXT_LENGTH = "context_length_exceeded"
LARGEST = 256 * 1024  # bytes of an error that are looked at
LONGEST_SHOWN = 2000  # characters of a text
OPTION = re.compile(r"--[a-z][a-z-]+")
OF_OPTIONS = {
    option: field.key
    for field in FIELDS
    for spellings in (field.flag, *field.on, *field.off)
    for option in spellings
}
UNREADABLE = (
    "llama-server refused the request and gave no reason: it does so with a form or an Accept "
    "header that it cannot read"
)


def overflowed(body: bytes) -> bool:
    """Whether an answer, or the end of a stream, says that the KV cache was full. In a model's own
    words a quote is escaped."""
    return b'"message":"%b' % FULL in body


def failed_together(body: bytes) -> bool:
    """Whether all requests at work were failed for a fault of one of them, or of the machine."""
    return any(b'"message":"%b' % message in body for message in FAILED)


def shaped(status: int, body: bytes, *, named: bool = False) -> bytes:
    """The body as it is if it has the shape, else one that says the same in it. `named`: in
    Anthropic's shape, which has a `type` beside the error."""
    told = _shaped(status, body)
    return json.dumps({"type": "error", **json.loads(told)}).encode() if named else told


def message_of(status: int, body: bytes) -> str:
    return str(json.loads(_shaped(status, body))["error"]["message"])


def _shaped(status: int, body: bytes) -> bytes:
    error = _error_in(body)
    message = error.get("message")
    if error.get("type") == TOO_LONG and isinstance(message, str):
        return _told(RequestError(status, message, code=CONTEXT_LENGTH))
    if not isinstance(message, str):
        return _told(RequestError(status, _message(status, body)))
    if not isinstance(error.get("type"), str):
        return _told(RequestError(status, message))
    told = in_our_words(message)
    return body if told == message else json.dumps({"error": {**error, "message": told}}).encode()


def in_our_words(message: str) -> str:
    """Where it names an option of llama-server, the field of the form that sets it as well."""
    keys = [OF_OPTIONS[each] for each in OPTION.findall(message) if each in OF_OPTIONS]
    return f"{message} (here that is the field {keys[0]})" if keys else message


def _told(error: RequestError) -> bytes:
    return json.dumps(error.body()).encode()


def _error_in(body: bytes) -> Mapping[str, object]:
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return error if isinstance(error, dict) else {"message": error}


def _message(status: int, body: bytes) -> str:
    text = body.decode(errors="replace").strip()
    if text:
        cut = text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
        return f"llama-server answered: {cut}"
    if status == HTTPStatus.BAD_REQUEST:
        return UNREADABLE
    return f"llama-server answered {status} ({PHRASES.get(status, 'unknown')}) and gave no reason"
