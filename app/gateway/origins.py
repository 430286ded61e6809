"""Whether a caller of an instance without keys may be a page of another site. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from app.errors import RequestError
from app.gateway.http.heads import Headers

Names = frozenset[str]  # of Hosts and Origins, in lower case
KEY_VARIABLE = "LLAMACPP_API_KEY"
FIELD = "General/allowed_hosts"
# Headers that tell by which name, and from which site's page, the caller comes.
OF_CALLER = (b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest")
AUTHORITY = re.compile(r"(?P<name>\[[^\[\]]*\]|[^\[\]:@/\s]+)(?::(?P<port>\d*))?")
ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<authority>.+)")
NO_ORIGIN = "null"  # RFC 6454, 6.2
OUR_SITES = {"none", "same-origin", "same-site"}  # of Sec-Fetch-Site (W3C Fetch Metadata, 2.4)
DEFAULT_PORTS = {"http": "80", "https": "443"}
LONGEST_SHOWN = 100  # characters of a header in an error message


def named(text: str) -> Names:
    """Hosts and Origins between commas, as the form has them."""
    return frozenset(part.strip().lower() for part in text.split(",") if part.strip())


def check_local(method: str, headers: Headers, allowed: Names = frozenset()) -> None:
    """For an instance without keys. Raises RequestError 403 unless a program on this machine sent
    the request, or a page that the instance itself has served, or somebody by an allowed name."""
    reason = stranger(method, headers, allowed)
    if reason is not None:
        raise RequestError(
            403,
            f"this instance has no API key, and answers only callers on its own machine: {reason}. "
            f"Call it as http://localhost, or name that in {FIELD}, or start it with "
            f"{KEY_VARIABLE} and send that key",
        )


def stranger(method: str, headers: Headers, allowed: Names = frozenset()) -> str | None:
    """The sign that a page of another site sent the request; None if there is no sign.

    Any page in a browser on this machine can make the browser send requests to this machine. The
    browser then names the page's origin. The owner of a domain can also let its name mean this
    machine (DNS rebinding), so that pages from there can read the answers. The Host is then that
    name.
    """
    return _sign(method, tuple([h for h in headers if h[0] in OF_CALLER]), allowed)


@lru_cache(maxsize=64)  # most requests of all callers say the same of themselves
def _sign(method: str, headers: tuple[tuple[bytes, bytes], ...], allowed: Names) -> str | None:
    said = _said(headers)
    host = "".join(said[b"host"])
    authority = _authority(host)
    if authority is None or not (loopback(authority[0]) or _listed(authority, allowed)):
        return f"the request's Host is {_shown(host)}, not localhost, 127.0.0.1 or [::1]"
    others = [origin for origin in said[b"origin"] if not _same(origin, authority)]
    for origin in others:
        if not _may_send(origin, allowed):
            return f"the request's Origin is {_shown(origin)}, not its Host"
    if others:
        return None
    if not OUR_SITES.issuperset(said[b"sec-fetch-site"]) and not _follows_link(method, said):
        return "the request's Sec-Fetch-Site is cross-site"
    return None


def _same(origin: str, host: tuple[str, str]) -> bool:
    """`host` is a name and a port, "" for the scheme's own port."""
    site, default = _site(origin)
    return site is not None and site == (host[0], host[1] or default)


def _may_send(origin: str, allowed: Names) -> bool:
    site, _ = _site(origin)
    return origin in allowed or (site is not None and _listed(site, allowed))


def _site(origin: str) -> tuple[tuple[str, str] | None, str]:
    """The website's name and port, and the port that its scheme has by itself."""
    found = ORIGIN.fullmatch(origin)
    authority = _authority(found["authority"]) if found else None
    if found is None or authority is None:
        return None, ""
    default = DEFAULT_PORTS[found["scheme"]]
    return (authority[0], authority[1] or default), default


def _listed(site: tuple[str, str], allowed: Names) -> bool:
    """With its port, or with any. `null` stands for an Origin, and for no site."""
    return site[0] != NO_ORIGIN and (site[0] in allowed or ":".join(site) in allowed)


def _follows_link(method: str, said: Mapping[bytes, list[str]]) -> bool:
    """A person follows a link to one of our pages; the site with the link cannot read it."""
    navigates = said[b"sec-fetch-mode"] == ["navigate"]
    in_a_tab = said[b"sec-fetch-dest"] == ["document"]
    return method in ("GET", "HEAD") and navigates and in_a_tab


def _authority(text: str) -> tuple[str, str] | None:
    """The name, without a dot at its end, and the port as it came."""
    found = AUTHORITY.fullmatch(text)
    return (found["name"].removesuffix("."), found["port"] or "") if found else None


def _said(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, list[str]]:
    """What the headers say of the caller: all values of each, in lower case."""
    said: dict[bytes, list[str]] = {name: [] for name in OF_CALLER}
    for name, value in headers:
        said[name].append(value.decode("latin-1").strip().lower())
    return said


def _shown(text: str) -> str:
    return repr(text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…")


@lru_cache(maxsize=32)  # callers use few names
def loopback(name: str) -> bool:
    """A name or an address, IPv6 also in brackets."""
    if name.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
