"""A small process that answers /health and nothing else: `idle.py SOCKET`."""

import contextlib
import os
import socket
import sys
import threading

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def answer(client: socket.socket) -> None:
    with client, contextlib.suppress(OSError):
        while client.recv(65536):
            client.sendall(OK)


with contextlib.suppress(FileNotFoundError):
    os.unlink(sys.argv[1])
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(16)
while True:
    threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()
