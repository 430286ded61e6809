"""Who may ask, and for what. Pure."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import re
from collections.abc import Iterable

from app.errors import ConfigError, RequestError
from app.gateway.http.heads import Headers
from app.gateway.http.limits import Network

BOUNDARY = re.compile(rb'^multipart/form-data;.*\bboundary=(?:"([^"]+)"|([^\s;]+))', re.I)
NAMED_MODEL = re.compile(
    rb'^content-disposition: *form-data;[^\r\n]*\bname="?model"?(?:;|\r|$)', re.I | re.M
)
MOST_PARTS = 64  # of a form in which a model is looked for
LONGEST_HEAD = 4096  # bytes of a part's head
MEDIA_KEYS = ("url", "image_url", "video_url", "audio_url", "file_url")
MESSAGE_KEYS = ("messages", "input", "system", "prompt")


class Keys:
    """API keys, kept as hashes. Without any, everybody may ask."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._hashes = [hashlib.sha256(key.encode()).digest() for key in keys if key]

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def check(self, headers: Headers) -> None:
        """Raises RequestError 401. Takes the same time whichever key it is."""
        if not self._hashes:
            return
        given = hashlib.sha256(bearer(headers) or b"").digest()
        if not any([hmac.compare_digest(given, known) for known in self._hashes]):
            message = "no valid API key: send one as `Authorization: Bearer …` or `X-Api-Key`"
            raise RequestError(401, message)


def bearer(headers: Headers) -> bytes | None:
    """The key in `Authorization: Bearer` or `X-Api-Key`."""
    for name, value in headers:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return value[7:].strip()
        if name == b"x-api-key":
            return value.strip()
    return None


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


KEY_VARIABLE = "LLAMACPP_API_KEY"
ALLOW_VARIABLE = "LLAMACPP_ALLOW_FROM"
ANYWHERE, HERE = "0.0.0.0", "127.0.0.1"


def allowed_networks(text: str) -> list[Network]:
    """Of LLAMACPP_ALLOW_FROM, networks between commas. Raises ConfigError. Pure."""
    try:
        return [ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise ConfigError(f"{ALLOW_VARIABLE}: {error}: write networks as 10.0.0.0/8") from None


def listening_host(given: str, *, under_agent: bool, has_key: bool) -> str:
    """Where to listen. Raises ConfigError where everybody could use the models. Pure."""
    chosen = given or (ANYWHERE if under_agent or has_key else HERE)
    if not under_agent and not has_key and not _loopback(chosen):
        raise ConfigError(
            f"General/host: {chosen} is open to the network: set {KEY_VARIABLE} to a key that "
            f"callers must send, or listen on {HERE}"
        )
    return chosen


def _loopback(chosen: str) -> bool:
    try:
        return ipaddress.ip_address(chosen).is_loopback
    except ValueError:
        return chosen == "localhost"
