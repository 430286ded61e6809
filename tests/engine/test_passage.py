"""Chunks that come whole, past the parser."""

import pytest

from app.engine.passage import KEPT, Passage, silent, size_line


def framed(content):
    return b"%x\r\n%b\r\n" % (len(content), content)


class Wire:
    """Takes the place of the client's transport."""

    def __init__(self):
        self.written, self.closing = b"", False

    def write(self, data):
        assert not self.closing
        self.written += data

    def is_closing(self):
        return self.closing


@pytest.mark.parametrize("size", [1, 15, 16, 255, 256, 4095, 4096, 65_535, 65_536, 1_048_575])
def test_a_chunk_begins_with_the_size_line_of_its_length(size):
    whole = framed(b"x" * size)
    assert whole.startswith(size_line(len(whole)))


def test_reads_whose_length_no_chunk_has_begin_with_no_size_line():
    lengths = {len(framed(b"x" * size)) for size in range(1, 70_000)}
    for length in set(range(70_000)) - lengths:  # the last chunk's, and around every further digit
        assert len(size_line(length)) > length


def test_a_whole_chunk_goes_on_as_it_came():
    passage = Passage(wire := Wire())
    contents = [b"data: %d\n\n" % number for number in range(200)]
    assert all(passage.takes(framed(content)) for content in contents)
    assert wire.written == b"".join(map(framed, contents))
    assert (passage.pieces, passage.size) == (200, len(b"".join(contents)))
    assert passage.take_last() == contents[-KEPT:]
    assert passage.take_last() == []
    assert KEPT >= 3  # llama-server's last events: usage, timings, [DONE]


@pytest.mark.parametrize(
    "read",
    [
        b"0\r\n\r\n",
        framed(b"data: a\n\n") + b"0\r\n\r\n",
        framed(b"data: a\n\n") * 2,
        framed(b"data: a\n\n")[:-1],
        framed(b"data: a\n\n") + b"1",
        framed(b": a comment\n\n"),
        framed(b"data: null\n\n"),
        b"9;name=value\r\ndata: a\n\n\r\n",
        b"09\r\ndata: a\n\n\r\n",
        b"A\r\ndata: ab\n\n\r\n",
        b"5\r\nhelloXY",
        b"f\r\n0123456789abcdef\r\n",  # one byte more than it says
        b"",
    ],
)
def test_anything_else_is_left_to_the_parser(read):
    passage = Passage(wire := Wire())
    assert not passage.takes(read)
    assert wire.written == b"" and (passage.pieces, passage.size, passage.take_last()) == (0, 0, [])


def test_a_chunk_that_has_what_is_heeded_is_left_to_the_parser():
    passage = Passage(wire := Wire(), b"event: error")
    assert passage.takes(framed(b"event: delta\n\n"))
    assert not passage.takes(framed(b"event: error\n\n"))
    assert wire.written == framed(b"event: delta\n\n")


def test_nothing_is_written_to_a_client_that_has_left():
    passage = Passage(wire := Wire())
    wire.closing = True
    assert passage.takes(framed(b"data: a\n\n"))
    assert passage.pieces == 1


def test_a_read_that_begins_with_a_comment_may_bring_an_event():
    assert silent(b": ping\n\n") and silent(b"data: null\n\n")
    assert not silent(b": ping\n\ndata: a\n\n")
