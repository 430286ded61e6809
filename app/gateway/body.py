"""What a request's body says: its JSON, the model that it names, media by URL. Pure."""

from __future__ import annotations

import json
import re

from app.errors import RequestError

BOUNDARY = re.compile(rb'^multipart/form-data;.*\bboundary=(?:"([^"]+)"|([^\s;]+))', re.I)
NAMED_MODEL = re.compile(
    rb'^content-disposition: *form-data;[^\r\n]*\bname="?model"?(?:;|\r|$)', re.I | re.M
)
MOST_PARTS = 64  # of a form in which a model is looked for
LONGEST_HEAD = 4096  # bytes of a part's head
MEDIA_KEYS = ("url", "image_url", "video_url", "audio_url", "file_url")
MESSAGE_KEYS = ("messages", "input", "system", "prompt")


def parse_json(body: bytes) -> object:
    """Raises RequestError 400 for what llama-server would call its own fault (500)."""
    try:
        return json.loads(body.decode(), parse_constant=_no_constant)
    except RecursionError:
        raise RequestError(400, "the body is nested too deeply") from None
    except ValueError as error:  # UnicodeDecodeError is one
        raise RequestError(400, f"the body is not valid JSON: {error}") from None


def parse_form(kind: bytes | None, body: bytes) -> dict[str, object]:
    """Of a body in parts (RFC 7578) just the field `model`, where it has one; `kind` is its
    content type. Raises RequestError 400."""
    boundary = BOUNDARY.search(kind or b"")
    if boundary is None:
        raise RequestError(400, "the body is no multipart/form-data with a boundary")
    line = b"--" + (boundary[1] or boundary[2])
    for part in body.split(line, MOST_PARTS)[1:]:
        head, blank, value = part.partition(b"\r\n\r\n")
        if blank and NAMED_MODEL.search(head[:LONGEST_HEAD]):
            return {"model": value.removesuffix(b"\r\n").decode(errors="replace")}
    return {}


def _no_constant(word: str) -> object:
    raise ValueError(f"{word} is no JSON")


def check_body(body: object, *, allow_remote_media: bool) -> None:
    """Raises RequestError 400."""
    if not isinstance(body, dict):
        raise RequestError(400, "the body is not a JSON object")
    if not allow_remote_media and _names_remote_media(body):
        message = (
            "media by URL are not fetched here: send them inside the request as data: URLs, or "
            "let the instance run with General/allow_remote_media"
        )
        raise RequestError(400, message)


def _names_remote_media(body: dict[str, object]) -> bool:
    left = [body[key] for key in MESSAGE_KEYS if isinstance(body.get(key), list | dict)]
    while left:
        item = left.pop()
        if isinstance(item, list):
            left += item
        elif isinstance(item, dict):
            left += [value for value in item.values() if isinstance(value, list | dict)]
            if any(_remote(item.get(key)) for key in MEDIA_KEYS):
                return True
    return False


def _remote(value: object) -> bool:
    if not isinstance(value, str):
        return False
    scheme, separator, _ = value.strip().partition(":")
    return bool(separator) and scheme.lower() in ("http", "https", "file", "ftp")
