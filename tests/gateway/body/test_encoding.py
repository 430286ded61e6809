"""Compressed bodies: what is decoded, what is refused, and that a bomb takes no memory."""

import gzip
import json
import random
import tracemalloc
import zlib

import pytest
from backports import zstd

from app.errors import RequestError
from app.gateway.body.encoding import PIECE, coding_of, decode
from tests.fakes import Child
from tests.gateway.front import Front, echo

PLAIN = b'{"messages": [{"role": "user", "content": "hi"}]}'
PACKED = {b"gzip": gzip.compress(PLAIN), b"zstd": zstd.compress(PLAIN)}
PACKED[b"X-GZIP"] = PACKED[b"gzip"]


def said(value):
    return b"content-encoding: " + value + b"\r\n"


@pytest.mark.parametrize("coding", PACKED)
def test_a_compressed_body_reaches_the_child_decoded(run, socket, coding):
    async def scenario():
        front = Front(("tiny",))
        async with Child(socket, echo) as child, front.before(socket):
            status, _, answer = await front.ask(body=PACKED[coding], headers=said(coding))
            assert (status, answer) == (200, PLAIN)
            assert "content-encoding" not in child.heads[0].lower()
            assert f"content-length: {len(PLAIN)}" in child.heads[0].lower()

    run(scenario)


def test_a_compressed_form_is_decoded_too(run, socket):
    form = b'--b\r\ncontent-disposition: form-data; name="x"\r\n\r\n1\r\n--b--\r\n'
    headers = said(b"gzip") + b"content-type: multipart/form-data; boundary=b\r\n"

    async def scenario():
        front = Front(("tiny",))
        async with Child(socket, echo) as child, front.before(socket):
            path = "/tiny/v1/audio/transcriptions"
            assert (await front.ask(path, gzip.compress(form), headers=headers))[2] == form
            assert "content-encoding" not in child.heads[0].lower()

    run(scenario)


@pytest.mark.parametrize("value", [b"br", b"deflate", b"gzip, gzip", b"gzip, br", b"compress"])
def test_another_coding_is_415_with_those_that_are_taken(run, socket, value):
    async def scenario():
        front = Front(("tiny",))
        async with Child(socket, echo) as child, front.before(socket):
            status, headers, answer = await front.ask(body=PLAIN, headers=said(value))
            assert (status, headers["accept-encoding"]) == (415, "gzip, zstd")
            assert "gzip or zstd" in json.loads(answer)["error"]["message"]
            assert child.heads == []

    run(scenario)


@pytest.mark.parametrize("given", [[], [b""], [b"identity"], [b" Identity , "]])
def test_a_body_that_is_not_compressed_is_left_as_it_is(given):
    assert coding_of([(b"content-encoding", value) for value in given]) is None


def test_two_headers_are_two_codings():
    with pytest.raises(RequestError) as refused:
        coding_of([(b"content-encoding", b"gzip"), (b"content-encoding", b"zstd")])
    assert refused.value.status == 415


def wide_window():
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    return compressor.compress(PLAIN) + compressor.flush()


@pytest.mark.parametrize(
    "coding, body",
    [
        pytest.param(b"gzip", PLAIN, id="gzip, but plain"),
        pytest.param(b"zstd", PLAIN, id="zstd, but plain"),
        pytest.param(b"gzip", b"", id="gzip, but empty"),
        pytest.param(b"zstd", b"", id="zstd, but empty"),
        pytest.param(b"gzip", PACKED[b"gzip"][:-1], id="gzip, cut off"),
        pytest.param(b"zstd", PACKED[b"zstd"][:-1], id="zstd, cut off"),
        pytest.param(b"gzip", PACKED[b"gzip"] * 2, id="gzip, twice"),
        pytest.param(b"zstd", PACKED[b"zstd"] * 2, id="zstd, twice"),
        pytest.param(b"gzip", PACKED[b"gzip"] * 9999, id="gzip, often"),
        pytest.param(b"zstd", PACKED[b"zstd"] * 9999, id="zstd, often"),
        pytest.param(b"gzip", zlib.compress(PLAIN), id="gzip, but deflate"),
        pytest.param(b"zstd", wide_window(), id="zstd, window of 128 MiB"),
    ],
)
def test_what_is_not_one_whole_stream_is_400(coding, body):
    with pytest.raises(RequestError) as refused:
        decode(coding, [body], 1 << 20)
    assert refused.value.status == 400


@pytest.mark.parametrize("coding, compress", [(b"gzip", gzip.compress), (b"zstd", zstd.compress)])
def test_a_bomb_is_413_and_takes_no_more_than_the_limit(coding, compress):
    bomb, limit = compress(b" " * (64 << 20)), 1 << 20
    assert len(bomb) < 1 << 17
    tracemalloc.start()
    try:
        with pytest.raises(RequestError) as refused:
            decode(coding, [bomb], limit)
        assert tracemalloc.get_traced_memory()[1] < 4 * limit
    finally:
        tracemalloc.stop()
    assert refused.value.status == 413
    assert sum(map(len, decode(coding, [compress(b" " * limit)], limit))) == limit


@pytest.mark.parametrize("coding, compress", [(b"gzip", gzip.compress), (b"zstd", zstd.compress)])
@pytest.mark.parametrize("noise", [0, 300_000])
def test_a_large_body_is_decoded_in_pieces_wherever_it_is_cut(coding, compress, noise):
    """So that the loop goes on meanwhile."""
    plain = random.Random(1).randbytes(noise) + b" " * 3_000_000
    packed = compress(plain)
    for cut in 1, 20, len(packed) // 2, len(packed) - 1:
        pieces = decode(coding, [packed[:cut], b"", packed[cut:]], len(plain))
        assert b"".join(pieces) == plain and max(map(len, pieces)) <= PIECE
    exact = compress(b" " * PIECE * 2)
    assert len(b"".join(decode(coding, [exact], PIECE * 2))) == PIECE * 2
