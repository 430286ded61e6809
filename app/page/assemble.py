"""Our page, put together from its files into one text: it needs no second request, so that it works
under whatever path a gateway puts before it, and offline.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "assets"
INCLUDED = re.compile(r"@@([\w./]+)@@")


@cache
def assemble(name: str) -> str:
    """A file of the page's folder, with the files that it names as @@file@@ in their places."""
    text = (FOLDER / name).read_text()
    return INCLUDED.sub(lambda found: (FOLDER / found[1]).read_text().strip(), text)
