"""Who may call, for what, and where the front listens."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import re
from collections.abc import Iterable

from app.errors import ConfigError, RequestError, words
from app.gateway.guesses import Guesses
from app.gateway.http.heads import Headers
from app.gateway.http.limits import Network
from app.gateway.http.request import Request
from app.gateway.keys_file import UNNAMED, Holder
from app.gateway.origins import KEY_VARIABLE, loopback
from app.gateway.quota import Quota
from app.gateway.roster import Roster
from app.machine import clock, network, threads

logger = logging.getLogger(__name__)

SEND = "send one as `Authorization: Bearer …` or `X-Api-Key`"
BEARER = re.compile(rb"bearer[ \t]+(\S.*)", re.I | re.S)
PAUSE = 1.0  # seconds before an answer to where too many wrong keys came from
CHALLENGE = ((b"www-authenticate", b"Bearer"),)  # RFC 9110, 11.6.1
ALLOW_VARIABLE = "LLAMACPP_ALLOW_FROM"
UNLIMITED = Quota()
ANYWHERE, HERE = "0.0.0.0", "127.0.0.1"


class Keys:
    """The API keys that callers may send, kept as hashes: the instance's own, and those of the
    callers of a keys file. Without keys and without a file every caller passes.

    A right key always passes, so that nobody locks others out by guessing. What slows guesses down
    is that, where too many came from, no answer comes at once.
    """

    def __init__(self, keys: Iterable[str], roster: Roster | None = None) -> None:
        """`roster`: the callers of the keys file; None without one."""
        self._own = [(_hash(key.encode()), UNNAMED) for key in keys if key]
        self._roster = roster
        self._guesses = Guesses()

    def __bool__(self) -> bool:
        return bool(self._own) or self._roster is not None

    async def check(self, request: Request) -> Holder:
        """Whose key was sent. Raises RequestError 401 if none was, 429 after too many guesses."""
        holder = await self.known(request)
        if holder is None:
            raise RequestError(401, f"no valid API key: {SEND}", headers=CHALLENGE)
        return holder

    async def known(self, request: Request) -> Holder | None:
        """Whose key was sent, if one was. Raises RequestError 429 after too many guesses."""
        if not self:
            return UNNAMED
        given = keys_sent(request.headers)
        if not given:
            return None
        if self._guesses.suspect(request.address, clock.now()):
            request.gives_way = True  # or guesses would take all places for connections
            await asyncio.sleep(PAUSE)
            request.gives_way = False
        holder = self.holder(given)
        if holder is not None:
            self._guesses.right(request.address)
            return holder
        retry_after = self._guesses.wrong(request.address, clock.now())
        if retry_after is not None:
            request.keep_alive = False  # what was sent behind it is not read
            problem = "no valid API key, and too many wrong ones came from your address"
            raise RequestError(429, f"{problem}: {SEND}", retry_after=retry_after)
        return None

    def holder(self, given: Iterable[bytes]) -> Holder | None:
        """Who holds one of those keys, the instance's own before a caller's. Takes as long for any:
        all are compared."""
        hashes = [_hash(one) for one in given]
        known = self._own
        if self._roster is not None:
            known = known + self._roster.keys
        found = [who for one in hashes for key, who in known if hmac.compare_digest(one, key)]
        return UNNAMED if UNNAMED in found else next(iter(found), None)

    def quota(self, holder: Holder) -> Quota:
        """One without limits for who is not in the keys file."""
        return UNLIMITED if self._roster is None else self._roster.quota(holder)


def keys_sent(headers: Headers) -> list[bytes]:
    """The key in `Authorization: Bearer`, and the one in `X-Api-Key`: no more than two."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name == b"authorization":
            bearer = BEARER.fullmatch(value.strip())
            if bearer:
                found.setdefault(name, bearer[1])
        elif name == b"x-api-key" and value.strip():
            found.setdefault(name, value.strip())
    return list(found.values())


def _hash(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


class Admins:
    """Who may load, park, unload and pin models. With keys, every caller that came so far may: the
    proxy lets no caller of the keys file come here.
    Without, only one that sends the token of this run: a proxy on this machine adds nothing to a
    request by which it could be told from a program here, and no page of another site has it."""

    def __init__(self, keys: Keys, token: str = "") -> None:
        """Without keys and token nobody may."""
        self._keys = keys
        self._token = Keys([token])

    def may_change_models(self, headers: Headers) -> bool:
        return bool(self._keys) or self._token.holder(keys_sent(headers)) is not None


def allowed_networks(text: str) -> list[Network]:
    """The networks that LLAMACPP_ALLOW_FROM lists between commas. Raises ConfigError."""
    try:
        return [ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise ConfigError(f"{ALLOW_VARIABLE}: {error}: write networks as 10.0.0.0/8") from None


async def _addresses(host: str) -> list[str]:
    """Raises ConfigError for what is no address and no name of one."""
    try:
        return await threads.run(network.addresses, host, 0)
    except OSError as error:
        problem = f"{host} is no address of this machine: {words(error)}"
        raise ConfigError(f"General/host: {problem}") from None


async def listening_host(given: str, *, under_agent: bool, has_key: bool) -> str:
    """The address to listen on. Raises ConfigError if the whole network could use the models."""
    chosen = given or (ANYWHERE if under_agent or has_key else HERE)
    if len(chosen) > 2 and chosen[0] + chosen[-1] == "[]":  # as an IPv6 address stands in a URL
        chosen = chosen[1:-1]
    if not under_agent and not has_key and not loopback(chosen):
        found = await _addresses(chosen)  # first: a key would not help
        if all(map(loopback, found)):  # 127.1, or this machine's name in its own list of hosts
            here = min(found, key=lambda address: ":" in address)
            logger.info("General/host: %s is %s: only this machine reaches it", chosen, here)
            return here
        raise ConfigError(
            f"General/host: {chosen} is open to the network: set {KEY_VARIABLE} to a key that "
            f"callers must send, or listen on {HERE}"
        )
    return chosen
