"""How long until a model is served: our app offline beside a bare llama-server, in turns.

Seconds from the process's start to the lines that say that it listens and that it serves. The app
starts once with an empty memory of models (`first`) and once more (`second`). With `--large` the
model has 1.3 GB, and a vocabulary of 262,144 tokens. Else it is the tiny one, and the resident
memory of the app is measured, too: when it is ready, and once the ClearML SDK (imported while the
model loads) has settled.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from app.engine.capabilities import find  # noqa: E402
from app.models import tiny  # noqa: E402
from app.planning.learned import FILE, PREDICTED  # noqa: E402
from scripts.bench import memory  # noqa: E402

LISTENING, READY = "listening on", "ready\n"
VOCABULARY = 262_144
CONTEXT = "2048"
ENDS = 15.0  # seconds for a process to end before it is killed


def until(command: list[str], lines: list[str], settle: float) -> tuple[list[float], list[int]]:
    """Seconds until each of the lines is printed, which come in this order; resident bytes then,
    and `settle` seconds later."""
    begun, seconds = time.monotonic(), []
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for text in process.stdout or ():
            if lines[len(seconds)] in text:
                seconds.append(time.monotonic() - begun)
            if len(seconds) == len(lines):
                break
        resident = [psutil.Process(process.pid).memory_info().rss]
        time.sleep(settle)
        resident.append(psutil.Process(process.pid).memory_info().rss)
        process.terminate()
        try:
            process.wait(ENDS)
        except subprocess.TimeoutExpired:  # llama-server may miss it just after it has begun
            process.kill()
    return seconds, resident


def model(folder: Path, *, large: bool) -> Path:
    if not large:
        return tiny.ensure(folder)
    memory.NAMES = "a"
    memory.make(folder, vocabulary=VOCABULARY)
    return folder / "a.gguf"


def measure(folder: Path, file: Path, options: argparse.Namespace) -> None:
    app = [sys.executable, "-m", "app", "--offline", "--cache-dir", str(folder), "--port", "0"]
    app += ["--model", str(file), "--set", f"Model/context_size={CONTEXT}"]
    bare = [str(find("", os.environ)), "-m", str(file), "-c", CONTEXT]
    bare += ["--host", f"{folder}/x.sock"]
    found: dict[str, list[float]] = defaultdict(list)
    resident: list[list[int]] = []
    for what in ["first", "second", "bare", "bare", "first", "second"] * options.rounds:
        if what == "bare":
            (folder / "x.sock").unlink(missing_ok=True)
            seconds, _ = until(bare, [LISTENING], 0.0)
            found["bare, ready"] += seconds
        else:
            for kept in (FILE, PREDICTED) if what == "first" else ():
                (folder / kept).unlink(missing_ok=True)
            seconds, used = until(app, [LISTENING, READY], 0.0 if options.large else 3.0)
            found[f"app, {what} start, listening"].append(seconds[0])
            found[f"app, {what} start, ready"].append(seconds[1])
            resident.append(used)
        print(f"{what:6}", *(f"{each:.2f} s" for each in seconds), flush=True)
    for what, values in found.items():
        print(f"median {what}: {statistics.median(values):.2f} s")
    if not options.large:
        ready, settled = map(statistics.median, zip(*resident, strict=True))
        print(f"resident memory of the app: {ready / 1e6:.0f} MB, {settled / 1e6:.0f} MB 3 s later")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of each, there and back")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--small", action="store_true", help="in a few seconds, for tests")
    options = parser.parse_args()
    if options.small:
        options.rounds = 1
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.environ["CLEARML_CACHE_DIR"] = name
        measure(Path(name), model(Path(name), large=options.large), options)


if __name__ == "__main__":
    main()
