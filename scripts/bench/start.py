"""How long until the tiny model is served: our app offline beside a bare llama-server, ABBA order.

Seconds from the process's start to the line that says it serves; and the app's resident memory
then, and once the ClearML SDK (imported while the model loads) has settled.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from app.engine.capabilities import find  # noqa: E402
from app.models import tiny  # noqa: E402


def until(command: list[str], line: str, settle: float) -> tuple[float, list[int]]:
    """Seconds until `line` is printed, and resident bytes then and `settle` seconds later."""
    begun = time.monotonic()
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for text in process.stdout or ():
            if line in text:
                break
        seconds = time.monotonic() - begun
        memory = [psutil.Process(process.pid).memory_info().rss]
        time.sleep(settle)
        memory.append(psutil.Process(process.pid).memory_info().rss)
        process.terminate()
    return seconds, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of ABBA")
    parser.add_argument("--small", action="store_true", help="in a few seconds, for tests")
    options = parser.parse_args()
    if options.small:
        options.rounds = 1
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        model = tiny.ensure(Path(name))
        os.environ["CLEARML_CACHE_DIR"] = name
        app = [sys.executable, "-m", "app", "--offline", "--cache-dir", name, "--port", "0"]
        bare = [str(find("", os.environ)), "-m", str(model), "--host", f"{name}/x.sock"]
        found: dict[str, list[float]] = {"app": [], "bare": []}
        memory: list[list[int]] = []
        for what in ["app", "bare", "bare", "app"] * options.rounds:
            if what == "app":
                seconds, used = until(app, "ready\n", 3.0)
                memory.append(used)
            else:
                (Path(name) / "x.sock").unlink(missing_ok=True)
                seconds, _ = until(bare, "listening on", 0.0)
            found[what].append(seconds)
            print(f"{what:4} {seconds:.2f} s", flush=True)
    for what, values in found.items():
        print(f"median {what}: {statistics.median(values):.2f} s")
    for when, values in zip(("ready", "3 s later"), zip(*memory, strict=True), strict=True):
        print(f"resident memory of the app, {when}: {statistics.median(values) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
