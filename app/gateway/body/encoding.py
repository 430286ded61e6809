"""Compressed request bodies (RFC 9110, 8.4): decoded here, because llama-server must not."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from app.errors import RequestError
from app.gateway.http.heads import Headers
from app.machine import threads

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CODINGS = (b"gzip", b"x-gzip", b"zstd")  # x-gzip is gzip (RFC 9110, 8.4.1.3)
SLICE = 64 * 1024  # bytes of a body that are decoded at a time
PIECE = 256 * 1024  # bytes, at most, that are made at a time
ACCEPTED = [(b"accept-encoding", b"gzip, zstd")]  # of a 415's headers (RFC 9110, 15.5.16)
GZIP_ONLY = zlib.MAX_WBITS | 16
WINDOW = {int(zstd.DecompressionParameter.window_log_max): 23}  # 8 MiB of memory (RFC 9659)


class Decoder(Protocol):
    """What zlib's and zstd's have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def coding_of(headers: Headers) -> bytes | None:
    """How a body is compressed, if it is. Raises RequestError 415."""
    given = [value for name, value in headers if name == b"content-encoding"]
    if not given:
        return None
    named = [coding.strip().lower() for coding in b",".join(given).split(b",")]
    codings = [coding for coding in named if coding not in (b"", b"identity")]
    if not codings:
        return None
    if len(codings) > 1 or codings[0] not in CODINGS:
        message = "the body must be compressed with gzip or zstd, once, or not at all"
        raise RequestError(415, message, headers=ACCEPTED)
    return codings[0]


async def decoded(headers: Headers, body: Sequence[bytes], limit: int) -> Sequence[bytes]:
    """The pieces of a body without its compression. Raises RequestError 413 if it is then larger
    than `limit` bytes, of which no more are made; 400; 415."""
    coding = coding_of(headers)
    if coding is None:
        return body
    return await threads.run(decode, coding, body, limit)


def decode(coding: bytes, body: Iterable[bytes], limit: int) -> list[bytes]:
    """Of one frame or member, and nothing after it: many empty ones would take long to skip. The
    loop's thread runs between two pieces of at most PIECE bytes, and while one is made."""
    name = "zstd" if coding == b"zstd" else "gzip"
    decoder: Decoder = zstd.ZstdDecompressor(options=WINDOW) if name == "zstd" else _gzip()
    pieces, size = [], 0
    try:
        for piece in _plain(decoder, body):
            size += len(piece)
            if size > limit:
                message = f"the body is larger than {limit} bytes when it is decoded"
                raise RequestError(413, message)
            pieces.append(piece)
    except (zlib.error, zstd.ZstdError, EOFError) as error:
        raise RequestError(400, f"the body is not valid {name}: {error}") from None
    if not decoder.eof or decoder.unused_data:
        raise RequestError(400, f"the body is not one whole {name} stream")
    return pieces


def _plain(decoder: Decoder, body: Iterable[bytes]) -> Iterator[bytes]:
    for rest in _slices(body):
        if decoder.eof:
            raise EOFError("there is more after its end")
        more = True
        while more:
            made = decoder.decompress(rest, PIECE)
            yield made
            rest = getattr(decoder, "unconsumed_tail", b"")  # zstd keeps what is left itself
            more = not decoder.eof and (bool(rest) or len(made) == PIECE)


def _slices(body: Iterable[bytes]) -> Iterator[bytes]:
    for piece in body:
        for begin in range(0, len(piece), SLICE):
            yield piece[begin : begin + SLICE]


def _gzip() -> Decoder:
    return zlib.decompressobj(GZIP_ONLY)
