"""Python's collector of reference cycles, set for a process that serves for days.

What requests leave behind is freed without it: it finds almost nothing, and looks at everything.
"""

from __future__ import annotations

import gc

YOUNG = 20_000  # objects more than before, until it looks at the new ones; Python's default: 700


def settle() -> None:
    """Once the set-up is over: what is there now stays, and is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
