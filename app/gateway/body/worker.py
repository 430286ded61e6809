"""The worker: the child that examines large bodies, one after the other, from its standard input.

A body comes after a line with its size and whether remote media are allowed (0 or 1). The answer
is a line with two sizes, a JSON object, and the repaired body (nothing, if there is none).
"""

from __future__ import annotations

import gc
import json
import os
import sys
from dataclasses import asdict

from app.errors import RequestError
from app.gateway.body.examine import examine

POLITE = 5  # the app and its streams go first
LONGEST_NAME = 4096  # characters of a model's name


def main() -> None:
    os.nice(POLITE)
    gc.disable()  # it looks through a million values again and again, and finds no cycle
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while line := source.readline():
        size, allow_remote = map(int, line.split())
        told, repaired = answer(source.read(size), allow_remote=bool(allow_remote))
        sink.write(b"%d %d\n" % (len(told), len(repaired)))
        sink.write(told)
        sink.write(repaired)
        sink.flush()


def answer(raw: bytes, *, allow_remote: bool) -> tuple[bytes, bytes]:
    try:
        found = examine(raw, allow_remote=allow_remote)
    except RequestError as error:
        return json.dumps({"status": error.status, "message": error.message}).encode(), b""
    except MemoryError:
        return json.dumps(
            {"status": 413, "message": "the body takes too much memory"}
        ).encode(), b""
    told = {
        "model": _named(found.model),
        "streams": found.streams,
        "several": asdict(found.several),
        "media": found.media,
        "asked": asdict(found.asked),
    }
    return json.dumps(told).encode(), found.repaired or b""


def _named(model: object) -> object:
    """No model has a longer name, and no name is a list."""
    if isinstance(model, str):
        return model[:LONGEST_NAME]
    return None if model is None else False


if __name__ == "__main__":
    main()
