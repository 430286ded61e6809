"""The stub in the place of a child of the app: `child.py SOCKET`. It ends when it is told to."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [
    str(ROOT),
    *(str(path) for path in Path(sys.prefix).glob("lib/python*/site-packages")),
]

import uvloop  # noqa: E402

from scripts.bench.fronts.upstream import serve  # noqa: E402

uvloop.run(serve(sys.argv[1], 0))
