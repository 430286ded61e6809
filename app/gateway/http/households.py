"""Who is one caller, as far as an address can tell. Pure."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

PREFIX = 64  # bits of an IPv6 address: a caller has all of the rest


@lru_cache(maxsize=256)
def household(address: str) -> str:
    """The address, or of IPv6 the network, that one caller has; "" for all on a Unix socket."""
    if ":" not in address:
        return address
    parsed = ipaddress.IPv6Address(address.partition("%")[0])
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, PREFIX), strict=False))
