"""What the kernel grants us besides memory: open files, processes, and to look into others; and
what we ask it to refuse; and which threads we do without."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

from app.errors import ConfigError
from app.machine.cgroup import ROOT, limit, number

PTRACE = Path("/proc/sys/kernel/yama/ptrace_scope")
UNLIMITED = resource.RLIM_INFINITY
LEAST_FILES = 32


def give_less() -> None:
    """Whatever we were started with, not everybody may write our files and those of our children,
    and no crash leaves our memory, with keys and prompts in it, in a file. `prlimit --core` gives a
    process that runs the latter back.

    numpy, which the SDK imports, starts no thread for each core: OpenBLAS' begin by waiting at full
    speed for work that nobody has. llama-server's environment does not have the variable."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.umask(os.umask(0o077) | 0o002)
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def open_more_files() -> None:
    """As many as we may: each client costs one or two. Raises ConfigError where that is too few for
    the parts that every run has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft != UNLIMITED and soft < LEAST_FILES:
        raise ConfigError(f"at most {soft} files may be open (ulimit -n): allow {LEAST_FILES}")


def open_files() -> int | None:
    """The most descriptors that a process of ours may raise its limit to; None: no limit."""
    return _limit(resource.RLIMIT_NOFILE)


def processes(cgroup: Path = ROOT) -> int | None:
    """The most processes and threads, by our user's limit and the cgroup's; None: no limit."""
    limits = [
        _limit(resource.RLIMIT_NPROC),
        limit(cgroup / "pids.max"),  # cgroup v2
        limit(cgroup / "pids" / "pids.max"),  # cgroup v1
    ]
    return min((each for each in limits if each is not None), default=None)


def ptrace_scope(path: Path = PTRACE) -> int | None:
    """Whom we may trace, as Yama says: 0 all processes of our user, 1 our descendants, 2 only with
    CAP_SYS_PTRACE, 3 none; None without Yama."""
    return number(path)


def _limit(which: int) -> int | None:
    hard = resource.getrlimit(which)[1]
    return None if hard == UNLIMITED else hard
