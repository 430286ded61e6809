"""Whether ClearML's file server answers. Runs in the SDK's thread."""

from __future__ import annotations

from urllib.parse import urlsplit

from app.machine import network
from app.task.sdk import ClearMLError

DEADLINE = 3.0
PORTS = {"http": 80, "https": 443}


def check(url: str) -> None:
    """Raises ClearMLError if the file server accepts no connection: an upload by the SDK would try
    for minutes, and delay the scalars meanwhile. Other storage (S3, a folder) is not checked."""
    server = urlsplit(url)
    there = bool(server.scheme)
    if server.scheme in PORTS:
        port = server.port or PORTS[server.scheme]
        there = network.answers(server.hostname or "", port, DEADLINE)
    if not there:
        name = server.netloc.rpartition("@")[2]  # without credentials
        raise ClearMLError(f"no page of examples: the file server {name} does not answer")
