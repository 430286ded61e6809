"""A file at an HTTP address, asked for by ranges (RFC 9110, 14). It may lie behind redirects, which
end at a host of their own, and whose address may expire."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from app.errors import TransferError
from app.models.transfer import CutError

REDIRECTS = 10
TIMEOUTS = 10.0, 60.0  # seconds to connect, and without a byte
WHOLE, PARTIAL = 200, 206
EXPIRED = (401, 403, 404, 410)  # of an address that a redirect has named
TO_COME_BACK = (408, 425, 429)
RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
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
    url: str  # where it is in the end


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
        self.title = title or _bare(url)
        self._place = _Place(url)
        self._url = url
        self._headers = dict(headers or {})
        self._allows = allows
        self._session = _session(allows)

    def again(self) -> Web:
        other = Web(self._url, self._headers, allows=self._allows, title=self.title)
        other._place = self._place
        return other

    def find(self) -> Found:
        """Raises TransferError, CutError."""
        with self._ask(0, 1) as answer:
            told = RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            ranges = answer.status_code == PARTIAL and told is not None
            size = told[3] if told and ranges else answer.headers.get("Content-Length", "")
            if not size.isdecimal():
                raise StatusError(f"{self.title}: the server does not say its size", WHOLE)
            return Found(int(size), _version(answer), ranges, answer.url)

    def get(self, start: int, end: int, size: int, version: str) -> Body:
        """Its bytes from `start` to `end`, of `size`. Where a server sends no parts, `start` is 0
        and `end` the end. Raises TransferError, CutError."""
        answer = self._ask(start, end)
        try:
            self._check(answer, start, end, size, version)
        except BaseException:
            answer.close()
            raise
        return Body(answer)

    def _check(
        self, answer: requests.Response, start: int, end: int, size: int, version: str
    ) -> None:
        told = RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if answer.status_code == PARTIAL and told:
            right = tuple(map(int, told.groups())) == (start, end - 1, size)
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
            url = urljoin(url, target)
            if urlsplit(url).scheme not in ("http", "https"):
                raise StatusError(f"{self.title}: it redirects to no web address", 300)
        else:
            raise StatusError(f"{self.title}: more than {REDIRECTS} redirects", 300)
        if answer.status_code in (WHOLE, PARTIAL):
            self._place.url = url
            return answer
        with answer:
            raise self._problem(answer, begun, url)

    def _once(self, url: str, start: int, end: int) -> requests.Response:
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-{end - 1}"}
        if urlsplit(url)[:2] == urlsplit(self._url)[:2]:
            headers = {**self._headers, **headers}
        try:
            return self._session.get(
                url, headers=headers, stream=True, allow_redirects=False, timeout=TIMEOUTS
            )
        except _NotAllowedError as error:
            raise StatusError(f"{self.title}: {error}", 403) from None
        except BROKEN as error:
            raise CutError(f"{self.title}: {_said(error)}") from None

    def _problem(self, answer: requests.Response, begun: str, url: str) -> Exception:
        """What of an answer from `url`, to which the way from `begun` led, is to be said."""
        status = answer.status_code
        said = f"{self.title}: the server answers {status} {answer.reason or ''}".rstrip()
        if url != self._url and status in EXPIRED:
            if self._place.url == begun:
                self._place.url = self._url  # ask anew where it is
            return CutError(said)
        if status in TO_COME_BACK or status >= 500:
            return CutError(said, _wait(answer))
        return StatusError(said, status)


class Body:
    """What of an answer is to come. Another thread may `stop` it."""

    def __init__(self, answer: requests.Response) -> None:
        self._answer = answer

    def read(self, most: int) -> bytes:
        """At least one byte, unless it has ended. Raises CutError."""
        try:
            return bytes(self._answer.raw.read1(most))
        except BROKEN as error:
            raise CutError(_said(error)) from None

    def stop(self) -> None:
        with contextlib.suppress(*BROKEN, ValueError):
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


class _NotAllowedError(Exception):
    pass


def _session(allows: Callable[[str], bool] | None) -> requests.Session:
    session = requests.Session()
    session.auth = lambda request: request  # else a .netrc would replace the token
    if allows is not None:
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Guarded(allows))
    return session


class _Guarded(HTTPAdapter):
    """Connects only where that is allowed: looked at when the name is resolved and the connection
    there, before anything is sent. What a proxy connects to is the proxy's affair."""

    def __init__(self, allows: Callable[[str], bool]) -> None:
        self._allowed = allows
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {
            "http": _pool(urllib3.HTTPConnectionPool, self._allowed),
            "https": _pool(urllib3.HTTPSConnectionPool, self._allowed),
        }


def _pool(kind: type, allows: Callable[[str], bool]) -> type:
    class Connection(kind.ConnectionCls):  # type: ignore[name-defined, misc]
        def _new_conn(self) -> Any:
            connected = super()._new_conn()
            address = connected.getpeername()[0]
            if not allows(address):
                connected.close()
                raise _NotAllowedError(
                    f"{address} is no public address (General/allow_private_urls allows them)"
                )
            return connected

    return type("Pool", (kind,), {"ConnectionCls": Connection})


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet's."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        # IPv4 in IPv6: mapped (RFC 4291), 6to4 (RFC 3056), NAT64 (RFC 6052).
        inner = found.ipv4_mapped or found.sixtofour
        if found in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast


def _version(answer: requests.Response) -> str:
    """Of the content: a strong ETag, else when it was last changed."""
    etag = answer.headers.get("ETag", "")
    strong = etag and not etag.startswith("W/")
    return str(etag if strong else answer.headers.get("Last-Modified", ""))


def _wait(answer: requests.Response) -> float | None:
    """Seconds after which the server wants to be asked again."""
    after = answer.headers.get("Retry-After", "")
    if after.isdecimal():
        return float(after)
    reset = RESET.search(answer.headers.get("RateLimit", ""))
    return float(reset[1]) if reset else None


def _bare(url: str) -> str:
    """An address without what may be secret: user, password, query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def _said(error: BaseException) -> str:
    """What went wrong with a connection, in one line and without the address asked for, whose query
    may be a secret: the innermost reason."""
    seen = 0
    while seen < 10:
        seen += 1
        inner = getattr(error, "reason", None) or error.__cause__ or error.__context__
        if not isinstance(inner, BaseException) or inner is error:
            break
        error = inner
    text = str(getattr(error, "strerror", None) or error).strip()
    text = text if "://" not in text else ""
    return f"{type(error).__name__}: {text}".rstrip(": ").splitlines()[0]
