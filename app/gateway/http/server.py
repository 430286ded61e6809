"""The listening socket and the connections on it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
import ssl
from collections.abc import Iterable, Sequence

from app.errors import ConfigError, RequestError, words
from app.gateway.http.connection import Connection
from app.gateway.http.connections import Connections, Member
from app.gateway.http.limits import Limits, Network
from app.gateway.http.pipeline import Handler
from app.gateway.http.shares import Shares
from app.gateway.http.turnstile import Turnstile
from app.machine import clock, network
from app.machine.deadline import within

logger = logging.getLogger(__name__)

READING = 2.0  # seconds in which a client that reads has read something
LAST_READ = 0.3  # seconds for a client to read why it has no answer
LAST_WORDS = 1.0  # seconds for busy connections to finish when the server closes


class HttpServer:
    """Listens, and hands each request to `handler`. With `allowed`, only peers from these networks
    may connect."""

    def __init__(
        self,
        handler: Handler,
        limits: Limits | None = None,
        allowed: Sequence[Network] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.allowed = allowed
        self.handler = handler
        self.limits = limits or Limits()
        self.turnstile = Turnstile()
        kept = self.limits.unread_together
        self.backlog = Shares(kept, kept // 2)  # what clients have not read
        self.closing = False
        self._connections = Connections(self.limits)
        self._empty = asyncio.Event()
        self._tls = tls
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int | None, fallback: int = 8080) -> tuple[str, int]:
        """Listen, and return address and port. Port 0 is any free one; without a port it is
        `fallback`, or any free one if that is taken. Raises ConfigError."""
        try:
            self._listener = await self._listen(host, fallback if port is None else port)
        except OSError as error:
            if port is not None:
                field = "host" if _is_of_host(error) else "port"
                what = f"{host}:{port} cannot be listened on: {words(error)}"
                raise ConfigError(f"General/{field}: {what}") from None
            try:
                self._listener = await self._listen(host, 0)
            except OSError as second:
                raise ConfigError(f"General/host: {host}: {words(second)}") from None
        self._sweeper = asyncio.create_task(self._sweep())
        address = self._listener.sockets[0].getsockname()
        return address[0], address[1]

    async def _listen(self, host: str, port: int) -> asyncio.Server:
        return await network.listen(lambda: Connection(self), host, port, self._tls)

    async def read(self) -> None:
        """Return once the clients have read what waits for them now, or read nothing any more."""
        waiting = _unread(self._connections)
        while waiting:
            await asyncio.sleep(READING)
            found = _unread(each for each in self._connections if each in waiting)
            left = {each: told for each, told in found.items() if told[0] == waiting[each][0]}
            if left == waiting:
                return
            waiting = left

    async def close(self) -> None:
        """Stop listening, give busy connections a moment to finish, and break the rest."""
        self.closing = True
        self.turnstile.open()
        if self._listener is not None:
            self._listener.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in self._connections:
            if not connection.busy:
                connection.part()
        if self._connections:
            self._empty.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await within(LAST_WORDS, self._empty.wait())
        await self._turn_out()

    async def _turn_out(self) -> None:
        """Tell those that still have no answer, and break all connections."""
        stopping = RequestError(503, "the instance is stopping", retry_after=10)
        for connection in self._connections:
            connection.stop(stopping)
        if self._connections:
            with contextlib.suppress(asyncio.TimeoutError):
                await within(LAST_READ, self._empty.wait())
        for connection in self._connections:
            connection.abort()

    def allows(self, address: str) -> bool:
        """Whether a peer with this address may connect."""
        if not self.allowed or not address:
            return True
        peer = ipaddress.ip_address(address)
        mapped = getattr(peer, "ipv4_mapped", None) or peer
        return any(mapped in network for network in self.allowed)

    def admit(self, connection: Connection) -> RequestError | None:
        """Why there is no place for it; None if there is one."""
        return self._connections.admit(connection)

    def forget(self, connection: Connection) -> None:
        self._connections.forget(connection)
        if not self._connections:
            self._empty.set()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.limits.sweep)
            now = clock.now()
            for connection in self._connections:
                try:
                    connection.hurry(now)
                except Exception:  # noqa: BLE001 a fault with one must not end the others' limits
                    logger.exception("a connection of %s", connection.address)
                    connection.abort()
            try:
                self._make_room(now)
            except Exception:  # noqa: BLE001 nor must one here
                logger.exception("making room for answers")

    def _make_room(self, now: float) -> None:
        """Where room is short for what clients have not read, those give way that have taken least
        for longest, or who comes would hold a model back."""
        least = self.limits.write_hold
        asleep = [each for each in self._connections if each.crowds and each.asleep(now) > least]
        for connection in sorted(asleep, key=lambda each: each.asleep(now), reverse=True):
            if connection.crowds:  # still
                connection.abort()


def _unread(connections: Iterable[Member]) -> dict[Member, tuple[float, int]]:
    return {each: told for each in connections if (told := each.unread) is not None}


def _is_of_host(error: OSError) -> bool:
    """Whether the address is at fault, and not the port."""
    return isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
