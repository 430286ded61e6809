"""Our page, put together from its files into one answer: it needs no second request, so that it
works under whatever path a gateway puts before it, and offline."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from functools import cache
from pathlib import Path

from app.gateway.heads import Headers
from app.gateway.request import Request

FOLDER = Path(__file__).parent / "page"
INCLUDED = re.compile(r"@@([\w./]+)@@")
ELEMENT = re.compile(r"<(?P<kind>script|style)>(?P<text>.*?)</(?P=kind)>", re.S)
POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


@cache
def assemble(name: str) -> str:
    """A file of the page's folder, with the files that it names as @@file@@ in their places."""
    text = (FOLDER / name).read_text()
    return INCLUDED.sub(lambda found: (FOLDER / found[1]).read_text().strip(), text)


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
