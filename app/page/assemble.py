"""The page, put together from its files into one: it needs no second request, so that it works
offline and under whatever path a gateway puts before it.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "assets"
INCLUDED = re.compile(rb"@@([\w./]+)@@")


@cache
def assemble(name: str) -> bytes:
    """A file of the assets, UTF-8, with each file that it names as @@file@@ in that place."""
    page = (FOLDER / name).read_bytes()
    return INCLUDED.sub(lambda found: (FOLDER / found[1].decode()).read_bytes().strip(), page)
