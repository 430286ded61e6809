"""Which addresses are the internet's, and connections to no others."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

import urllib3
from requests.adapters import HTTPAdapter

from app.machine import network

# IPv4 in IPv6 (RFC 6052, 8215, 4291): for the translators of a network, or without use.
TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
LOCAL = [ipaddress.ip_network(text) for text in ("64:ff9b:1::/48", "::/96", "fec0::/10")]
RELAYS = ipaddress.ip_network("192.88.99.0/24")  # of 6to4 (RFC 7526)


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


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet's."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if found in TRANSLATED:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if any(found in network for network in LOCAL):
            return False
    elif found in RELAYS:
        return False
    return found.is_global and not found.is_multicast
