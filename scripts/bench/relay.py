"""What a relayed streaming token costs: our front beside nginx (Debian: nginx-light), ABBA order.

A stub upstream on a Unix socket answers each request with `--chunks` events, one every 10 ms;
`--streams` clients read them through the front, or through nginx without buffering. Measured is
the CPU time of the relaying process alone (user and system), so that a busy machine disturbs
little; what is compared is the ratio of the medians.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import getpass
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from app.engine.http import Address, Client  # noqa: E402
from app.gateway.admission import Keys  # noqa: E402
from app.gateway.http.server import HttpServer  # noqa: E402
from app.gateway.proxy import Proxy, Rules  # noqa: E402
from app.memory.ledger import Model  # noqa: E402
from app.memory.pool import Pool  # noqa: E402

DELTA = {
    "choices": [{"finish_reason": None, "index": 0, "delta": {"content": " word"}}],
    "created": 1795403945,
    "id": "chatcmpl-TVS5CEBUsSIQ34ABmSC2Ty2KErBoZI8M",
    "model": "bench",
    "system_fingerprint": "b1-0c1e570",
    "object": "chat.completion.chunk",
}
EVENT = b"data: " + json.dumps(DELTA, separators=(",", ":")).encode() + b"\n\n"
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"Keep-Alive: timeout=5, max=100\r\n\r\n"
)
BODY = b'{"model":"bench","messages":[{"role":"user","content":"Hello"}],"stream":true}'
REQUEST = (
    b"POST /bench/v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
NGINX = """
user {user}; daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream child {{ server unix:{folder}/x.sock; keepalive 256; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://child; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


async def stub(path: str, chunks: int) -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
                await reader.readexactly(int(length))
                writer.write(HEAD)
                for _ in range(chunks):
                    writer.write(CHUNK)
                    await asyncio.sleep(0.01)
                writer.write(b"0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_unix_server(client, path, backlog=1024)
    await server.serve_forever()


class Running:
    """A server that is always up."""

    progress = None

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def exited(self) -> int:
        await asyncio.sleep(1e6)
        return 0

    def explain(self, code: int) -> str:
        return str(code)

    def parked_size(self) -> int:
        return 0

    async def measure(self) -> None: ...

    def usage(self) -> dict[str, int]:
        return {}

    def took(self, sizes: object) -> None: ...


async def front(path: str, port: int) -> None:
    pool: Pool[Client] = Pool([Model("bench")], {"host": 1 << 40}, time.monotonic)
    pool.provide("bench", Running(), Client(Address(path), "key"), {"host": 1})
    proxy = Proxy(pool, ("bench",), Rules(Keys([])), {}, lambda sample: None)
    await HttpServer(proxy).start("127.0.0.1", port)
    await asyncio.sleep(1e6)


async def load(port: int, streams: int) -> int:
    """Read so many streams to their ends at the same time: the chunks that came."""

    async def one() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        seen, tail = 0, b""
        while not tail.endswith(b"\r\n0\r\n\r\n"):
            data = await reader.read(65536)
            if not data:
                break
            seen += data.count(b"data: ")
            tail = (tail + data)[-16:]
        writer.close()
        return seen

    return sum(await asyncio.gather(*(one() for _ in range(streams))))


@contextlib.contextmanager
def running(command: list[str], family: int, address: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process, once it takes connections at that address."""
    with subprocess.Popen(command) as process:
        try:
            while not listens(family, address):
                assert process.poll() is None, f"it has ended: {command}"
                time.sleep(0.05)
            yield process
        finally:
            process.terminate()


def listens(family: int, address: object) -> bool:
    with socket.socket(family) as probe:
        return probe.connect_ex(address) == 0


def cpu(pid: int) -> float:
    """Seconds that the process has used, and its children (nginx's worker)."""
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    return sum(sum(member.cpu_times()[:2]) for member in family)


def measure(folder: Path, what: str, options: argparse.Namespace) -> float:
    """Microseconds of CPU per relayed chunk."""
    port = options.port
    if what == "nginx":
        conf = folder / "nginx.conf"
        conf.write_text(NGINX.format(folder=folder, port=port, user=getpass.getuser()))
        command = [shutil.which("nginx") or "nginx", "-c", str(conf), "-p", str(folder)]
    else:
        script = options.beside / "scripts/bench/relay.py" if what == "beside" else __file__
        command = [sys.executable, str(script), "front", str(folder / "x.sock"), str(port)]
    with running(command, socket.AF_INET, ("127.0.0.1", port)) as relay:
        before = cpu(relay.pid)
        chunks = uvloop.run(load(port, options.streams))
        used = cpu(relay.pid) - before
    expected = options.streams * options.chunks
    assert chunks == expected, f"{what}: {chunks} of {expected} chunks came"
    return used / chunks * 1e6


def main() -> None:
    if sys.argv[1:2] == ["stub"]:
        uvloop.run(stub(sys.argv[2], int(sys.argv[3])))
    if sys.argv[1:2] == ["front"]:
        uvloop.run(front(sys.argv[2], int(sys.argv[3])))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=128)
    parser.add_argument("--chunks", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5, help="of ABBA")
    parser.add_argument("--port", type=int, default=18123)
    parser.add_argument("--beside", type=Path, help="another checkout of ours, in the same run")
    options = parser.parse_args()
    peers = ["front", *(["beside"] if options.beside else [])]
    peers += ["nginx"] if shutil.which("nginx") else []
    order = (peers + peers[::-1]) * options.rounds
    found: dict[str, list[float]] = {peer: [] for peer in peers}
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        arguments = ["stub", str(folder / "x.sock"), str(options.chunks)]
        upstream = [sys.executable, __file__, *arguments]
        with running(upstream, socket.AF_UNIX, str(folder / "x.sock")):
            for peer in order:
                found[peer].append(measure(folder, peer, options))
                print(f"{peer:7} {found[peer][-1]:6.1f} µs per chunk", flush=True)
    medians = {peer: statistics.median(values) for peer, values in found.items()}
    print("medians:", ", ".join(f"{peer} {value:.1f} µs" for peer, value in medians.items()))
    for peer in peers[1:]:
        print(f"ratio front / {peer}: {medians['front'] / medians[peer]:.2f}")


if __name__ == "__main__":
    main()
