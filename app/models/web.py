"""A file at an HTTP address, asked for by ranges (RFC 9110, 14). It may lie behind redirects, which
end at a host of their own, and whose address may expire."""

from __future__ import annotations

import contextlib
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

import requests
import urllib3

from app.errors import TransferError, words
from app.machine import clock
from app.models.reference import shown
from app.models.retry import CutError
from app.models.session import NotAllowedError, session

REDIRECTS = 10
TIMEOUTS = 10.0, 30.0  # seconds to connect, and without a byte
WHOLE, PARTIAL = 200, 206
EXPIRED = (401, 403, 404, 410)  # of an address that a redirect has named
GONE = (404, 410)
TO_COME_BACK = (408, 425, 429)
RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
LENGTH = re.compile(r"\d{1,18}")
RESET = re.compile(r"\bt=(\d+)")  # of a RateLimit header: seconds until there are requests again
# What requests and urllib3 raise where a connection is at fault.
BROKEN = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


class StatusError(TransferError):
    """The server says that it will not be otherwise next time."""

    def __init__(self, problem: str, status: int) -> None:
        super().__init__(problem)
        self.status = status


@dataclass(frozen=True)
class Found:
    """What a server says of a file: bytes, the version of its content ("": it does not say), and
    whether it sends parts of it."""

    size: int
    version: str
    ranges: bool


