"""Who may call, for what, and where the front listens. Pure."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable

from app.errors import ConfigError, RequestError
from app.gateway.http.heads import Headers
from app.gateway.http.limits import Network
from app.gateway.http.request import Request
from app.gateway.origins import KEY_VARIABLE, loopback, stranger

CHALLENGE = ((b"www-authenticate", b"Bearer"),)  # RFC 9110, 11.6.1
ALLOW_VARIABLE = "LLAMACPP_ALLOW_FROM"
ANYWHERE, HERE = "0.0.0.0", "127.0.0.1"
# Headers that a proxy adds when it passes a request on.
PASSED_ON = (b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip")


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
    if not under_agent and not has_key and not loopback(chosen):
        raise ConfigError(
            f"General/host: {chosen} is open to the network: set {KEY_VARIABLE} to a key that "
            f"callers must send, or listen on {HERE}"
        )
    return chosen
