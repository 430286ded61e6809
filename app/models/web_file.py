"""Files at HTTP addresses: find them, and fetch them into their cache.

`<cache>/<of the address>/<of its version>/<name>`: what an address brings may change.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from app.errors import FormError, TransferError
from app.machine import clock
from app.models import arrival
from app.models.arrival import Content, Target
from app.models.kept import Note
from app.models.part_file import PartFile, bytes_here
from app.models.parts import OnWeb, WebPart
from app.models.progress import Arrived
from app.models.reference import KEY, WebFile, shards, shown
from app.models.retry import CutError
from app.models.web import Found, StatusError, Web

logger = logging.getLogger(__name__)

STRANGE = re.compile(r"[^\w.+ -]", re.A)  # in the name of a file
LONGEST = 150  # characters of one
ADVICE = {
    401: "it wants a token, which can be in the address's query only; or download the file, and "
    "name its path on the machine",
    403: "it is not for everybody, or the address has expired",
    404: "there is no such file",
}

TRIES = 4  # to ask a server what it has
LONGEST_WAIT = 30.0  # seconds that it may want us to wait then

Allows = Callable[[str], bool] | None  # whether to connect to an IP address; None: to any


def locate(file: WebFile, cache: Path, allows: Allows) -> OnWeb:
    """Ask the server for the file and the other parts of its set; where it is away, the cache.
    Raises FormError."""
    urls = _urls(file)
    if file.sha256 and len(urls) > 1:
        raise FormError(
            KEY, f"{shown(file.url)}: a set of files has no one hash: leave out #sha256="
        )
    home = cache / _key(file.url)
    if file.sha256:
        known = _part(urls[0], home / file.sha256[:16], file.sha256)
        if known.cached:
            return OnWeb((known,))
    kept = _newest(urls, home) if not file.sha256 else None
    try:
        found = [_find(Web(url, allows=allows), 1 if kept else TRIES) for url in urls]
    except StatusError as error:
        advice = ADVICE.get(error.status)
        raise FormError(KEY, f"{error}{f': {advice}' if advice else ''}") from None
    except CutError as error:
        if kept is not None:
            return kept
        which = "none with this hash" if file.sha256 else "nothing of it"
        raise FormError(KEY, f"{error}, and the cache has {which}") from None
    versions = [f"{each.version} {each.size}" for each in found]
    folder = home / (file.sha256[:16] or _key(*versions))
    pairs = zip(urls, found, strict=True)
    return OnWeb(tuple(_part(url, folder, file.sha256, each) for url, each in pairs))


def _find(web: Web, tries: int) -> Found:
    """Raises CutError, StatusError."""
    for futile in range(tries - 1):
        try:
            return web.find()
        except CutError as error:
            pause = min(LONGEST_WAIT, error.pause(futile + 1))
            logger.warning("%s: asked again in %.0f s", error, pause)
            clock.sleep(pause)
    return web.find()


def _urls(file: WebFile) -> list[str]:
    """Of all parts of the set, whose first one is named."""
    parts = urlsplit(file.url)
    if not parts.path.endswith(".gguf"):
        return [file.url]
    return [urlunsplit(parts._replace(path=path)) for path in shards(parts.path)]


def _part(url: str, folder: Path, sha256: str, found: Found | None = None) -> WebPart:
    """With what the server says of it, or as it lies in the cache."""
    name = STRANGE.sub("_", unquote(urlsplit(url).path).rpartition("/")[2])[-LONGEST:]
    name = name if name.strip(". ") else "model.gguf"
    file, partial = folder / name, folder / ".partial" / f"{name}.part"
    size = _size(file)
    part = WebPart(name, size, size >= 0, local=file, partial=partial, url=url, sha256=sha256)
    if found is None:
        return part
    part = replace(part, size=found.size, version=found.version, ranges=found.ranges)
    if size == found.size:
        return part
    known = sha256 or found.version  # else nothing of before can be used
    return replace(part, cached=False, here=bytes_here(partial) if known else 0)


def _size(file: Path) -> int:
    """Bytes; -1 if it is not there."""
    try:
        return file.stat().st_size
    except OSError:
        return -1


def _newest(urls: Sequence[str], home: Path) -> OnWeb | None:
    """What came last of this address, if all of it is there."""
    with contextlib.suppress(OSError):
        for folder in sorted(home.iterdir(), key=lambda f: f.stat().st_mtime, reverse=True):
            parts = tuple(_part(url, folder, "") for url in urls)
            if all(part.cached for part in parts):
                return OnWeb(parts)
    return None


def fetch(located: OnWeb, allows: Allows, arrived: Arrived, note: Note) -> list[Path]:
    """All parts, in one folder under their own names. Raises TransferError."""
    return [_fetched(part, allows, arrived, note) for part in located.parts]


def _fetched(part: WebPart, allows: Allows, arrived: Arrived, note: Note) -> Path:
    file, partial = part.local, part.partial
    assert file is not None and partial is not None
    if part.cached:
        return file

    def place(whole: PartFile) -> None:
        note(file, shown(part.url))
        whole.placed(file)

    content = Content(
        identity=part.sha256 or part.version,
        size=part.size,
        digest=part.sha256,
        hasher=hashlib.sha256 if part.sha256 else None,
        version=part.version,
        ranges=part.ranges,
    )
    target = Target(partial, lambda: _size(file) == part.size, place)
    try:
        arrival.fetch(Web(part.url, allows=allows), content, target, arrived, part.here)
    except OSError as error:
        raise TransferError(f"{shown(part.url)}: {error}") from None
    return file


def _key(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
