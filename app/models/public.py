"""Which addresses are the internet's. Pure."""

from __future__ import annotations

import ipaddress

# IPv4 in IPv6 (RFC 6052, 8215, 4291): for the translators of a network, or without use.
TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
LOCAL = [ipaddress.ip_network(text) for text in ("64:ff9b:1::/48", "::/96", "fec0::/10")]
RELAYS = ipaddress.ip_network("192.88.99.0/24")  # of 6to4 (RFC 7526)


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
