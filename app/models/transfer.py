"""Fetch a file into its part file: by ranges, over several connections, and go on after each
interruption. What arrives is hashed meanwhile.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from app.errors import TransferError
from app.machine import clock, threads
from app.models.part_file import PartFile
from app.models.pieces import Board, Piece, Ramp
from app.models.progress import Arrived
from app.models.retry import CutError

CHUNK = 1 << 20  # bytes read at once, in each thread
TRIES = 6  # in a row that bring nothing
MOST_ASKED = 300.0  # seconds that a server may want us to wait
TICK = 0.1  # seconds
LAST_WAIT = 2.0  # seconds for the threads to end


class Readable(Protocol):
    def read(self, most: int) -> bytes: ...

    def stop(self) -> None:
        """Called in another thread: a read that waits ends."""

    def __enter__(self) -> Readable: ...

    def __exit__(self, *_: Any) -> None: ...


class Source(Protocol):
    """Where the bytes come from."""

    title: str

    def again(self) -> Source:
        """The same, for another thread."""

    def get(self, start: int, end: int, size: int, version: str) -> Readable:
        """Raises CutError, TransferError."""


class Transfer:
    def __init__(
        self,
        source: Source,
        part: PartFile,
        arrived: Arrived,
        *,
        version: str = "",
        ranges: bool = True,
        hasher: Any = None,
    ) -> None:
        """`version` of the content that all answers must bear, where they bear one. `ranges`:
        whether the source sends parts. `hasher`: of hashlib, for the whole content."""
        self._source = source
        self._part = part
        self._arrived = arrived
        self._version = version
        self._ranges = ranges
        self._hasher = hasher
        self._changed = threads.Condition()  # guards all that follows
        self._board = Board(part.missing(), part.size, divisible=ranges)
        self._bodies: set[Readable] = set()
        self._error: Exception | None = None
        self._over = False  # nothing more is to be done
        self._futile = 0
        self._failed_at = float("-inf")  # when the last failure that counts came
        self._hashed = 0

    def run(self) -> None:
        """Until all is there, and hashed. Raises TransferError, OSError."""
        running: list[Any] = []
        if self._hasher is not None:
            self._start(running, 1, self._hash)
        told = self._part.here
        ramp = Ramp(self._board.most, told, clock.now())
        try:
            self._start(running, ramp.connections, self._fetch_all)
            while self._error is None and any(thread.is_alive() for thread in running):
                with self._changed:
                    self._changed.wait(TICK)
                here = self._part.here
                self._arrived(here - told)
                told = here
                self._part.save()
                self._start(running, ramp.more(here, clock.now()), self._fetch_all)
        finally:
            self._end(running)
        self._part.save(at_once=True)
        self._arrived(self._part.here - told)
        if self._error is not None:
            raise self._error

    def _start(self, running: list[Any], count: int, target: Callable[[], None]) -> None:
        for _ in range(count):
            running.append(self._thread(target))
            running[-1].start()

    def _end(self, running: Sequence[Any]) -> None:
        """The threads end, but for one that waits for a server's first word."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
            bodies = list(self._bodies)
        for body in bodies:
            body.stop()
        until = clock.now() + LAST_WAIT
        for thread in running:
            thread.join(max(0.0, until - clock.now()))

    def _thread(self, target: Callable[[], None]) -> Any:
        def guarded() -> None:
            try:
                target()
            except Exception as error:  # noqa: BLE001 it is raised by `run`; else that would wait for ever
                with self._changed:
                    self._error = self._error or error
                    self._over = True
                    self._changed.notify_all()

        return threads.daemon("fetch", guarded)

    # The fetching threads.

    def _fetch_all(self) -> None:
        source = self._source.again()
        while (piece := self._take()) is not None:
            begun, here = clock.now(), self._come(piece)
            try:
                self._fetch(source, piece)
            except CutError as error:
                nothing = self._come(piece) == here
                self._put_back(piece)
                self._pause(error, begun, nothing=nothing)
            else:
                self._put_back(piece)  # nothing, if it is whole

    def _come(self, piece: Piece) -> int:
        """How far it is. Where the source sends no parts, each try begins at the beginning."""
        return piece.at if self._ranges else self._part.here

    def _take(self) -> Piece | None:
        """None once all is there, or nothing more is wanted."""
        with self._changed:
            while not self._over and not self._board.empty:
                piece = self._board.take(clock.now())
                if piece is not None:
                    return piece
                self._changed.wait(TICK)
            return None

    def _put_back(self, piece: Piece) -> None:
        with self._changed:
            self._board.put_back(piece)
            self._changed.notify_all()

    def _fetch(self, source: Source, piece: Piece) -> None:
        with source.get(piece.at, piece.end, self._part.size, self._version) as body:
            self._bodies.add(body)
            try:
                while piece.at < piece.end and not self._over:
                    data = body.read(min(CHUNK, piece.end - piece.at))
                    if not data:
                        raise CutError(f"{self._source.title}: the connection ended early")
                    if self._over:  # what comes from a connection that was stopped is no content
                        return
                    self._part.write(piece.at, data)
                    with self._changed:
                        piece.at = min(piece.at + len(data), piece.end)
                        if self._ranges:
                            self._futile = 0
                        self._changed.notify_all()
                    if piece.slow(clock.now()):
                        raise CutError(f"{self._source.title}: the connection has all but stopped")
            finally:
                self._bodies.discard(body)

    def _pause(self, error: CutError, begun: float, *, nothing: bool) -> None:
        """Before another try. Failures of several connections at once are one: it counts only if
        the try began after the last one that counted."""
        with self._changed:
            if not nothing:
                self._futile = 0
            elif begun >= self._failed_at:
                self._failed_at = clock.now()
                self._futile += 1
            if (error.wait or 0.0) > MOST_ASKED:
                raise TransferError(f"{error}; it may be asked again in {error.wait:.0f} s")
            if self._futile >= TRIES:
                raise TransferError(f"{error} ({self._futile} tries brought nothing)")
            until = clock.now() + error.pause(self._futile)
            while not self._over and clock.now() < until:
                self._changed.wait(until - clock.now())

    # The hashing thread.

    def _hash(self) -> None:
        while self._hashed < self._part.size:
            with self._changed:
                while self._part.prefix <= self._hashed and not self._over:
                    self._changed.wait(TICK)
                if self._over:
                    return
            data = self._part.read(self._hashed, min(4 * CHUNK, self._part.prefix - self._hashed))
            if not data:
                raise OSError(f"{self._part.path} was cut off while it was fetched")
            self._hasher.update(data)
            self._hashed += len(data)


def hasher_of(etag: str, size: int) -> Callable[[], Any] | None:
    """What an ETag of the Hugging Face hub says of a file's content: the SHA-256 of a large file,
    git's name of a small one; None if it is neither."""
    if re.fullmatch("[0-9a-f]{64}", etag):
        return hashlib.sha256
    if re.fullmatch("[0-9a-f]{40}", etag):
        return lambda: hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    return None
