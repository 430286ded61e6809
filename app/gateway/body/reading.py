"""Reads the body of a request, as far as the app has to know it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.gateway.body.asked import Asked
from app.gateway.body.encoding import coding_of, decoded
from app.gateway.body.examine import SMALL, Examined, examine, examine_outline, quick
from app.gateway.body.form import ModelField, boundary_of
from app.gateway.body.outline import Outline
from app.gateway.body.room import Holding, Room
from app.gateway.body.sizes import Allowance
from app.gateway.http.households import household
from app.gateway.http.request import Request
from app.telemetry.samples import Several

PIECE = 128 << 10  # bytes, at least, of every piece of a large body but the last
FOLLOWED = 128 << 10  # bytes of a body that an outline takes between two turns of the loop
SLICE = 4 << 10  # bytes of a form that are parsed between two turns of the loop
DECODED_AT_ONCE = 2  # bodies: each may grow to the limit before it is counted
ONE, ONCE = Several(), Asked()
Allowances = Callable[[str], Allowance]  # by a model's name


@dataclass(slots=True)  # not frozen: one is made for each request
class Body:
    """A request's body. `pieces`: its bytes; None if it is passed on as it arrives. `media`: bytes
    of the pictures, sounds and films in it; `streams`: the client wants the answer as a stream of
    events."""

    pieces: list[bytes] | None
    model: object = None
    streams: bool = False
    several: Several = ONE
    asked: Asked = ONCE
    media: int = 0
    is_json: bool = True
    holding: Holding | None = None  # until its last piece is sent

    @property
    def whole(self) -> bytes | None:
        """A small one's bytes: they are sent with the head."""
        return self.pieces[0] if self.pieces is not None and len(self.pieces) == 1 else None

    def beginning(self, size: int) -> str:
        """So many bytes of it, before any of it is sent; "" if it is passed on as it arrives."""
        found = bytearray()
        for piece in self.pieces or ():
            found += piece[: size - len(found)]
            if len(found) == size:
                break
        return found.decode(errors="replace")

    @property
    def length(self) -> int | None:
        """In bytes; None if it is passed on as it arrives."""
        return None if self.pieces is None else sum(map(len, self.pieces))


UNREAD = Body(None, is_json=False)


class Aside(Protocol):
    """What examines large bodies, away from the loop."""

    async def examine(
        self, pieces: Sequence[bytes], *, allow_remote: bool, caller: str
    ) -> Examined: ...


