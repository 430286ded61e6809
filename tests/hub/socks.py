"""A SOCKS5 proxy on this machine (RFC 1928), without authentication."""

import contextlib
import socket
import socketserver
import threading


class Socks:
    """`asked`: the host and port of each connection."""

    def __enter__(self):
        self.asked = []
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), self._serve)
        self._server.daemon_threads, self._server.block_on_close = True, False
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self):
        return f"socks5h://127.0.0.1:{self._server.server_address[1]}"

    def _serve(self, client, *_):
        with contextlib.suppress(OSError, IndexError):  # it leaves in mid-word
            self._pass_on(client)

    def _pass_on(self, client):
        incoming = client.makefile("rb")
        incoming.read(incoming.read(2)[1])  # methods
        client.sendall(b"\x05\x00")
        kind = incoming.read(4)[3]
        host = incoming.read({1: 4, 4: 16}.get(kind) or incoming.read(1)[0])
        numbers = {1: socket.AF_INET, 4: socket.AF_INET6}
        named = socket.inet_ntop(numbers[kind], host) if kind in numbers else host.decode()
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
