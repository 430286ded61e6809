"""Connections to an instance, each of which proves what it is connected to, before it is sent a key
or a prompt: a port may be another program's from one connection to the next."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from app.engine.exchange import ChildConnection, Exchange, Waits
from app.engine.http import Address, Client, Collector, Reply
from app.errors import NotConnectedError
from app.gateway import trust
from app.gateway.routes import PROOF
from app.machine import chance
from app.machine.deadline import within

TIMEOUT = 5.0  # seconds for the proof
LARGEST = 4 << 10  # bytes of an answer of anybody


class NotProvenError(NotConnectedError):
    """It has not shown that it is what its task says. It was sent nothing but the question."""


class ProvenClient(Client):
    """`told` is the address that the task tells, which the proof is for."""

    def __init__(
        self, address: Address, largest: int, *, secret: str, task: str, told: str
    ) -> None:
        super().__init__(address, trust.key(secret, task), f"task {task}", largest)
        self._secret = secret
        self._task = task
        self._told = told

    async def _connect(self) -> ChildConnection:
        while True:
            connection = await super()._connect()
            try:
                await within(TIMEOUT, self._prove(connection))
            except asyncio.TimeoutError:
                connection.close()
                raise NotProvenError(f"{self.peer}: no proof in {TIMEOUT:g} s") from None
            except BaseException:
                connection.close()
                raise
            with contextlib.suppress(ValueError):  # somebody else has taken it meanwhile
                self._idle.remove(connection)
                return connection

    async def _prove(self, connection: ChildConnection) -> None:
        """Ask by this connection, which is an idle one afterwards."""
        nonce = chance.name(32)
        collector = Collector(LARGEST)
        head = f"GET {PROOF}?nonce={nonce} HTTP/1.1\r\nhost: {self._task}\r\n\r\n".encode()
        exchange = Exchange(_One(connection), (head,), collector, waits=Waits.US)
        try:
            await exchange.begin()
            reply = await collector.reply
        finally:
            exchange.abort()
        if reply.status != 200:
            raise NotProvenError(
                f"{self.peer} answers {reply.status} to {PROOF}: {trust.SECRET_VARIABLE} is not "
                "set where it runs, or another program has its port"
            )
        wanted = trust.proof(self._secret, nonce, self._task, self._told)
        if not trust.same(_told(reply), wanted):
            raise NotProvenError(
                f"{self.peer}: what is at its address does not prove that it is its instance: set "
                f"{trust.SECRET_VARIABLE} to the same secret here and there"
            )


def _told(reply: Reply) -> object:
    try:
        told = reply.json()
    except (ValueError, RecursionError):
        return None
    return told.get("proof") if isinstance(told, Mapping) else None


class _One:
    """Where an exchange gets this connection, and no other."""

    def __init__(self, connection: ChildConnection) -> None:
        self._connection = connection
        self.progress = self.aside = 0
        self.doubtful, self.broken, self.peer = False, False, ""

    async def acquire(self, fresh: bool = False) -> ChildConnection:
        return self._connection

    def release(self, connection: ChildConnection) -> None: ...

    def forget(self, connection: ChildConnection) -> None: ...
