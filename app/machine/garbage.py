"""Python's collector of reference cycles, set for a process that serves for days.

What requests leave behind is freed without it: it finds almost nothing, and looks at everything.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

YOUNG = 20_000  # objects more than before, until it looks at the new ones; Python's default: 700


def settle() -> None:
    """Once the set-up is over: what is there now stays, and is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])


@contextlib.contextmanager
def left_alone() -> Iterator[None]:
    """Nothing is collected meanwhile."""
    wanted = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if wanted:
            gc.enable()
