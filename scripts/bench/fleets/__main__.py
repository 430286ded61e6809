"""The door of a fleet, on one machine: which instance's cache it finds, what it adds to a request
and to a chunk, and how long it takes from zero to the first token.

`affinity` compares it with round robin over the same instances, with one instance that has as many
slots and as much memory as all of them, and with sglang-router's cache_aware policy where that is
installed in build/sglang-router. `zero` has a real clearml-agent take the task.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from app.models import tiny_writer
from scripts.bench.fleets import added, affinity, zero
from scripts.bench.fleets.chats import Size
from scripts.bench.fleets.machines import Machines, TimedServer
from scripts.bench.fronts.machine import describe

SMALL = Size(conversations=4, turns=2, system=20, question=20, answer=4)
CONTEXT = 1 << 15


def rows(options: argparse.Namespace) -> dict[str, Callable[[Machines], Iterator[str]]]:
    size, rounds = (SMALL, 1) if options.small else (Size(), options.rounds)
    requests, tokens = (3, 10) if options.small else (200, 500)
    return {
        "affinity": lambda machines: affinity.measure(machines, size, rounds),
        "added": lambda machines: added.measure(machines, requests, tokens, rounds),
        "zero": zero.measure,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench/fleet", description=__doc__)
    names = ["affinity", "added", "zero"]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="ROW")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="all rows in a minute, for tests")
    options = parser.parse_args()
    print(describe(), flush=True)
    begun = time.monotonic()
    for name in options.only:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
            weights = folder / "tiny.gguf"
            tiny_writer.write(weights, context=CONTEXT)
            api = stack.enter_context(TimedServer())
            machines = Machines(api, folder, str(weights), stack)
            for line in rows(options)[name](machines):
                print(line, flush=True)
    print(f"in {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
