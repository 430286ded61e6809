"""The page as the answer to a request: compressed if the browser takes that, cached by its hash,
and with a policy that lets only its own scripts run.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re

from app.gateway.http.heads import Headers
from app.gateway.http.request import Request

OPENING = re.compile(rb"<(script|style)>")
POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


class Document:
    def __init__(self, page: bytes) -> None:
        self._page = page
        self._packed = gzip.compress(page, 9, mtime=0)
        self._tag = b'"%b"' % hashlib.sha256(page).hexdigest()[:20].encode()
        self._headers: Headers = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-security-policy", policy(page).encode()),
            (b"cache-control", b"no-cache"),
            (b"etag", self._tag),
            (b"referrer-policy", b"no-referrer"),
            (b"vary", b"accept-encoding"),
            (b"x-content-type-options", b"nosniff"),
        ]

    def show(self, request: Request) -> None:
        if request.header(b"if-none-match") == self._tag:
            request.start(304, self._headers)
            request.finish()
        elif b"gzip" in (request.header(b"accept-encoding") or b""):
            request.reply(200, self._packed, [*self._headers, (b"content-encoding", b"gzip")])
        else:
            request.reply(200, self._page, self._headers)


def policy(page: bytes) -> str:
    """Content-Security-Policy (CSP Level 3): by their hashes, only the page's own elements."""
    found: dict[str, list[str]] = {"script": [], "style": []}
    at = 0
    while opening := OPENING.search(page, at):
        at = page.index(b"</%b>" % opening[1], opening.end())
        digest = base64.b64encode(hashlib.sha256(page[opening.end() : at]).digest()).decode()
        found[opening[1].decode()].append(f"'sha256-{digest}'")
    return POLICY.format(**{kind: " ".join(hashes) for kind, hashes in found.items()})
