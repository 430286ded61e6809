"""A real connection of the front on a wire in memory: what it answers to pieces of bytes."""

import asyncio
import re
from typing import NamedTuple

from app.gateway.http.connection import Connection
from app.gateway.http.limits import Limits
from app.gateway.http.shares import Shares
from app.gateway.http.turnstile import Turnstile
from tests.gateway.http.asking import whole

FINAL = re.compile(rb"^HTTP/1\.1 ([2-5]\d\d) ", re.M)
TURNS = 12  # of the loop: what no answer has come after, waits for more


class Outcome(NamedTuple):
    statuses: tuple[int, ...]
    closed: bool
    requests: tuple[tuple[str, str, tuple, bytes], ...]  # method, target, headers, body
    text: bytes


class Wire:
    """The transport of one connection, and the owner of it."""

    closing = False

    def __init__(self, limits=None, address="127.0.0.1"):
        self.limits = limits or Limits()
        self.turnstile = Turnstile()
        self.backlog = Shares(1 << 28, 1 << 27)
        self.address = address  # the client's
        self.requests, self.text, self.closed, self.reading = [], b"", False, True
        self.connection = Connection(self)
        self.connection.connection_made(self)

    # The owner's side.

    def allows(self, address):
        return True

    def admit(self, connection):
        return None

    def forget(self, connection):
        pass

    async def handler(self, request):
        body = await whole(request)
        self.requests.append((request.method, request.target, tuple(request.headers), body))
        request.reply(200, b"ok\n")

    # The transport's side.

    def get_extra_info(self, name):
        return (self.address, 1) if name == "peername" else None

    def get_write_buffer_size(self):
        return 0

    def is_closing(self):
        return self.closed

    def write(self, data):
        self.text += data

    def write_eof(self):
        self.closed = True

    close = abort = write_eof

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    # The client's side.

    def feed(self, data):
        if not self.closed and data:
            self.connection.data_received(data)

    def outcome(self):
        statuses = tuple(int(status) for status in FINAL.findall(self.text))
        return Outcome(statuses, self.closed, tuple(self.requests), self.text)

    def leave(self):
        self.connection.connection_lost(None)


async def talk(*pieces, limits=None):
    """What the front answers to these pieces, each of them read before the next one comes."""
    return (await talk_all([pieces], limits))[0]


async def talk_all(talks, limits=None):
    """The same for several connections at once."""
    wires = [Wire(limits) for _ in talks]
    for turn in range(max(len(pieces) for pieces in talks)):
        await rest(lambda: all(wire.reading for wire in wires))
        for wire, pieces in zip(wires, talks, strict=True):
            wire.feed(pieces[turn] if turn < len(pieces) else b"")
    await rest(lambda: False)
    outcomes = [wire.outcome() for wire in wires]
    for wire in wires:
        wire.leave()
    return outcomes


async def rest(enough):
    for _ in range(TURNS):
        if enough():
            return
        await asyncio.sleep(0)
