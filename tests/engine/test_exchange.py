"""An answer in chunks, however it is cut."""

import asyncio

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from app.engine.exchange import ChildConnection, Exchange
from app.engine.passage import Passage

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
# What a chunk may have in it, and what may look like one.
PIECES = [b"data: a\n\n", b": ping\n\n", b"\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"x" * 300, b"1"]
SIZES = (b"%x", b"%X", b"0%x", b"%x;name=value")


class Wire:
    """Takes the place of the transport, and of the pool of connections."""

    progress, aside, peer, doubtful, broken = 0, 0, "llama-server", False, False

    def __init__(self):
        self.closed, self.released = False, 0

    def writelines(self, pieces): ...

    def abort(self):
        self.closed = True

    def is_closing(self):
        return self.closed

    def resume_reading(self): ...

    def release(self, connection):
        self.released += 1

    def forget(self, connection): ...


class Only(Wire):
    """A pool of one connection."""

    def __init__(self, connection):
        super().__init__()
        self.connection = connection

    async def acquire(self, fresh=False):
        return self.connection


class Sink:
    """Takes an answer; with `passes`, what comes after its first piece passes it by."""

    def __init__(self, passes=False):
        self.body, self.ended = b"", 0
        self.passage, self._passes, self.passed = None, passes, 0

    def head(self, status, headers): ...

    def flush(self): ...

    def data(self, chunk):
        assert self.ended == 0 and chunk
        self.body += chunk
        if self._passes and self.passage is None:
            self.passage = Passage(self)

    def is_closing(self):
        return False

    def write(self, data):
        """Of the client's transport."""
        assert self.ended == 0
        size, _, rest = data.partition(b"\r\n")
        assert data == b"%x\r\n%b\r\n" % (int(size, 16), rest[:-2])
        self.body += rest[:-2]
        self.passed += 1

    def complete(self):
        self.ended += 1

    def failed(self, error):
        self.ended = -1


def exchanged(pieces, passes=False):
    """What the sinks of two answers in a row have got, each in these pieces, and the wire."""

    async def scenario():
        wire, sinks = Wire(), [Sink(passes), Sink(passes)]
        connection = ChildConnection(wire)
        connection.connection_made(wire)
        for sink in sinks:
            connection.begin(Exchange(wire, [b""], sink))
            for piece in pieces:
                connection.data_received(piece)
        return sinks, wire

    return asyncio.run(scenario())


@given(
    some.lists(some.tuples(some.sampled_from(PIECES), some.sampled_from(SIZES)), max_size=6),
    some.sets(some.integers(0, 900), max_size=9),
    some.booleans(),
    some.booleans(),
)
@example([(PIECES[0], SIZES[0])], set(), True, False)
@example([(PIECES[0], SIZES[0])] * 3, set(), True, True)
def test_an_answer_is_the_same_however_it_is_cut(chunks, cuts, by_chunk, passes):
    framed = [(size % len(data)) + b"\r\n" + data + b"\r\n" for data, size in chunks]
    sent = [HEAD, *framed, END]
    if not by_chunk:
        whole = b"".join(sent)
        places = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]
        sent = [whole[a:b] for a, b in zip(places, places[1:], strict=False)]
    sinks, wire = exchanged([piece for piece in sent if piece], passes)
    body = b"".join(data for data, _ in chunks)
    assert [(sink.body, sink.ended) for sink in sinks] == [(body, 1)] * 2
    assert wire.released == 2 and not wire.closed


LIKE_ONE = b"5\r\nhello\r\n"


@pytest.mark.parametrize(
    "pieces, body",
    [
        ([b"c\r\n\r\n", LIKE_ONE, b"\r\n", END], b"\r\n" + LIKE_ONE),
        ([b"1", b"5\r\nhello\r\n", b"x" * 14 + b"\r\n", END], b"hello\r\n" + b"x" * 14),
        ([b"3\r\nabc\r\n", LIKE_ONE[:-1], b"\n", END], b"abchello"),
        ([LIKE_ONE + LIKE_ONE, LIKE_ONE, END], b"hello" * 3),
        (
            [LIKE_ONE + b"1", LIKE_ONE, b"x" * 14 + b"\r\n", END],
            b"hello" + b"hello\r\n" + b"x" * 14,
        ),
    ],
    ids=[
        "inside a chunk",
        "behind half a size",
        "without its end",
        "behind two",
        "behind one and a half",
    ],
)
@pytest.mark.parametrize("passes", [False, True])
def test_what_looks_like_a_whole_chunk_need_not_be_one(pieces, body, passes):
    if passes:
        pieces, body = [LIKE_ONE, *pieces], b"hello" + body
    (_, sink), _ = exchanged([HEAD, *pieces], passes)
    assert (sink.body, sink.ended) == (body, 1)


@pytest.mark.parametrize("wrong", [b"5\r\nhelloXY", b"6\r\nhello\r\n", b"5\r\nhello\r\r\n"])
def test_what_is_no_chunk_ends_the_answer(wrong):
    (sink, _), wire = exchanged([HEAD, wrong, LIKE_ONE, LIKE_ONE])
    assert sink.ended == -1 and sink.body in (b"", b"hello") and wire.closed


def test_whole_chunks_pass_the_sink_by_once_it_lets_them():
    pieces = [LIKE_ONE, LIKE_ONE, LIKE_ONE[:4], LIKE_ONE[4:], LIKE_ONE, END]
    sinks, wire = exchanged([HEAD, *pieces], passes=True)
    assert wire.progress == 2 * 5  # each read is a sign of work
    for sink in sinks:
        assert (sink.body, sink.ended, sink.passed) == (b"hello" * 4, 1, 2)


def test_nothing_passes_an_exchange_that_was_left():
    async def scenario():
        wire, sink = Wire(), Sink(passes=True)
        connection = ChildConnection(wire)
        connection.connection_made(wire)
        exchange = Exchange(connections := Only(connection), [b""], sink)
        await exchange.begin()
        for piece in (HEAD, LIKE_ONE, LIKE_ONE):
            connection.data_received(piece)
        exchange.abort()
        connection.data_received(LIKE_ONE)
        return sink, wire, connections

    sink, wire, _ = asyncio.run(scenario())
    assert sink.body == b"hello" * 2 and wire.closed


def test_a_chunk_without_a_head_is_no_answer():
    """It comes on a connection whose last answer came in chunks."""
    wire, first, second = Wire(), Sink(), Sink()

    async def scenario():
        connection = ChildConnection(wire)
        connection.connection_made(wire)
        for sink, pieces in ((first, [HEAD, LIKE_ONE, END]), (second, [LIKE_ONE])):
            exchange = Exchange(wire, [b""], sink)
            exchange.replayable = False
            connection.begin(exchange)
            for piece in pieces:
                connection.data_received(piece)

    asyncio.run(scenario())
    assert first.ended == 1 and (second.ended, second.body) == (-1, b"")
