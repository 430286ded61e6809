"""Our page as an answer: whole, compressed, cached by its hash, and with a security policy."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re

from app.gateway.http.heads import Headers
from app.gateway.http.request import Request

ELEMENT = re.compile(r"<(?P<kind>script|style)>(?P<text>.*?)</(?P=kind)>", re.S)
POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


class Document:
    """The page as it is sent: whole and compressed, with a policy that lets nothing else run."""

    def __init__(self, text: str) -> None:
        self._body = text.encode()
        self._packed = gzip.compress(self._body, 9, mtime=0)
        tag = b'"%b"' % hashlib.sha256(self._body).hexdigest()[:20].encode()
        self._tag = tag
        self._headers: Headers = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-security-policy", policy(text).encode()),
            (b"cache-control", b"no-cache"),
            (b"etag", tag),
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
            request.reply(200, self._body, self._headers)


def policy(text: str) -> str:
    """Content-Security-Policy (CSP Level 3): by hash, what stands in the page itself."""
    found: dict[str, list[str]] = {"script": [], "style": []}
    for element in ELEMENT.finditer(text):
        digest = hashlib.sha256(element["text"].encode()).digest()
        found[element["kind"]].append(f"'sha256-{base64.b64encode(digest).decode()}'")
    return POLICY.format(**{kind: " ".join(hashes) for kind, hashes in found.items()})
