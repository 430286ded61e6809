"""From the start of a bare llama-server to its first token, with none of the model's file in the
page cache: as it is (mmap, and a warm-up run), and without the warm-up run, as the app brings a
model back: alone, with the file read ahead by the app's threads (`app.models.read_ahead`) from the
moment at which llama-server starts, and by the kernel (POSIX_FADV_WILLNEED); with `--modes` also
with llama-server's other load modes. In turns, there and back; each pair of rounds begins with
another one. `warm` is as it is with the whole file in the page cache.

What a host below this machine has cached is not seen from here: `a plain read` says how fast the
file comes when this machine's page cache has none of it.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from app.engine.capabilities import find  # noqa: E402
from app.machine import network  # noqa: E402
from app.models.read_ahead import ReadAhead  # noqa: E402
from scripts.bench.start import ENDS, model  # noqa: E402

CONTEXT = "2048"
PIECE = 8 << 20  # bytes that are read at once
MOST_CACHED = 0.01  # of a file that counts as cold
PATIENCE = 300.0  # seconds for a start
AS_IT_IS, COLD = "mmap, as it is", "--no-warmup"
MODES = ("none", "mlock", "mmap+mlock", "dio")


def cached(file: Path) -> float:
    """The part of the file that is in the page cache."""
    size, page = file.stat().st_size, mmap.PAGESIZE
    pages = -(-size // page)
    seen = (ctypes.c_ubyte * pages)()
    libc = ctypes.CDLL(None, use_errno=True)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY) as whole:
        first = ctypes.c_char.from_buffer(whole)
        address = ctypes.c_void_p(ctypes.addressof(first))
        failed = libc.mincore(address, ctypes.c_size_t(size), seen)
        del first
    if failed:
        raise OSError(ctypes.get_errno(), "mincore")
    return sum(each & 1 for each in seen) / pages


def cool(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if (left := cached(file)) > MOST_CACHED:
        raise SystemExit(f"{left:.0%} of {file} stay in the page cache")


def read(file: Path) -> None:
    buffer = bytearray(PIECE)
    with file.open("rb", buffering=0) as opened:
        while opened.readinto(buffer):
            pass


def want(file: Path) -> None:
    with file.open("rb") as opened:
        for at in range(0, file.stat().st_size, PIECE):
            os.posix_fadvise(opened.fileno(), at, PIECE, os.POSIX_FADV_WILLNEED)


def first_token(argv: list[str], port: int, ahead: Callable[[], None] | None) -> float:
    """Seconds."""
    begun = time.monotonic()
    with subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, cwd=ROOT
    ) as process:
        reader = threading.Thread(target=ahead or (lambda: None))
        reader.start()
        try:
            while process.poll() is None and time.monotonic() < begun + PATIENCE:
                if answers(port):
                    return time.monotonic() - begun
                time.sleep(0.01)
            raise SystemExit(f"{' '.join(argv)} does not answer: {process.poll()}")
        finally:
            process.terminate()
            try:
                process.wait(ENDS)
            except subprocess.TimeoutExpired:
                process.kill()
            reader.join()


def answers(port: int) -> bool:
    body = json.dumps({"prompt": "hello", "n_predict": 1}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/completion", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return bool(json.load(answer)["content"])
    except (urllib.error.URLError, ConnectionError):  # it is not listening yet, or loads
        return False


def ways(file: Path, modes: list[str]) -> dict[str, tuple[list[str], Callable[[], None] | None]]:
    """By name: further arguments, and what is done beside the start."""
    found: dict[str, tuple[list[str], Callable[[], None] | None]] = {AS_IT_IS: ([], None)}
    found["no warm-up"] = [COLD], None
    found |= {f"no warm-up, {mode}": ([COLD, "--load-mode", mode], None) for mode in modes}
    found["no warm-up, read ahead by us"] = [COLD], lambda: ReadAhead([file]).begin()
    found["no warm-up, read ahead by the kernel"] = [COLD], lambda: want(file)
    return found


def measure(file: Path, rounds: int, *, modes: bool) -> None:
    program, port = str(find("", os.environ)), network.free_port()
    argv = [program, "-m", str(file), "-c", CONTEXT, "--host", "127.0.0.1", "--port", str(port)]
    told = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    known = [mode for mode in MODES if mode in told] if modes and "--load-mode" in told else []
    choices = ways(file, known)
    found: dict[str, list[float]] = defaultdict(list)
    names = list(choices)
    for number in range(rounds):
        cool(file)
        begun = time.monotonic()
        read(file)
        found["a plain read"].append(time.monotonic() - begun)
        found["warm"].append(first_token(argv, port, None))
        turn = number // 2 % len(names)
        order = [*names[turn:], *names[:turn]]
        for name in reversed(order) if number % 2 else order:
            cool(file)
            further, ahead = choices[name]
            found[name].append(first_token([*argv, *further], port, ahead))
            print(f"{name}: {found[name][-1]:.2f} s", flush=True)
    report(found, file.stat().st_size)


def report(found: dict[str, list[float]], size: int) -> None:
    print(f"a file of {size / 1e6:,.0f} MB, seconds to the first token")
    for name, values in found.items():
        ratios = sorted(a / b for a, b in zip(values, found[AS_IT_IS], strict=True))
        print(
            f"{name}: {statistics.median(values):.2f} s, {statistics.median(ratios):.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f}) of {AS_IT_IS}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--file", type=Path, help="a model of your own, on a disk")
    parser.add_argument("--small", action="store_true", help="in a few seconds, for tests")
    parser.add_argument("--modes", action="store_true", help="llama-server's load modes, too")
    options = parser.parse_args()
    if options.file is not None:
        measure(options.file, options.rounds, modes=options.modes)
        return
    # Not /tmp, which may be in memory: nothing of that can be cold.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        file = model(Path(name), large=not options.small)
        measure(file, 1 if options.small else options.rounds, modes=options.modes)


if __name__ == "__main__":
    main()
