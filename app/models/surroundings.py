"""What the environment says of the way to the web: proxies, and the address of the hub. They may
have a password, so no message shows a value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from app.errors import ConfigError

PROXIES = ("http_proxy", "https_proxy", "all_proxy")  # in capitals, too
PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
HUB, HUB_SCHEMES = "HF_ENDPOINT", ("https", "http")
# No character of an address (RFC 3986, 2); and the apostrophe, at which messages end one.
STRANGE = re.compile(r"[^A-Za-z0-9._~%:/?#\[\]@!$&()*+,;=-]")


def check(environment: Mapping[str, str]) -> None:
    """Before anything is asked of the web: the libraries' errors show what they cannot read. Raises
    ConfigError that names the variable."""
    check_proxies(environment)
    if endpoint := environment.get(HUB):
        _check(HUB, endpoint, HUB_SCHEMES, "a hub")


def check_proxies(environment: Mapping[str, str]) -> None:
    """Raises ConfigError that names the variable."""
    for name, value in sorted(environment.items()):
        if name.lower() in PROXIES and value:
            whole = value if "://" in value else f"http://{value}"
            _check(name, whole, PROXY_SCHEMES, "a proxy")


def _check(name: str, address: str, schemes: Sequence[str], what: str) -> None:
    if not _is_address(address, schemes):
        raise ConfigError(
            f"{name}: is no address of {what}: write {schemes[0]}://host:port; in a user's name or "
            "password, every character but letters and digits as %XX"
        )


def _is_address(text: str, schemes: Sequence[str]) -> bool:
    try:
        parts = urlsplit(text)
        whole = bool(parts.hostname) and parts.port != 0
    except ValueError:  # its port is no number, for one
        return False
    # An @ behind the host: what stands before it was meant to be a user's password.
    misread = "@" in parts.path + parts.query + parts.fragment
    return whole and parts.scheme in schemes and not (misread or STRANGE.search(text))
