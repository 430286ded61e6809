"""Who may call, for what, and where the front listens. Pure."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from app.errors import ConfigError, RequestError
from app.gateway.http.heads import Headers
from app.gateway.http.limits import Network
from app.gateway.http.request import Request

CHALLENGE = ((b"www-authenticate", b"Bearer"),)  # RFC 9110, 11.6.1
KEY_VARIABLE = "LLAMACPP_API_KEY"
ALLOW_VARIABLE = "LLAMACPP_ALLOW_FROM"
ANYWHERE, HERE = "0.0.0.0", "127.0.0.1"
# Headers that tell by which name, and from which site's page, the caller comes.
OF_CALLER = (b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest")
# Headers that a proxy adds when it passes a request on.
PASSED_ON = (b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip")
AUTHORITY = re.compile(r"(?P<name>\[[^\[\]]*\]|[^\[\]:@/\s]+)(?::(?P<port>\d*))?")
ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<authority>.+)")
OUR_SITES = {"none", "same-origin", "same-site"}  # of Sec-Fetch-Site (W3C Fetch Metadata, 2.4)
DEFAULT_PORTS = {"http": "80", "https": "443"}
LONGEST_SHOWN = 100  # characters of a header in an error message


class Keys:
    """The API keys that callers may send, kept as hashes. Without keys every caller passes."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._hashes = [hashlib.sha256(key.encode()).digest() for key in keys if key]

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def check(self, headers: Headers) -> None:
        """Raises RequestError 401 unless one of the keys was sent. Takes as long for any key."""
        if not self._hashes:
            return
        given = hashlib.sha256(bearer(headers) or b"").digest()
        if not any([hmac.compare_digest(given, known) for known in self._hashes]):
            message = "no valid API key: send one as `Authorization: Bearer …` or `X-Api-Key`"
            raise RequestError(401, message, headers=CHALLENGE)


def bearer(headers: Headers) -> bytes | None:
    """The key that the caller sent, in `Authorization: Bearer` or `X-Api-Key`."""
    for name, value in headers:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return value[7:].strip()
        if name == b"x-api-key":
            return value.strip()
    return None


def check_local(method: str, headers: Headers) -> None:
    """For an instance without keys. Raises RequestError 403 unless a program on this machine sent
    the request, or a page that the instance itself has served."""
    reason = stranger(method, headers)
    if reason is not None:
        raise RequestError(
            403,
            f"this instance has no API key, and answers only callers on its own machine: {reason}. "
            f"Call it as http://localhost, or start it with {KEY_VARIABLE} and send that key",
        )


def stranger(method: str, headers: Headers) -> str | None:
    """The sign that a page of another site sent the request; None if there is no sign.

    Any page in a browser on this machine can make the browser send requests to this machine. The
    browser then names the page's origin. The owner of a domain can also let its name mean this
    machine (DNS rebinding), so that pages from there can read the answers. The Host is then that
    name.
    """
    said = _said(headers)
    host = "".join(said[b"host"])
    authority = _authority(host)
    if authority is None or not _loopback(authority[0]):
        return f"the request's Host is {_shown(host)}, not localhost, 127.0.0.1 or [::1]"
    for origin in said[b"origin"]:
        if not _same(origin, authority):
            return f"the request's Origin is {_shown(origin)}, not its Host"
    if not OUR_SITES.issuperset(said[b"sec-fetch-site"]) and not _follows_link(method, said):
        return "the request's Sec-Fetch-Site is cross-site"
    return None


def _same(origin: str, host: tuple[str, str]) -> bool:
    """`host` is a name and a port, "" for the scheme's own port."""
    found = ORIGIN.fullmatch(origin)
    authority = _authority(found["authority"]) if found else None
    if found is None or authority is None:
        return False
    default = DEFAULT_PORTS[found["scheme"]]
    return (authority[0], authority[1] or default) == (host[0], host[1] or default)


def _follows_link(method: str, said: Mapping[bytes, list[str]]) -> bool:
    """A person follows a link to one of our pages; the site with the link cannot read it."""
    navigates = said[b"sec-fetch-mode"] == ["navigate"]
    in_a_tab = said[b"sec-fetch-dest"] == ["document"]
    return method in ("GET", "HEAD") and navigates and in_a_tab


def _authority(text: str) -> tuple[str, str] | None:
    """The name, without a dot at its end, and the port as it came."""
    found = AUTHORITY.fullmatch(text)
    return (found["name"].removesuffix("."), found["port"] or "") if found else None


def _said(headers: Headers) -> dict[bytes, list[str]]:
    """What the headers say of the caller: all values of each, in lower case."""
    said: dict[bytes, list[str]] = {name: [] for name in OF_CALLER}
    for name, value in headers:
        if name in said:
            said[name].append(value.decode("latin-1").strip().lower())
    return said


def _shown(text: str) -> str:
    return repr(text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…")


def may_change_models(keys: Keys, request: Request) -> bool:
    """Whether the caller may load, park, unload and pin models. With keys, every caller that came
    so far may. Without, only a caller on this machine may whose request no proxy passed on."""
    if keys:
        return True
    passed_on = any(request.header(name) is not None for name in PASSED_ON)
    return request.local and not passed_on and stranger(request.method, request.headers) is None


def allowed_networks(text: str) -> list[Network]:
    """The networks that LLAMACPP_ALLOW_FROM lists between commas. Raises ConfigError."""
    try:
        return [ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise ConfigError(f"{ALLOW_VARIABLE}: {error}: write networks as 10.0.0.0/8") from None


def listening_host(given: str, *, under_agent: bool, has_key: bool) -> str:
    """The address to listen on. Raises ConfigError if the whole network could use the models."""
    chosen = given or (ANYWHERE if under_agent or has_key else HERE)
    if not under_agent and not has_key and not _loopback(chosen):
        raise ConfigError(
            f"General/host: {chosen} is open to the network: set {KEY_VARIABLE} to a key that "
            f"callers must send, or listen on {HERE}"
        )
    return chosen


@lru_cache(maxsize=32)  # callers use few names
def _loopback(name: str) -> bool:
    """A name or an address, IPv6 also in brackets."""
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
