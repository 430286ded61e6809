"""A file from nginx on this machine, in the page cache: our download, its SHA-256 included, beside
curl, which does not hash; in turns. Then the same from a server that limits each connection.
"""

from __future__ import annotations

import argparse
import getpass
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from app.machine import network  # noqa: E402

CONFIGURATION = """
user {user}; daemon off; pid {folder}/pid; error_log {folder}/log;
events {{ worker_connections 512; }}
http {{
  access_log off; sendfile on;
  client_body_temp_path {folder}/t; proxy_temp_path {folder}/t; fastcgi_temp_path {folder}/t;
  uwsgi_temp_path {folder}/t; scgi_temp_path {folder}/t;
  server {{ listen 127.0.0.1:{port}; root {folder}/files; }}
  server {{ listen 127.0.0.1:{slow}; root {folder}/files; limit_rate {rate}; }}
}}
"""
FETCH = """
import hashlib, resource, sys, time
from pathlib import Path
from app.models.arrival import Content, Target, fetch
from app.models.web import Web
begun = time.monotonic()
web, to, digest = Web(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
found = web.find()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
content = Content(digest, found.size, digest, hashlib.sha256, found.version, found.ranges)
target = Target(to.with_suffix(".part"), to.exists, lambda part: part.placed(to))
fetch(web, content, target, lambda size: None)
print(time.monotonic() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@contextmanager
def server(folder: Path, rate: int) -> Iterator[tuple[str, str]]:
    """The addresses of the file, without and with a limit of `rate` bytes/s for a connection."""
    port, slow = network.free_port(), network.free_port()
    file = folder / "nginx.conf"
    file.write_text(
        CONFIGURATION.format(user=getpass.getuser(), folder=folder, port=port, slow=slow, rate=rate)
    )
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert nginx, "nginx is missing"
    process = subprocess.Popen([nginx, "-c", str(file), "-p", str(folder)])
    try:
        while not network.answers("127.0.0.1", slow, 1.0):
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/large", f"http://127.0.0.1:{slow}/large"
    finally:
        process.terminate()
        process.wait()


def ours(url: str, folder: Path, digest: str) -> tuple[float, int]:
    """Seconds, without the start of Python; KiB of memory that the download took."""
    to = folder / "ours"
    done = subprocess.run(
        [sys.executable, "-c", FETCH, url, str(to), digest],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    to.unlink()
    seconds, memory = done.stdout.split()
    return float(seconds), int(memory)


def curl(url: str, folder: Path) -> float:
    to = folder / "curl"
    begun = time.monotonic()
    subprocess.run(["curl", "-sf", "-o", str(to), url], check=True)
    seconds = time.monotonic() - begun
    to.unlink()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=1 << 30, help="bytes")
    parser.add_argument("--small", action="store_true", help="in a few seconds, for tests")
    options = parser.parse_args()
    size, rounds = (8 << 20, 1) if options.small else (options.size, options.rounds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "files").mkdir()
        data, hasher = os.urandom(1 << 20), hashlib.sha256()
        with (folder / "files" / "large").open("wb") as file:
            for number in range(size >> 20):
                piece = number.to_bytes(8, "big") + data[8:]
                hasher.update(piece)
                file.write(piece)
        digest = hasher.hexdigest()
        rate = size // 8  # of one connection; the line, as it were, has four times that
        with server(folder, rate) as (url, slow):
            for title, address in (("a file", url), ("with a limit for each connection", slow)):
                measure(title, address, folder, digest, size, rounds)


def measure(title: str, url: str, folder: Path, digest: str, size: int, rounds: int) -> None:
    found: dict[str, list[float]] = {"ours": [], "curl": []}
    memory = 0
    for number in range(rounds):
        for what in ("ours", "curl") if number % 2 else ("curl", "ours"):
            if what == "curl":
                found[what].append(curl(url, folder))
                continue
            seconds, took = ours(url, folder, digest)
            found[what].append(seconds)
            memory = max(memory, took)
    a, b = (statistics.median(found[what]) for what in ("ours", "curl"))
    ratios = sorted(c / o for o, c in zip(found["ours"], found["curl"], strict=True))
    print(
        f"{title} of {size / 1e6:,.0f} MB: ours {size / 1e6 / a:,.0f} MB/s, curl "
        f"{size / 1e6 / b:,.0f} MB/s, ours / curl {statistics.median(ratios):.2f} "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f}), memory +{memory / 1024:.0f} MiB"
    )


if __name__ == "__main__":
    main()
