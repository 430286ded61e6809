"""The sessions of requests that fetch models: what they send, where they connect, and whose
certificates they believe."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter

from app.machine import network, threads

HEAD = 60.0  # seconds: of the whole head of an answer
# Where certificates are: requests reads the former, the hub's library and Python the latter.
BUNDLES, BUNDLE = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), "SSL_CERT_FILE"


class NotAllowedError(Exception):
    pass


class Careful(HTTPAdapter):
    """Connects only where that is allowed: looked at when the name is resolved and the connection
    there, before anything is sent. What a proxy connects to is the proxy's affair. And waits for
    the whole head of an answer no longer than HEAD: the library's time-out is for each byte."""

    def __init__(self, allows: Callable[[str], bool] | None) -> None:
        self._allowed = allows
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {
            "http": _pool(urllib3.HTTPConnectionPool, self._allowed),
            "https": _pool(urllib3.HTTPSConnectionPool, self._allowed),
        }


def _pool(kind: type, allows: Callable[[str], bool] | None) -> type:
    class Connection(kind.ConnectionCls):  # type: ignore[name-defined, misc]
        def _new_conn(self) -> Any:
            if allows is None:
                return super()._new_conn()
            # Before, so that nobody learns which ports are open; and afterwards, since a name may
            # be resolved to something else each time.
            for address in network.addresses(self._dns_host, self.port):
                _check(address, allows)
            connected = super()._new_conn()
            try:
                _check(connected.getpeername()[0], allows)
            except NotAllowedError:
                connected.close()
                raise
            return connected

        def getresponse(self) -> Any:
            late = threading.Event()
            cancel = threads.after(HEAD, functools.partial(_break, self.sock, late))
            try:
                found = super().getresponse()
            finally:
                cancel()
            if late.is_set():  # what has come of the head was taken for all of it
                found.close()
                raise TimeoutError(f"the head of its answer did not come in {HEAD:g} s")
            return found

    return type("Pool", (kind,), {"ConnectionCls": Connection})


def _check(address: str, allows: Callable[[str], bool]) -> None:
    if not allows(address):
        raise NotAllowedError(
            f"{address} is no public address (General/allow_private_urls allows them, or "
            "--allow-private-urls of the command `fetch`)"
        )


def _break(connected: Any, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


class _Session(requests.Session):
    def resolve_redirects(self, *_: Any, **__: Any) -> Iterator[Any]:
        """Of the library: it reads the whole body of a redirect, however long, though it is not
        asked to follow it."""
        return iter(())


def session(allows: Callable[[str], bool] | None) -> requests.Session:
    made = _Session()
    made.auth = lambda request: request  # else a .netrc would replace the token
    if not any(os.environ.get(name) for name in BUNDLES):
        made.verify = os.environ.get(BUNDLE) or True
    for scheme in ("http://", "https://"):
        made.mount(scheme, Careful(allows))
    return made
