"""Every process that the app starts, without forking Python. Those that go on end with us, but for
`outlive`, which is told of our end.

uvloop forks, and runs Python's hooks in the child before it executes the program: hooks of modules
that are being imported by another thread at that moment (the ClearML SDK is) wait for ever, and
the loop waits for them. `subprocess` uses vfork, and runs nothing of Python's.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import selectors
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, cast

from app.machine import clock, threads

TimeoutExpired = subprocess.TimeoutExpired
MOST, PIECE = 64 << 20, 64 << 10  # bytes that `run` takes, in all and at once
PIPE, NOWHERE = subprocess.PIPE, subprocess.DEVNULL
Child = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Done:
    """Exit status (negative for a signal), and what was written."""

    status: int
    output: str
    errors: str


def run(argv: Sequence[str], environment: Mapping[str, str], timeout: float) -> Done:
    """Run a short program to its end, or to ours, in whatever thread. Raises OSError where it
    cannot be run or writes more than MOST bytes, subprocess.TimeoutExpired (it is killed then)."""
    if shutil.which(argv[0]) is None:  # what `die_with_us` begins cannot raise
        problem = errno.EACCES if os.path.exists(argv[0]) else errno.ENOENT
        raise OSError(problem, os.strerror(problem))
    until = clock.now() + timeout
    with subprocess.Popen(
        [*die_with_us(), *argv],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            written = _read(process, until)
            status = process.wait(max(0.0, until - clock.now()))
        except TimeoutExpired:
            process.kill()
            raise TimeoutExpired(argv, timeout) from None
        except BaseException:
            process.kill()
            raise
    return Done(status, *(text.decode(errors="replace") for text in written))


def _read(process: Child, until: float) -> tuple[bytes, bytes]:
    """What it writes to its output and its errors, until both are closed."""
    written = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for pipe in written:
            selector.register(pipe, selectors.EVENT_READ)  # type: ignore[arg-type]
        while selector.get_map():
            ready = selector.select(max(0.0, until - clock.now()))
            if not ready and clock.now() >= until:
                raise TimeoutExpired(process.args, 0)
            for key, _ in ready:
                piece = os.read(key.fd, PIECE)
                if not piece:
                    selector.unregister(key.fileobj)
                written[key.fileobj] += piece  # type: ignore[index]
                if sum(map(len, written.values())) > MOST:
                    raise OSError(errno.EFBIG, f"it writes more than {MOST >> 20} MiB")
    output, errors = map(bytes, written.values())
    return output, errors


def spawn(
    argv: Sequence[str], environment: Mapping[str, str], *, stdin: int, stdout: int, stderr: int
) -> Child:
    """Start a program that goes on, in a process group of its own. Raises OSError."""
    return subprocess.Popen(
        [*die_with_us(), *argv],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=dict(environment),
        start_new_session=True,
    )


def outlive(argv: Sequence[str], environment: Mapping[str, str]) -> IO[bytes]:
    """Start a program that is no descendant of ours, so that nobody who ends our whole tree of
    processes ends it; its standard input, whose end tells it of ours. Raises OSError."""
    parting = 'exec 3<&0; "$@" <&3 3<&- &'
    parent = subprocess.Popen(
        ["/bin/sh", "-c", parting, "sh", *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=dict(environment),
        start_new_session=True,
    )
    parent.wait()
    return cast(IO[bytes], parent.stdin)


async def exit_status(child: Child) -> int:
    """Await the end of a child."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        descriptor = os.pidfd_open(child.pid)
    except (AttributeError, OSError):  # a kernel before 5.3, or a sandbox
        return await threads.run(child.wait)
    try:
        loop.add_reader(descriptor, ended.set)
        await ended.wait()
        return child.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def signal_group(child: Child, signum: signal.Signals) -> None:
    """To a child of `spawn` and to all that it has started; nothing if it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signum)


def die_with_us() -> list[str]:
    """A prefix to a command: the kernel kills it when we end, however we end.

    The signal follows the thread that spawned, so what goes on is spawned by the main thread. Who
    was killed before the kernel knew of it is no longer the parent, and the command is not begun.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return []
    still_ours = '[ "$PPID" = "$0" ] && exec "$@"'
    return [setpriv, "--pdeathsig", "KILL", "--", "/bin/sh", "-c", still_ours, str(os.getpid())]
