"""Heads of requests: what llhttp lets through and we do not. Pure."""

from __future__ import annotations

from app.errors import RequestError

Headers = list[tuple[bytes, bytes]]  # names in lower case

METHODS = {b"GET", b"HEAD", b"POST", b"DELETE", b"OPTIONS"}
WISHES = (b"upgrade", b"http2-settings", b"connection")


def check_head(method: bytes, version: str, headers: Headers) -> RequestError | None:
    """The reason to refuse it, if there is one."""
    if version not in ("1.0", "1.1"):
        return RequestError(505, f"HTTP/{version} is not served")
    if method not in METHODS:
        return RequestError(405, "this method is not served")
    hosts = sum(name == b"host" for name, _ in headers)
    if hosts > 1 or (version == "1.1" and hosts == 0):
        return RequestError(400, "a request has exactly one Host")
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if codings and (version == "1.0" or codings != [b"chunked"]):
        return RequestError(400, "Transfer-Encoding may only be chunked, and only in HTTP/1.1")
    return None


def without_upgrade(
    method: bytes, target: bytes, version: str, headers: Headers, *, keep_alive: bool
) -> bytes:
    """The head that a client would have sent, had it wished for no other protocol."""
    lines = [b"%b %b HTTP/%b" % (method, target, version.encode())]
    lines += [b"%b: %b" % header for header in headers if header[0] not in WISHES]
    if not keep_alive:
        lines.append(b"connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n"
