"""Checks of requests' heads that llhttp does not make. Pure."""

from __future__ import annotations

from app.errors import RequestError

Headers = list[tuple[bytes, bytes]]  # names in lower case

ASK_TO_UPGRADE = (b"upgrade", b"http2-settings", b"connection")


def check_head(method: bytes, version: str, headers: Headers) -> RequestError | None:
    """The error to answer with, if there is a reason to refuse the request."""
    if version not in ("1.0", "1.1"):
        return RequestError(505, f"the instance does not speak HTTP/{version}")
    if method == b"CONNECT":  # of the other methods the route says which ones a path answers
        told = [(b"allow", b"GET, HEAD, POST, OPTIONS")]
        return RequestError(405, "the instance is no proxy", headers=told)
    hosts = sum(name == b"host" for name, _ in headers)
    if hosts > 1 or (version == "1.1" and hosts == 0):
        return RequestError(400, "the request must have exactly one Host header")
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if codings and (version == "1.0" or codings != [b"chunked"]):
        return RequestError(400, "Transfer-Encoding must be chunked, and HTTP must be 1.1")
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
