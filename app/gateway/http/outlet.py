"""What is sent to a client, and whether the client takes it.

A model is free for others once its answer has come whole. So a client that stops reading (a laptop
that sleeps, a pager that waits for a key) must not hold its answer back: what its transport does
not take is kept here, within bounds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

from app.gateway.http.limits import Limits
from app.gateway.http.shares import Shares
from app.machine import network

HIGH = 64 * 1024  # bytes that a transport holds before it says that it is full
PIECE = 64 * 1024  # bytes that the transport is given at a time


class Follower(Protocol):
    """Writes by itself what needs no looking at; see `engine.passage`."""

    def write_by(self, write: Callable[[bytes], None]) -> None: ...


class Outlet:
    """Of one connection."""

    def __init__(
        self,
        transport: asyncio.Transport,
        limits: Limits,
        backlog: Shares,
        home: str,
        changed: Callable[[], None],
    ) -> None:
        """`backlog`: what is kept for all; `home`: the client's household. `changed` is called when
        the client has caught up, and when it is behind and no room is left."""
        self.is_closing = transport.is_closing
        self.write: Callable[[bytes], None] = transport.write  # `_keep` while the client is behind
        self._transport = transport
        self._limits = limits
        self._backlog = backlog
        self._home = home
        self._changed = changed
        self._follower: Follower | None = None
        self._blocked = False  # the transport takes no more
        self._kept = bytearray()
        self._last: Callable[[], None] | None = None  # what is done once all is written
        self._mark: tuple[int, float] | None = None  # how much the client had taken, and when
        self._encrypts = transport.get_extra_info("sslcontext") is not None
        if self._encrypts:
            transport.set_write_buffer_limits(HIGH)  # as of TCP; by default TLS has 512 KiB
        self._told = 0  # how much it had taken at the last look
        self._moves = False  # and whether that was more than before

    def followed_by(self, follower: Follower | None) -> None:
        """Who writes by itself from now on."""
        self._follower = follower

    @property
    def behind(self) -> bool:
        """Whether the client does not keep up."""
        return self._blocked or bool(self._kept)

    @property
    def full(self) -> bool:
        """Whether as much is kept as may be of one answer."""
        return len(self._kept) >= self._limits.unread

    @property
    def has_room(self) -> bool:
        """Whether more may be kept."""
        return not self.full and self._fits(1)

    @property
    def crowds(self) -> bool:
        """Whether room for another answer is short, and this takes some, or holds its source back
        for want of it."""
        return self.behind and not self._fits(self._limits.unread)

    def _fits(self, size: int) -> bool:
        return self._backlog.fits(size) and self._backlog.fits_one(self._home, size)

    @property
    def waits(self) -> bool:
        """Whether the client would lose something if the connection was broken. What TLS has
        encrypted waits in a buffer whose size nobody tells, before that of the kernel."""
        if self._kept or self._transport.get_write_buffer_size() > 0:
            return True
        return self._encrypts and (self._moves or network.unacknowledged(self._transport) > 0)

    def look(self) -> None:
        """Called again and again. Of what TLS has encrypted more may wait, though the kernel has
        sent all that it had: as long as the client takes anything between two looks."""
        if self._encrypts:
            before, self._told = self._told, self.taken()
            self._moves = before != self._told

    # What the transport says.

    def pause(self) -> None:
        self._blocked = True
        self._write_by(self._keep)

    def resume(self) -> None:
        self._blocked = False
        self._go_on()

    def _write_by(self, write: Callable[[bytes], None]) -> None:
        self.write = write
        if self._follower is not None:
            self._follower.write_by(write)

    def _keep(self, data: bytes) -> None:
        self._kept += data
        self._backlog.add(self._home, len(data))
        if not self.has_room:
            self._changed()

    def _go_on(self) -> None:
        """Piece by piece: with uvloop a transport says a turn later that it is full."""
        if self._blocked or self.is_closing():
            return
        if self._kept:
            piece = bytes(self._kept[:PIECE])
            del self._kept[:PIECE]
            self._backlog.add(self._home, -len(piece))
            self._transport.write(piece)
            asyncio.get_running_loop().call_soon(self._go_on)
        elif self.write == self._keep:
            self._write_by(self._transport.write)
            if self._last is not None:
                self._last()
            self._changed()

    # The end.

    def close(self) -> None:
        """Close the connection once all is written."""
        self._at_last(self._transport.close)

    def write_eof(self) -> None:
        """Tell the client that nothing more comes, once all is written, if the transport can."""
        self._at_last(self._write_eof)

    def _write_eof(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self._transport.write_eof()

    def _at_last(self, end: Callable[[], None]) -> None:
        if self.behind:
            self._last = end
        else:
            end()

    def abort(self) -> None:
        """Break the connection."""
        self.drop()
        self._transport.abort()

    def drop(self) -> None:
        """The connection is lost, or will be."""
        self._backlog.add(self._home, -len(self._kept))
        self._kept = bytearray()
        self._follower = self._last = None
        self.write, self._changed = _nowhere, _nobody  # no cycle is left for the garbage collector

    # A client that does not take what waits for it.

    def stalls(self, now: float, held: float | None = None) -> bool:
        """Whether it takes less than it must. Asked again and again while something waits. `held`:
        since when it has held its answer's source back."""
        taken, mark = self.taken(), self._mark
        if mark is None or not mark[0] <= taken < mark[0] + self._limits.write_least:
            self._mark = taken, now
            return False
        if held is not None and now - max(held, mark[1]) > self._limits.write_hold:
            return True
        return now - mark[1] > self._limits.write_pause

    def asleep(self, now: float) -> float:
        """Seconds since it has taken anything of note of what waits."""
        return 0.0 if self._mark is None else now - self._mark[1]

    def forget(self) -> bool:
        """Nothing waits for it. Whether anything did when `stalls` was asked last."""
        waited, self._mark = self._mark is not None, None
        return waited

    def taken(self) -> int:
        """Bytes that the client's kernel has acknowledged: what ours holds, several MB, would hide
        a client that reads slowly. Of a Unix socket: what waits there, below zero; it changes as
        the client reads."""
        acknowledged = network.acknowledged(self._transport)
        if acknowledged is not None:
            return acknowledged
        unsent = self._transport.get_write_buffer_size()
        return -(unsent + network.unacknowledged(self._transport))


def _nowhere(data: bytes) -> None: ...


def _nobody() -> None: ...