class Web:
    """One file. For each thread that fetches, make another one by `again`."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        allows: Callable[[str], bool] | None = None,
        title: str = "",
    ) -> None:
        """`headers` go to the host of `url` only, not to where it redirects. `allows` says of an IP
        address whether to connect to it. `title` is what errors call it: never with a query,
        which may be a secret."""
        self.title = title or shown(url)
        self._url, named = _without_user(url)
        self._place = _Place(self._url)
        self._headers = {**named, **(headers or {})}
        self._allows = allows
        self._session = session(allows)

    def again(self) -> Web:
        other = Web(self._url, self._headers, allows=self._allows, title=self.title)
        other._place = self._place
        return other

    def find(self) -> Found:
        """Raises TransferError, CutError."""
        with self._ask(0, 1) as answer:
            ranges = answer.status_code == PARTIAL
            told = RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            size = answer.headers.get("Content-Length", "")
            if ranges:
                size = told[3] if told else ""
            if not LENGTH.fullmatch(size):
                raise StatusError(f"{self.title}: the server does not say its size", WHOLE)
            return Found(int(size), _version(answer), ranges)

    def get(self, start: int, end: int, size: int, version: str) -> Body:
        """Its bytes from `start` to `end`, of `size`. Where a server sends no parts, `start` is 0
        and `end` the end. Raises TransferError, CutError."""
        answer = self._ask(start, end)
        try:
            self._check(answer, start, end, size, version)
        except BaseException:
            answer.close()
            raise
        return Body(answer, self.title)

    def _check(
        self, answer: requests.Response, start: int, end: int, size: int, version: str
    ) -> None:
        told = RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if answer.status_code == PARTIAL and "Content-Range" not in answer.headers:
            raise CutError(f"{self.title}: the head of its answer is not whole")
        if answer.status_code == PARTIAL:
            right = told is not None and tuple(map(int, told.groups())) == (start, end - 1, size)
        else:
            length = answer.headers.get("Content-Length")
            right = start == 0 and end == size and length in (None, str(size))
        if version and _version(answer) not in ("", version):
            raise StatusError(f"{self.title} changed while it was fetched: try again", WHOLE)
        if not right:
            raise StatusError(f"{self.title}: the server sends other bytes than it was asked", 416)

    def _ask(self, start: int, end: int) -> requests.Response:
        """An answer with the file, or a part of it."""
        url = begun = self._place.url
        for _ in range(REDIRECTS):
            answer = self._once(url, start, end)
            target = answer.headers.get("Location")
            if not (answer.is_redirect and target):
                break
            answer.close()
            url = self._joined(url, target)
            if urlsplit(url).scheme not in ("http", "https"):
                raise StatusError(f"{self.title}: it redirects to no web address", 300)
        else:
            raise StatusError(f"{self.title}: more than {REDIRECTS} redirects", 300)
        if answer.status_code in (WHOLE, PARTIAL):
            self._place.url = url
            return answer
        with answer:
            raise self._problem(answer, begun, url)

    def _joined(self, url: str, target: str) -> str:
        try:
            return urljoin(url, target)
        except ValueError:
            raise StatusError(f"{self.title}: it redirects to no address", 300) from None

    def _once(self, url: str, start: int, end: int) -> requests.Response:
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-{end - 1}"}
        if urlsplit(url)[:2] == urlsplit(self._url)[:2]:
            headers = {**self._headers, **headers}
        try:
            return self._session.get(
                url, headers=headers, stream=True, allow_redirects=False, timeout=TIMEOUTS
            )
        except NotAllowedError as error:
            raise StatusError(f"{self.title}: {error}", 400) from None
        except ValueError as error:  # requests' errors of wrong addresses are of this kind, too
            raise StatusError(f"{self.title}: {_said(error)}", 400) from None
        except BROKEN as error:
            raise CutError(f"{self.title}: {_said(error)}") from None

    def _problem(self, answer: requests.Response, begun: str, url: str) -> Exception:
        """What of an answer from `url`, to which the way from `begun` led, is to be said."""
        status = answer.status_code
        said = f"{self.title}: the server answers {status} {answer.reason or ''}".rstrip()
        anew = begun == self._url  # the redirect was named just now: it has not expired
        if url != self._url and status in EXPIRED and not (anew and status in GONE):
            if self._place.url == begun:
                self._place.url = self._url  # ask anew where it is
            return CutError(said)
        if status in TO_COME_BACK or status >= 500:
            return CutError(said, _wait(answer))
        return StatusError(said, status)


class Body:
    """What of an answer is to come. Another thread may `stop` it."""

    def __init__(self, answer: requests.Response, title: str) -> None:
        self._answer = answer
        self._title = title

    def read(self, most: int) -> bytes:
        """At least one byte, unless it has ended. Raises CutError."""
        try:
            return bytes(self._answer.raw.read1(most))
        except BROKEN as error:
            raise CutError(f"{self._title}: {_said(error)}") from None

    def stop(self) -> None:
        # RuntimeError: it has been read to its end.
        with contextlib.suppress(*BROKEN, ValueError, RuntimeError):
            self._answer.raw.shutdown()

    def __enter__(self) -> Body:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._answer.close()


@dataclass
class _Place:
    """Where the redirects led last, for all threads."""

    url: str


def _version(answer: requests.Response) -> str:
    """Of the content: a strong ETag, else when it was last changed."""
    etag = answer.headers.get("ETag", "")
    strong = etag and not etag.startswith("W/")
    return str(etag if strong else answer.headers.get("Last-Modified", ""))


def _wait(answer: requests.Response) -> float | None:
    """Seconds after which the server wants to be asked again."""
    after = answer.headers.get("Retry-After", "")
    if LENGTH.fullmatch(after):
        return float(after)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(after).timestamp() - clock.wall())
    reset = RESET.search(answer.headers.get("RateLimit", ""))
    return float(reset[1]) if reset else None


def _without_user(url: str) -> tuple[str, dict[str, str]]:
    """The address without user and password, and the header that sends them (RFC 7617)."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    name, _, password = map(unquote, user.partition(":"))
    token = b64encode(f"{name}:{password}".encode()).decode()
    return urlunsplit(parts._replace(netloc=host)), {"Authorization": f"Basic {token}"}


def _said(error: BaseException) -> str:
    """What went wrong with a connection, in one line and without the address asked for, whose query
    may be a secret: the innermost reason."""
    for _ in range(10):
        inner = getattr(error, "reason", None) or error.__cause__ or error.__context__
        if not isinstance(inner, BaseException) or inner is error:
            break
        error = inner
    text = words(error).strip()
    text = text if "://" not in text else ""
    return f"{type(error).__name__}: {text}".rstrip(": ").splitlines()[0]
