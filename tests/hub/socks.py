"""A SOCKS5 proxy on this machine (RFC 1928), without authentication."""

import contextlib
import socket
import threading
from socketserver import StreamRequestHandler

from tests.threaded import ThreadedServer

FAMILIES = {1: socket.AF_INET, 4: socket.AF_INET6}  # by the type of an address
SIZES = {1: 4, 4: 16}


class Socks(ThreadedServer):
    """`asked`: the host and port of each connection."""

    def __init__(self):
        self.asked = []

    def handler(self):
        return type("Bound", (Handler,), {"asked": self.asked})

    @property
    def url(self):
        return super().url.replace("http", "socks5h")


class Handler(StreamRequestHandler):
    def handle(self):
        with contextlib.suppress(OSError, IndexError):  # it leaves in mid-word
            self._pass_on()

    def _pass_on(self):
        incoming, client = self.rfile, self.connection
        incoming.read(incoming.read(2)[1])  # methods
        client.sendall(b"\x05\x00")
        kind = incoming.read(4)[3]
        host = incoming.read(SIZES.get(kind) or incoming.read(1)[0])
        named = socket.inet_ntop(FAMILIES[kind], host) if kind in FAMILIES else host.decode()
        port = int.from_bytes(incoming.read(2), "big")
        self.asked.append((named, port))
        with socket.create_connection((named, port)) as there:
            client.sendall(b"\x05\x00\x00\x01" + bytes(6))
            threading.Thread(target=_pump, args=(there, client), daemon=True).start()
            _pump(client, there)


def _pump(source, target):
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
