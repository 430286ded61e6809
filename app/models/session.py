"""The sessions of requests that fetch models: what they send, where they connect, and whose
certificates they believe."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter

from app.machine import network

# Where certificates are: requests reads the former, the hub's library and Python the latter.
BUNDLES, BUNDLE = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), "SSL_CERT_FILE"


class NotAllowedError(Exception):
    pass


class Guarded(HTTPAdapter):
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
            # Before, so that nobody learns which ports are open; and afterwards, since a name may
            # be resolved to something else each time.
            for address in network.addresses(self._dns_host, self.port):
                check(address)
            connected = super()._new_conn()
            try:
                check(connected.getpeername()[0])
            except NotAllowedError:
                connected.close()
                raise
            return connected

    def check(address: str) -> None:
        if not allows(address):
            raise NotAllowedError(
                f"{address} is no public address (General/allow_private_urls allows them)"
            )

    return type("Pool", (kind,), {"ConnectionCls": Connection})


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
    if allows is not None:
        for scheme in ("http://", "https://"):
            made.mount(scheme, Guarded(allows))
    return made
