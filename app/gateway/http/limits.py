"""What clients, who may be hostile, may take of the front. Sizes in bytes, times in seconds."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Limits:
    connections: int = 2048
    of_one_address: int = 1024  # of the connections; a gateway's callers have all one address
    target: int = 16 * 1024  # llama-server takes 32 KiB
    head: int = 64 * 1024  # request line and headers
    headers: int = 128
    pipelined: int = 16  # requests that wait behind the one being answered
    buffered: int = 256 * 1024  # of a request body that nobody has read yet
    head_time: float = 15.0  # from a head's first byte to its last
    body_pause: float = 30.0  # between two pieces of a body
    body_time: float = 600.0  # from a body's first byte to its last
    body_grace: float = 20.0  # after which a body must have kept to the least rate
    body_rate: float = 1024.0  # bytes a second, the least
    chunk_extra: int = 8 * 1024  # of chunk extensions and trailers, besides what each chunk may
    keep_alive: float = 75.0  # between two requests
    write_pause: float = 120.0  # for which a client may take less than `write_least`
    write_least: int = 48 * 1024  # of what waits for it
    write_hold: float = 10.0  # the same, if it holds a model back, or room is short
    unread: int = 8 * 1024 * 1024  # of an answer, beyond which its model is held back
    unread_together: int = 256 * 1024 * 1024  # of all answers
    linger: float = 2.0  # for which the rest of a refused body is read and dropped
    sweep: float = 1.0  # between two looks at the clocks
