"""Compressed request bodies (RFC 9110, 8.4): decoded here, because llama-server must not."""

from __future__ import annotations

import sys
import zlib

from app.errors import RequestError
from app.gateway.http.heads import Headers
from app.machine import threads

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CODINGS = (b"gzip", b"x-gzip", b"zstd")  # x-gzip is gzip (RFC 9110, 8.4.1.3)
ACCEPTED = [(b"accept-encoding", b"gzip, zstd")]  # of a 415's headers (RFC 9110, 15.5.16)
GZIP_ONLY = zlib.MAX_WBITS | 16
WINDOW = {int(zstd.DecompressionParameter.window_log_max): 23}  # 8 MiB of memory (RFC 9659)


def coding_of(headers: Headers) -> bytes | None:
    """How a body is compressed, if it is. Raises RequestError 415."""
    given = b",".join(value for name, value in headers if name == b"content-encoding")
    named = [coding.strip().lower() for coding in given.split(b",")]
    codings = [coding for coding in named if coding not in (b"", b"identity")]
    if not codings:
        return None
    if len(codings) > 1 or codings[0] not in CODINGS:
        message = "the body must be compressed with gzip or zstd, once, or not at all"
        raise RequestError(415, message, headers=ACCEPTED)
    return codings[0]


async def decoded(headers: Headers, body: bytes, limit: int) -> bytes:
    """The body without its compression. Raises RequestError 413 if it is then larger than `limit`
    bytes, of which no more are made; 400; 415."""
    coding = coding_of(headers)
    if coding is None:
        return body
    return await threads.run(decode, coding, body, limit)


def decode(coding: bytes, body: bytes, limit: int) -> bytes:
    """One frame or member, and nothing after it: many empty ones would take long to skip."""
    name = "zstd" if coding == b"zstd" else "gzip"
    decoder = zstd.ZstdDecompressor(options=WINDOW) if name == "zstd" else _gzip()
    try:
        plain = decoder.decompress(body, limit + 1)
    except (zlib.error, zstd.ZstdError) as error:
        raise RequestError(400, f"the body is not valid {name}: {error}") from None
    if len(plain) > limit:
        raise RequestError(413, f"the body is larger than {limit} bytes when it is decoded")
    if not decoder.eof or decoder.unused_data:
        raise RequestError(400, f"the body is not one whole {name} stream")
    return bytes(plain)


def _gzip() -> zlib._Decompress:
    return zlib.decompressobj(GZIP_ONLY)
