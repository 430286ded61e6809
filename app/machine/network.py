"""Listening and connecting: the only place that opens sockets."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import ssl
import struct
import sys
import termios
from collections.abc import Callable, Iterator
from typing import Any

LOOPBACK = "127.0.0.1"
BACKLOG = 1024
HANDSHAKE = 10.0  # seconds for that of TLS
# In which a loop breaks a TLS connection that it closes, with all that it still has to send (by
# default 30): whoever listens knows better when a client takes too long.
SHUTDOWN = 86_400.0

TCP_INFO_SIZE, BYTES_ACKED = 128, 120  # of Linux's `struct tcp_info`, and where it has a u64

Factory = Callable[[], asyncio.BaseProtocol]


async def listen(
    factory: Factory, host: str, port: int, tls: ssl.SSLContext | None = None
) -> asyncio.Server:
    """Accept connections, by TLS with a context; port 0 is any free one. Raises OSError."""
    loop = asyncio.get_running_loop()
    patience: dict[str, Any] = {}
    if tls is not None:
        patience["ssl_handshake_timeout"] = HANDSHAKE
        if sys.version_info >= (3, 11) or not isinstance(loop, asyncio.BaseEventLoop):
            patience["ssl_shutdown_timeout"] = SHUTDOWN  # asyncio's own loops before 3.11 have none
    with _naming():
        return await loop.create_server(factory, host, port, backlog=BACKLOG, ssl=tls, **patience)


async def connect(factory: Factory, port: int, host: str = LOOPBACK) -> None:
    """Connect to a port, by default of this machine. Raises OSError."""
    await asyncio.get_running_loop().create_connection(factory, host, port)


async def connect_unix(factory: Factory, path: str) -> None:
    """Raises OSError; BlockingIOError where more connect at once than the backlog holds."""
    await asyncio.get_running_loop().create_unix_connection(factory, path)


def hold(path: str) -> int | None:
    """A descriptor of the Unix socket's file there, for `held`; None where the system gives none,
    or no /proc leads to it. Raises FileNotFoundError."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise
    except OSError:  # no descriptor is left, or a sandbox knows no O_PATH
        return None
    if os.path.exists(held(descriptor)):
        return descriptor
    os.close(descriptor)
    return None


def held(descriptor: int) -> str:
    """A path that leads to what `hold` opened, whatever becomes of its own path: proc(5)."""
    return f"/proc/self/fd/{descriptor}"


def unacknowledged(transport: asyncio.BaseTransport) -> int:
    """Bytes that the kernel has of what was written, and that have not arrived at the peer (of a
    Unix socket: that it has not read). 0 where nobody can tell."""
    end = transport.get_extra_info("socket")
    if end is None:
        return 0
    try:
        told = fcntl.ioctl(end.fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):  # it is closed
        return 0
    return int(struct.unpack("i", told)[0])


def acknowledged(transport: asyncio.BaseTransport) -> int | None:
    """Bytes that have arrived at the peer in all (TCP_INFO of Linux 4.1, tcp(7)); None where nobody
    can tell: of a Unix socket, and where the kernel says 0, as one does that does not count."""
    end = transport.get_extra_info("socket")
    if end is None or end.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        told = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
    except (OSError, ValueError):
        return None
    if len(told) < TCP_INFO_SIZE:
        return None  # an older kernel
    return int(struct.unpack_from("Q", told, BYTES_ACKED)[0]) or None


def answers(host: str, port: int, timeout: float) -> bool:
    """Whether anybody takes connections there within `timeout` seconds; blocks meanwhile."""
    try:
        with socket.create_connection((host, port), timeout):
            return True
    except OSError:
        return False


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        return int(taken.getsockname()[1])


def own_address() -> str:
    """The address by which other machines reach this one, as far as it can tell by itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only picks the interface
        except OSError:
            return LOOPBACK
        return str(probe.getsockname()[0])


@contextlib.contextmanager
def _naming() -> Iterator[None]:
    """What can be no name of a host is an OSError, as one that nobody has."""
    try:
        yield
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, "no name of a host") from None


def addresses(host: str, port: int) -> list[str]:
    """The IP addresses of a name. Raises OSError; blocks."""
    with _naming():
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
