"""Checks of requests' heads that llhttp does not make. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

from app.errors import RequestError

Headers = list[tuple[bytes, bytes]]  # names in lower case

ASK_TO_UPGRADE = (b"upgrade", b"http2-settings", b"connection")
OF_OTHERS = (b"CONNECT", b"SOURCE")
CHECKED = {b"host", b"transfer-encoding", b"expect"}
CONTINUE = b"100-continue"
BLANKS = b" \t"
# RFC 3986, 3.2.2 and 3.2.3: an address in brackets or a name, and a port. No user, no comma.
AUTHORITY = rb"(?:\[[0-9a-f:.]+\]|(?:[a-z0-9._~!$&'()*+;=-]|%[0-9a-f]{2})+)(?::\d*)?"
HOST = re.compile(AUTHORITY, re.I)
# A path, or the absolute form that proxies get (RFC 9112, 3.2): printable ASCII, no fragment.
TARGET = re.compile(
    rb"(?:https?://(?P<authority>" + AUTHORITY + rb")(?=[/?]|$)|(?=/))[!\"$-\[\]-~]*", re.I
)


def check_head(method: bytes, target: bytes, version: str, headers: Headers) -> RequestError | None:
    """The error to answer with, if there is a reason to refuse the request."""
    if version not in ("1.0", "1.1"):
        return RequestError(505, f"the instance does not speak HTTP/{version}")
    if method in OF_OTHERS:  # of the other methods the route says which ones a path answers
        told = [(b"allow", b"GET, HEAD, POST, OPTIONS")]
        return RequestError(405, "the instance is no proxy, and takes no streams", headers=told)
    said = [header for header in headers if header[0] in CHECKED]
    hosts = tuple([value for name, value in said if name == b"host"])
    problem = _misdirected(method, target, version, hosts)
    if problem is not None:
        return RequestError(400, problem)
    return None if len(said) == len(hosts) else _check_framing(version, said)


@lru_cache(maxsize=64)  # most requests of all clients are alike
def _misdirected(
    method: bytes, target: bytes, version: str, hosts: tuple[bytes, ...]
) -> str | None:
    return _check_hosts(version, hosts) or _check_target(method, target, hosts)


def _check_hosts(version: str, hosts: tuple[bytes, ...]) -> str | None:
    if len(hosts) > 1 or (version == "1.1" and not hosts):
        return "the request must have exactly one Host header"
    if hosts and not HOST.fullmatch(hosts[0].strip(BLANKS)):
        return "the request's Host is no name or address with or without a port"
    return None


def _check_target(method: bytes, target: bytes, hosts: tuple[bytes, ...]) -> str | None:
    found = TARGET.fullmatch(target)
    if found is None:
        asterisk = target == b"*" and method == b"OPTIONS"
        return None if asterisk else "the request's target is not a path, or is not encoded"
    authority = found["authority"]
    if authority and hosts and authority.lower() != hosts[0].strip(BLANKS).lower():
        return "the request's target and its Host name two hosts"
    return None


def _check_framing(version: str, said: Headers) -> RequestError | None:
    codings = [value.strip(BLANKS).lower() for name, value in said if name == b"transfer-encoding"]
    if codings and (version == "1.0" or codings != [b"chunked"]):
        return RequestError(400, "Transfer-Encoding must be chunked, and HTTP must be 1.1")
    expected = [value.strip(BLANKS).lower() for name, value in said if name == b"expect"]
    if version == "1.1" and any(value != CONTINUE for value in expected):
        return RequestError(417, "of what a request can expect, the instance knows 100-continue")
    return None


def without_upgrade(
    method: bytes, target: bytes, version: str, headers: Headers, *, keep_alive: bool
) -> bytes:
    """The head that the client would have sent, had it not asked for another protocol."""
    lines = [b"%b %b HTTP/%b" % (method, target, version.encode())]
    lines += [b"%b: %b" % header for header in headers if header[0] not in ASK_TO_UPGRADE]
    if not keep_alive:
        lines.append(b"connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n"
