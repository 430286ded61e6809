"""How a body begins: by this a conversation is known again when its next turn comes. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

BLOCK = 1 << 10  # bytes
MOST = 256  # blocks: two conversations that are the same for so long are one


def beginnings(pieces: Sequence[bytes]) -> tuple[int, ...]:
    """The checksums of the first block, of the first two, and so on. The next turn of a
    conversation has the same ones, and more."""
    found: list[int] = []
    sum, left = 0, b""
    for piece in pieces:
        data = left + piece if left else piece
        end = min(len(data) - len(data) % BLOCK, (MOST - len(found)) * BLOCK)
        for at in range(0, end, BLOCK):
            sum = zlib.crc32(data[at : at + BLOCK], sum)
            found.append(sum)
        if len(found) == MOST:
            break
        left = data[end:]
    return tuple(found)