class Reading:
    """How bodies are read."""

    def __init__(
        self, aside: Aside, allowances: Allowances, *, allow_remote: bool, room: Room | None = None
    ) -> None:
        """`allow_remote`: llama-server may fetch what a body names."""
        self.allowed = allowances
        self._room = room or Room()
        self._aside = aside
        self._allow_remote = allow_remote
        self._decoding = asyncio.Semaphore(DECODED_AT_ONCE)

    def holding(self, request: Request) -> Holding:
        """The memory that the request's body takes, for as long as the request is under way."""
        return Holding(self._room, household(request.address))

    async def body(
        self, request: Request, models: Sequence[str], holding: Holding, *, multipart: bool
    ) -> Body:
        """`models`: those that it may be for. Raises RequestError 400, 413, 415, 503."""
        allowed = self._enough(request, models)
        check_length(request, allowed)
        if multipart and len(models) == 1 and coding_of(request.headers) is None:
            return UNREAD
        if multipart:
            return await self._form(request, allowed, holding)
        return await self._json(request, allowed, holding)

    def _enough(self, request: Request, models: Sequence[str]) -> Allowance:
        """What the body may take until it has named one of the models."""
        first = self.allowed(models[0])
        plain = coding_of(request.headers) is None
        if plain and request.length is not None and request.length <= first.whole:
            return first  # and not the largest, which would have to be looked for at every request
        return max(map(self.allowed, models), key=lambda each: each.whole)

    async def pieces(self, request: Request, body: Body, model: str) -> AsyncIterator[bytes]:
        """What is to be sent, once: what the child has got is given up. Raises RequestError
        413."""
        if body.pieces is None:
            async for chunk in within(request.chunks(), self.allowed(model)):
                yield chunk
            return
        body.pieces.reverse()
        while body.pieces:
            yield body.pieces.pop()
        if body.holding is not None:
            body.holding.end()

    async def _json(self, request: Request, allowed: Allowance, holding: Holding) -> Body:
        pieces, found = self._at_once(request, allowed, holding), None
        if pieces is None:
            outline = Outline()
            pieces = await self._take(request, allowed, holding, outline)
            found = self._by_outline(outline, pieces)
        if found is None:
            pieces = joined(pieces)
            found = await self._by_whole(request, pieces)
        if found.repaired is not None:
            pieces = await cut(found.repaired)
        return Body(
            pieces,
            found.model,
            found.streams,
            found.several,
            found.asked,
            found.media,
            holding=holding,
        )

    def _at_once(
        self, request: Request, allowed: Allowance, holding: Holding
    ) -> list[bytes] | None:
        """A small body that is there with its head, as most are; else None."""
        if coding_of(request.headers) is not None:
            return None
        body = request.take_whole(PIECE)
        if body is None:
            return None
        allowed.check_whole(len(body))
        holding.grow(len(body))
        return [body]

    def _by_outline(self, outline: Outline, pieces: list[bytes]) -> Examined | None:
        outlined = outline.end() if len(pieces) > 1 else None
        if outlined is None:
            return None
        size = sum(map(len, pieces))
        return examine_outline(outlined, size, allow_remote=self._allow_remote)

    async def _by_whole(self, request: Request, pieces: list[bytes]) -> Examined:
        if quick(pieces):
            return examine(pieces[0], allow_remote=self._allow_remote)
        caller = household(request.address)
        return await self._aside.examine(pieces, allow_remote=self._allow_remote, caller=caller)

    async def _form(self, request: Request, allowed: Allowance, holding: Holding) -> Body:
        field = ModelField(boundary_of(request.header(b"content-type")))
        pieces = await self._take(request, allowed, holding)
        size = 0
        for piece in pieces:
            for begin in range(0, len(piece), SLICE):
                field.feed(piece[begin : begin + SLICE])
                await asyncio.sleep(0)
            size += len(piece)
        model = field.fields().get("model")
        return Body(pieces, model, media=size, is_json=False, holding=holding)

    async def _take(
        self, request: Request, allowed: Allowance, holding: Holding, outline: Outline | None = None
    ) -> list[bytes]:
        """`outline` is fed with what is returned, if that is more than one piece."""
        coded = coding_of(request.headers) is not None
        request.gives_way = True  # or slow bodies would take all places for connections
        pieces = await gather(request.chunks(), allowed, holding, None if coded else outline)
        request.gives_way = False
        if not coded:
            return pieces
        plain = await self._decode(request, pieces, allowed.whole)
        holding.grow(sum(map(len, plain)))
        if outline is not None and len(plain) > 1:
            for piece in plain:
                await follow(outline, piece)
        return list(plain)

    async def _decode(
        self, request: Request, pieces: Sequence[bytes], limit: int
    ) -> Sequence[bytes]:
        """The thread goes on if the client leaves: it is one of the few until it ends."""
        await self._decoding.acquire()
        decoding = asyncio.ensure_future(decoded(request.headers, pieces, limit))
        decoding.add_done_callback(self._end_decoding)
        return await asyncio.shield(decoding)

    def _end_decoding(self, decoding: asyncio.Future[Sequence[bytes]]) -> None:
        self._decoding.release()
        if not decoding.cancelled():
            decoding.exception()  # asyncio complains where the client has left meanwhile


def joined(pieces: list[bytes]) -> list[bytes]:
    """A small body in one piece: it is sent with the head."""
    small = len(pieces) > 1 and sum(map(len, pieces)) <= SMALL
    return [b"".join(pieces)] if small else pieces


def check_length(request: Request, allowed: Allowance) -> None:
    """Raises RequestError 413 before any of the body is taken."""
    length = request.length
    if length is not None:
        allowed.check_whole(length)


async def gather(
    chunks: AsyncIterator[bytes],
    allowed: Allowance,
    holding: Holding,
    outline: Outline | None = None,
) -> list[bytes]:
    """What arrives, in one piece if it is small. A client may send it byte by byte, and a piece of
    one byte would take 34. `outline` is fed with the pieces, if they are more than one. Raises
    RequestError 413, 503."""
    pieces: list[bytes] = []

    async def keep(piece: bytes) -> None:
        pieces.append(piece)
        if outline is not None:
            await follow(outline, piece)

    size, last = 0, bytearray()
    async for chunk in chunks:
        size += len(chunk)
        allowed.check_whole(size)
        holding.grow(len(chunk))
        if not last and len(chunk) >= PIECE:
            await keep(chunk)
            continue
        last += chunk
        if len(last) >= PIECE:
            await keep(bytes(last))
            last.clear()
    if not pieces:
        return [bytes(last)]
    if last:
        await keep(bytes(last))
    return pieces


async def follow(outline: Outline, piece: bytes) -> None:
    """Others have their turns meanwhile."""
    for begin in range(0, len(piece), FOLLOWED):
        outline.feed(piece[begin : begin + FOLLOWED])
        await asyncio.sleep(0)


async def cut(whole: bytes) -> list[bytes]:
    if len(whole) <= SMALL:
        return [whole]
    pieces = []
    for begin in range(0, len(whole), PIECE):
        pieces.append(whole[begin : begin + PIECE])
        await asyncio.sleep(0)
    return pieces


async def within(chunks: AsyncIterator[bytes], allowed: Allowance) -> AsyncIterator[bytes]:
    """The same chunks. Raises RequestError 413 where they are more than is allowed."""
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        allowed.check_whole(size)
        yield chunk
