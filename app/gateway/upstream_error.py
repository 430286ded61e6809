"""An error that llama-server answers, in OpenAI's shape. Pure.

Most have it already. Its HTTP library answers what it cannot read with no body at all, and an
exception that nothing caught with plain text. What is wrong with a request llama-server answers
with 500 in places, which clients send again and operators look into: then it is 400 here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http import HTTPStatus

from app.engine.resolved import EXTRA
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
# Of a text to embed, which llama-server reads in one step.
TOO_LARGE = re.compile(r"input \((\d+) tokens\) is too large to process\D+(\d+)")
# What it throws as it reads a body, otherwise than as `std::invalid_argument` (llama.cpp's
# server-common.cpp, server-chat.cpp, server-schema.cpp). Of a model's answer that it cannot parse
# it says "Failed to parse input".
MISREAD = re.compile(
    r"\[json\.exception\.(?:type_error\.30|out_of_range\.403)|Failed to parse (?!input)"
    r"|Failed to (?:down)?load image|Unknown |Unsupported param|Only no echo|Cannot use both"
    r"|Invalid base64|Error: |\W?\w+\W? (?:elements )?must |\W\w+\W is required|vector::"
)
UNABLE = re.compile(r"(?:image|audio|video) input is not supported|Multimodal data provided")
OPTION = re.compile(r"--[a-z][a-z-]+")
OF_OPTIONS = {
    option: field.key
    for field in FIELDS
    for spellings in (field.flag, *field.on, *field.off)
    for option in spellings
}
RERANKING = "--reranking"  # for which the form has no field of its own
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


def shaped(status: int, body: bytes, *, named: bool = False) -> tuple[int, bytes]:
    """The status and the body, as they are if they are right, else what says the same. `named`: in
    Anthropic's shape, which has a `type` beside the error."""
    wrong = _wrong_request(status, _error_in(body).get("message"))
    status, told = (wrong.status, _told(wrong)) if wrong else (status, _shaped(status, body))
    return status, json.dumps({"type": "error", **json.loads(told)}).encode() if named else told


def _wrong_request(status: int, message: object) -> RequestError | None:
    """What is wrong with the request, where llama-server says that something is with itself."""
    if status != HTTPStatus.INTERNAL_SERVER_ERROR or not isinstance(message, str):
        return None
    if large := TOO_LARGE.match(message):
        text = f"a text has {large[1]} tokens, and the model takes {large[2]} at most"
        return RequestError(HTTPStatus.BAD_REQUEST, text, code=CONTEXT_LENGTH)
    if UNABLE.match(message):
        return RequestError(HTTPStatus.NOT_IMPLEMENTED, message)
    return RequestError(HTTPStatus.BAD_REQUEST, message) if MISREAD.match(message) else None


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
    options = OPTION.findall(message)
    keys = [OF_OPTIONS[each] for each in options if each in OF_OPTIONS]
    if keys:
        return f"{message} (here that is the field {keys[0]})"
    return f"{message} (here that goes into the field {EXTRA})" if RERANKING in options else message


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
