"""Examines large bodies in processes of their own, so that the loop goes on meanwhile.

A thread would not do: it holds the interpreter's lock while it parses JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from app.errors import RequestError
from app.gateway.body.asked import Asked
from app.gateway.body.examine import Examined
from app.gateway.body.fair import FairQueue
from app.machine import children
from app.machine.deadline import within
from app.telemetry.samples import Several

ROOT = Path(__file__).parents[3]  # where the package `app` is
START = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from app.gateway.body import worker; "
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH")
MOST = 2  # workers at a time
LONGEST = 20.0  # seconds for one body
IDLE = 600.0  # seconds after which a worker that has nothing to do ends
READ = 256 << 10  # bytes of a repaired body that are taken at once
UNREAD = "the body could not be read"

logger = logging.getLogger(__name__)


class _Pipe(asyncio.Protocol):
    """The worker's standard input: says when it takes more."""

    def __init__(self) -> None:
        self.writable = asyncio.Event()
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.writable.set()


class Worker:
    """One child, which examines one body at a time."""

    def __init__(self) -> None:
        self._child = children.spawn(
            [sys.executable, "-I", "-S", "-c", START + "worker.main()"],
            {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
            stdin=children.PIPE,
            stdout=children.PIPE,
            stderr=children.NOWHERE,
        )
        self._pipe = _Pipe()
        self._said = asyncio.StreamReader(limit=READ)
        self._transports: list[asyncio.BaseTransport] = []
        self.retirement: asyncio.TimerHandle | None = None

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        protocol = asyncio.StreamReaderProtocol(self._said)
        said, _ = await loop.connect_read_pipe(lambda: protocol, self._child.stdout)
        asked, _ = await loop.connect_write_pipe(lambda: self._pipe, self._child.stdin)
        self._transports += [said, asked]

    async def examine(self, pieces: Sequence[bytes], *, allow_remote: bool) -> Examined:
        """Raises RequestError 400, 413; asyncio.IncompleteReadError if the worker ends."""
        await self._send(b"%d %d\n" % (sum(map(len, pieces)), allow_remote))
        for piece in pieces:
            await self._send(piece)
        sizes = (await self._said.readuntil()).split()
        told = json.loads(await self._said.readexactly(int(sizes[0])))
        repaired = await self._take(int(sizes[1]))
        if "status" in told:
            raise RequestError(told["status"], told["message"])
        return _examined(told, repaired)

    async def _send(self, piece: bytes) -> None:
        cast(asyncio.WriteTransport, self._transports[-1]).write(piece)
        await self._pipe.writable.wait()

    async def _take(self, size: int) -> bytes:
        taken = bytearray()
        while len(taken) < size:
            taken += await self._said.readexactly(min(READ, size - len(taken)))
        return bytes(taken)

    @property
    def ended(self) -> bool:
        return self._child.poll() is not None

    async def end(self) -> None:
        """Kill it, and wait for its end: it has nothing to lose."""
        if self.retirement is not None:
            self.retirement.cancel()
        with contextlib.suppress(ProcessLookupError):
            self._child.kill()
        for transport in self._transports:
            transport.close()
        await children.exit_status(self._child)


def _examined(told: dict[str, Any], repaired: bytes) -> Examined:
    return Examined(
        repaired=repaired or None,
        model=told["model"],
        streams=told["streams"],
        several=Several(**told["several"]),
        media=told["media"],
        asked=Asked(**told["asked"]),
    )


class Workers:
    """As many as are needed, up to a bound; further bodies wait for one."""

    def __init__(self) -> None:
        self._queue = FairQueue(MOST)
        self._idle: list[Worker] = []
        self._ending: set[asyncio.Task[None]] = set()

    async def examine(
        self, pieces: Sequence[bytes], *, allow_remote: bool, caller: str = ""
    ) -> Examined:
        """Raises RequestError 400, 413, 503."""
        async with self._queue.place(caller, sum(map(len, pieces))):
            worker = await self._one()
            try:
                found = await within(LONGEST, worker.examine(pieces, allow_remote=allow_remote))
            except RequestError:
                self._keep(worker)
                raise
            except asyncio.TimeoutError:
                self._end(worker)
                raise RequestError(413, "the body takes too long to read") from None
            except (asyncio.IncompleteReadError, OSError):
                self._end(worker)
                logger.warning("the process that reads large bodies has ended: out of memory?")
                raise RequestError(503, UNREAD, retry_after=1) from None
            except BaseException:
                self._end(worker)  # the client has left: it still reads that body
                raise
            self._keep(worker)
            return found

    async def _one(self) -> Worker:
        """Raises RequestError 503."""
        while self._idle:
            worker = self._idle.pop()
            assert worker.retirement is not None
            worker.retirement.cancel()
            if not worker.ended:
                return worker
            self._end(worker)
        try:
            worker = Worker()
        except OSError as error:
            logger.warning("no process can be started that reads large bodies: %s", error)
            raise RequestError(503, UNREAD, retry_after=1) from None
        connecting = asyncio.ensure_future(worker.connect())
        try:
            await asyncio.shield(connecting)
        except BaseException:  # the client has left: a pipe that is half connected has no owner
            connecting.add_done_callback(lambda _: self._end(worker))
            raise
        return worker

    def _keep(self, worker: Worker) -> None:
        self._idle.append(worker)
        worker.retirement = asyncio.get_running_loop().call_later(IDLE, self._retire, worker)

    def _retire(self, worker: Worker) -> None:
        self._idle.remove(worker)
        self._end(worker)

    def _end(self, worker: Worker) -> None:
        task = asyncio.get_running_loop().create_task(worker.end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        while self._idle:
            self._end(self._idle.pop())
        await asyncio.gather(*self._ending)
