"""Pipes that have little room."""

import fcntl
import os
import select

PAGE = select.PIPE_BUF


def pipe(pages=1, free=0):
    """Both ends of a pipe of so many pages, of which so many are free."""
    reader, writer = os.pipe()
    size = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, pages * PAGE)
    os.write(writer, b"x" * (size - free * PAGE))
    return reader, writer
